"""Open every service of the chat API in order, in one exit stack, and yield the frozen `Services`."""

import hashlib
import hmac
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio
from anyio.abc import TaskGroup
from sqlalchemy.ext.asyncio import AsyncEngine

from chatbot.admission import Admission, Capacity
from chatbot.answerability import AnswerabilityWeights
from chatbot.audit import Anchors, Audit, Versions, open_anchors, open_audit
from chatbot.calibration import FittedWeights, read_calibration
from chatbot.conversations import ConversationIds, History, Ratings
from chatbot.deferred import DeferredWrites
from chatbot.limits import Ledger
from chatbot.metrics import Metrics
from chatbot.models import Models, open_models
from chatbot.prompt import PromptBuilder, load_templates
from chatbot.proof import ReplayContext
from chatbot.questions import handoff
from chatbot.reads import Reads
from chatbot.redis_client import RedisBreaker, open_redis, watch_eviction
from chatbot.retrieval import Retrieval, open_reranker
from chatbot.screener import Screener
from chatbot.services import Services, TurnSettings
from chatbot.settings import Settings
from chatbot.streams import AnswerLog, AnswerParts, Answers, IdempotencyKeys, open_answer_log
from chatbot.tokens import TokenCounter
from chatbot.turns import OrphanedRecords, continue_answer
from edge.sign_in import SignIn, open_sign_in
from knowledge.bank import Bank, Banks, read_banks
from knowledge.embedding import open_embedder
from knowledge.identity import Authenticator, open_authenticator
from knowledge.index import Index, open_index
from knowledge.index_state import read_index_state, require_passages
from knowledge.passage import LANGUAGES
from knowledge.profiles import read_answer_mode
from knowledge.service_keys import ServiceKeys, open_service_keys
from knowledge.storage import open_clock
from knowledge.terms import Terms
from knowledge.tls import check_connections
from knowledge.withdrawals import Withdrawals, open_withdrawals
from knowledge.write_probe import WriteProbe
from telemetry.siem import open_siem
from telemetry.supervision import OnFailure, supervise


@asynccontextmanager
async def open_passages(settings: Settings, *, read_only: bool) -> AsyncGenerator[Index]:
    """Open the passage index with its embedder and its terms.

    With `read_only`, no collection is created on a server, and an unavailable server is tried again at each use.
    """
    only_reads_server = read_only and settings.qdrant_url is not None
    terms = await anyio.to_thread.run_sync(Terms)
    async with (
        open_embedder(settings.embedder) as embedder,
        open_index(
            settings.index, embedder, terms, read_only=only_reads_server, retry_start=only_reads_server
        ) as index,
    ):
        yield index


@asynccontextmanager
async def open_services(
    settings: Settings, *, engine: AsyncEngine, index: Index | None = None
) -> AsyncGenerator[Services]:
    """Open the services; pass `index` where another service of this process shares the embedded index."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await check_connections(settings.connections)
        banks = await anyio.to_thread.run_sync(read_banks, settings.bank_file)
        metrics = Metrics()
        metrics.begin_at_zero((0, *settings.admission.priorities.values()))
        if index is None:
            index = await enter(open_passages(settings, read_only=True))
        redis = await enter(open_redis(settings.redis_url.get_secret_value(), settings.redis_tls))
        breaker = await enter(open_breaker(settings))
        models = await enter(open_models(settings.models, on_call=metrics.model_called, on_failure=metrics.task_failed))
        deferred = DeferredWrites(settings.deferred, on_lost=metrics.write_lost, on_failure=metrics.task_failed)
        ledger = Ledger(redis, breaker, settings.ledger, deferred=deferred, on_lost=metrics.lost_reservations.inc)
        audit = await enter(open_audit(engine, settings.audit, on_failure=metrics.task_failed))
        now = await enter(open_clock(engine, metrics.task_failed))
        siem = stack.enter_context(open_siem("chatbot", settings.traces, tls=settings.traces_tls.context(), now=now))
        keys, authenticator, sign_in = await enter(open_identity(settings, engine, banks, metrics, now=now))
        withdrawals = await enter(open_stops(engine, models, on_failure=metrics.task_failed))
        answer_log = await enter(open_answer_log(redis, breaker, settings.answer_log))
        prompts = prompt_builder(settings, models.counter)
        fitted = await fitted_weights(settings)
        weights = weights_of(fitted, index, models, prompts)
        retrieval = await enter(open_retrieval(settings, index, banks))
        reads = Reads(settings.reads)
        # Entered last, so closed first: no answer outlives the services that it uses.
        tasks = await enter(open_tasks())
        services = Services(
            settings=await turn_settings(settings),
            chooses_answer=settings.demo_key_file is not None,
            authenticator=authenticator,
            admission=Admission(settings.admission, prefill=models.pool.prefill_rate, hook=metrics.admission_decided),
            answers=Answers.of(
                AnswerParts(
                    log=answer_log,
                    tasks=tasks,
                    settings=settings.answers,
                    deferred=deferred,
                    on_failure=metrics.task_failed,
                    on_taken=metrics.answer_taken_over,
                    handoff_text=banks.by_tenant(contact_sentences),
                )
            ),
            answer_log=answer_log,
            audit=audit,
            banks=banks,
            conversation_ids=ConversationIds(
                settings.audit_key.get_secret_value(), begin_within=settings.history.begin_within
            ),
            deferred=deferred,
            history=History(redis, breaker, settings.history, reads=reads),
            idempotency=IdempotencyKeys(redis, breaker, settings.idempotency, deferred=deferred),
            index=index,
            ledger=ledger,
            metrics=metrics,
            models=models,
            prompts=prompts,
            ratings=Ratings(engine),
            reads=reads,
            retrieval=retrieval,
            screener=Screener(),
            service_keys=keys,
            siem=siem,
            sign_in=sign_in,
            withdrawals=withdrawals,
            answerability=weights,
            cache_salt=partial(salt_of, settings.audit_key.get_secret_value()),
            now=now,
            pings={**pings(index, engine, answer_log, models, now=now), "calibration": fitted.require_fit},
        )
        start_background_tasks(
            tasks, services, settings, eviction=partial(watch_eviction, redis, breaker, metrics.evicting.set)
        )
        yield services


@asynccontextmanager
async def open_identity(
    settings: Settings, engine: AsyncEngine, banks: Banks, metrics: Metrics, *, now: Callable[[], float]
) -> AsyncGenerator[tuple[ServiceKeys, Authenticator, SignIn | None]]:
    """Open the service keys, the authenticator of tokens and keys, and the sign-in sessions."""
    async with AsyncExitStack() as stack:
        keys = await stack.enter_async_context(
            open_service_keys(engine, settings.service_keys, now=now, on_failure=metrics.task_failed)
        )
        authenticator = await stack.enter_async_context(
            open_authenticator(settings.auth, now=now, principal_of_key=keys.principal, tls=settings.auth_tls)
        )
        sign_in = None
        if settings.oidc is not None:
            redis_url = settings.redis_url.get_secret_value()
            sign_in = await stack.enter_async_context(
                open_sign_in(settings.oidc, redis_url, authenticator, banks, now=now, redis_tls=settings.redis_tls)
            )
        yield keys, authenticator, sign_in


async def fitted_weights(settings: Settings) -> FittedWeights:
    """Read the calibration file of the answerability weights.

    Raises:
        CalibrationRefused: the file cannot be read or is not a valid calibration.
    """
    calibration = await anyio.to_thread.run_sync(read_calibration, settings.calibration_file)
    return FittedWeights(calibration, settings.turn.answerability)


def weights_of(
    fitted: FittedWeights, index: Index, models: Models, prompts: PromptBuilder
) -> Callable[[], AnswerabilityWeights]:
    """Return a function that selects the weights for the current models; a misfit is logged now or when it appears."""

    def weights() -> AnswerabilityWeights:
        return fitted.of(embedder=index.embedder, model=models.model, probe=prompts.probe_version)

    weights()
    return weights


@asynccontextmanager
async def open_stops(engine: AsyncEngine, models: Models, *, on_failure: OnFailure) -> AsyncGenerator[Withdrawals]:
    """Open the withdrawals, and keep the model pool's stopped models in step with them."""

    def stop_models() -> None:
        models.pool.stop(withdrawals.stopped_models())

    async with open_withdrawals(engine, on_failure=on_failure) as withdrawals:
        stop_models()
        with withdrawals.notifying(stop_models):
            yield withdrawals


@asynccontextmanager
async def open_breaker(settings: Settings) -> AsyncGenerator[RedisBreaker]:
    """Open the breaker of Redis; its own connection distinguishes a late command from an unavailable store."""
    async with open_redis(settings.redis_url.get_secret_value(), settings.redis_tls, max_connections=1) as client:
        yield RedisBreaker(settings.redis, ping=client.ping)


@asynccontextmanager
async def open_tasks() -> AsyncGenerator[TaskGroup]:
    """Open the task group of answers and background tasks; it is cancelled when the block ends."""
    async with anyio.create_task_group() as tasks:
        try:
            yield tasks
        finally:
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_retrieval(settings: Settings, index: Index, banks: Banks) -> AsyncGenerator[Retrieval]:
    """Open the retrieval of passages, with a reranker if one is configured."""
    async with open_reranker(settings.reranker) as reranker:
        yield Retrieval(index, banks, reranker=reranker)


def start_background_tasks(
    tasks: TaskGroup, services: Services, settings: Settings, **other_tasks: Callable[[], Awaitable[None]]
) -> None:
    """Start the supervised background tasks; they run until the process ends."""
    capacity = Capacity(lambda: services.models.pool.members, services.admission, settings.admission)
    longest_open = settings.turn.longest_answer + settings.idempotency.lease  # the lease: to open the turn
    orphaned = OrphanedRecords(services.audit, services.answer_log, least_age=longest_open, now=services.now)
    runs: dict[str, Callable[[], Awaitable[None]]] = {
        "leases": partial(services.answers.takeover.maintain_leases, partial(continue_answer, services=services)),
        "places": services.admission.notify_forever,
        "deferred": services.deferred.retry_forever,
        "capacity": capacity.watch,
        "openings": orphaned.close_periodically,
        **other_tasks,
    }
    if settings.anchors is not None:
        anchors = Anchors(services.audit, open_anchors(settings.anchors, settings.audit_anchors_tls), now=services.now)
        runs["anchors"] = partial(anchors.anchor_daily, services.metrics.audit_anchored_at.set)
    for name, run in runs.items():
        tasks.start_soon(supervise, name, run, services.metrics.task_failed)


@asynccontextmanager
async def open_replay_context(settings: Settings, *, engine: AsyncEngine) -> AsyncGenerator[ReplayContext]:
    """Open the services that a replay needs, for a command that runs beside the chat API.

    Raises:
        IndexUnavailable: the index cannot be opened.
    """
    async with AsyncExitStack() as stack:
        index = await stack.enter_async_context(open_passages(settings, read_only=True))
        redis = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value(), settings.redis_tls))
        prompts = prompt_builder(settings, TokenCounter())
        yield ReplayContext(
            audit=Audit(engine, settings.audit),
            history=History(redis, RedisBreaker(settings.redis), settings.history),
            index=index,
            prompts=prompts,
            banks=await anyio.to_thread.run_sync(read_banks, settings.bank_file),
            versions=Versions(model="", prompt=prompts.version, index=index.collection, embedder=index.embedder),
        )


async def turn_settings(settings: Settings) -> TurnSettings:
    """Return the turn settings; an unset answer mode is taken from the primary model's profile."""
    if settings.turn.answer is not None:
        return settings.turn
    file = await anyio.to_thread.run_sync(settings.models.read)
    mode = await anyio.to_thread.run_sync(read_answer_mode, file.primary.profile)
    return settings.turn.model_copy(update={"answer": mode})


def contact_sentences(bank: Bank) -> str:
    """Return the sentences that name the bank's contact for customers, in all languages."""
    return " ".join(handoff(language, bank) for language in LANGUAGES)


def prompt_builder(settings: Settings, counter: TokenCounter) -> PromptBuilder:
    """Return the builder of every prompt."""
    return PromptBuilder(load_templates(), counter, passage_tokens=settings.passage_tokens)


def salt_of(key: str, tenant: str) -> str:
    """Return the tenant's salt for vLLM's prefix cache."""
    return hmac.new(key.encode(), f"prefix cache of {tenant}".encode(), hashlib.sha256).hexdigest()


def pings(
    index: Index, engine: AsyncEngine, answer_log: AnswerLog, models: Models, *, now: Callable[[], float]
) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return the readiness probe of each dependency by its name in `/readyz`."""
    return {
        "index": partial(ping_index, index, engine, now=now),
        "embedder": index.ping_embedder,
        "sql": WriteProbe(engine).ping,
        "redis": answer_log.ping,
        "models": models.pool.ping,
    }


async def ping_index(index: Index, engine: AsyncEngine, *, now: Callable[[], float]) -> None:
    """Check that the index answers, and that it holds passages if SQL has some that customers could read.

    Raises:
        IndexUnavailable: the index does not answer.
        IndexEmpty: SQL records such passages, and the index holds none of them.
    """
    await index.ping()
    async with engine.connect() as connection:
        state = await read_index_state(connection)
    await require_passages(index, state, now=now())
