"""The models that answer: a call is retried once before its first token and continued on another endpoint after it.

Prompts are token ids, so an answer that breaks off after k tokens is continued on another endpoint of the group from
token k + 1 (`generation.py`), and the customer sees one unbroken stream. When no primary endpoint can be called, the
fallback group answers. A `Switched` reports both; a retry before the first token is not reported.

A canary or a fallback may have a tokenizer of its own: it gets the same chat rendered by that tokenizer, and its text
is encoded in the primaries' tokens, so that counts, logs and continuations have one vocabulary
(docs/decisions/0006-ladder.md). So does an endpoint that is no vLLM (`chat_endpoint.py`): it is asked with messages,
and an answer that it has begun goes on at no other such endpoint, which a `NotResumable` says. What a model thinks
before it answers is separated from the answer (`thinking.py`).

An entry may name its endpoints by DNS (`discovery.py`): they come and go while the process runs. Whether they are there
and serve the model is asked in the background (`health.py`).
"""

import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import anyio
import structlog

from chatbot.encodings import UnknownTokenizer
from chatbot.errors import TooLarge
from chatbot.events import Usage
from chatbot.models.call import CallHook, Calls, is_request_at_fault
from chatbot.models.chat_endpoint import ChatEndpoint
from chatbot.models.choice_probabilities import Choices, choice_probabilities
from chatbot.models.completion import Delta, GenerationEnd, Sampling
from chatbot.models.discovery import Discovery, FollowedName
from chatbot.models.endpoint import Endpoint, EndpointFailed, GenerationRequest, open_session
from chatbot.models.failover import Attempts
from chatbot.models.generation import Generation
from chatbot.models.health import HealthChecks
from chatbot.models.pool import (
    SERVING_GROUPS,
    Group,
    Member,
    ModelSettings,
    ModelsFileEntry,
    ModelsMisconfigured,
    Pool,
)
from chatbot.models.thinking import Thought
from chatbot.models.tokenizer_check import check_tokenizer
from chatbot.tokenizer import RenderedChat, Tokenizer
from knowledge.breaker import Breaker, BreakerState
from telemetry.groups import first_failure
from telemetry.supervision import OnFailure, supervise, uncounted

log = structlog.get_logger(__name__)

UNKNOWN_MODEL = "unknown"
# vLLM serves lower numbers first; those of customers and roles are below this.
_SHADOW_PRIORITY = 1000
_JITTER = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Switched:
    """Another endpoint generates from here on: one of the same model, or the smaller model when `group` is fallback."""

    endpoint: str
    group: Group = "primary"


@dataclass(frozen=True, slots=True)
class NotResumable:
    """The endpoint that answers sends no token ids: if it breaks off, nobody can go on after the last one."""


@dataclass(frozen=True, slots=True)
class ModelDone:
    """The answer is whole.

    `usage` counts the prompt once, however many endpoints read it, and all tokens of the answer and of its thinking.
    `models` are those that generated a part of it; `retried`: an endpoint failed on the way.
    """

    finish_reason: Literal["stop", "length"]
    usage: Usage
    models: tuple[str, ...] = field(default=(), compare=False)
    retried: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """An endpoint's entry in the MODELS_FILE (`name`), its model, its breaker, and whether the bank has stopped it."""

    name: str
    group: Group
    model: str
    endpoint: str
    breaker: BreakerState
    stopped: bool


class Models:
    """The pool of endpoints behind one tokenizer."""

    def __init__(
        self,
        pool: Pool,
        tokenizer: Tokenizer,
        *,
        discovery: Discovery | None = None,
        hooks: Sequence[CallHook] = (),
        clock: Callable[[], float] = time.monotonic,
        on_failure: OnFailure = uncounted,
    ) -> None:
        """`discovery` finds endpoints beside those that the pool has."""
        discovery = discovery or Discovery()
        self.tokenizer = tokenizer
        self.pool = pool
        self._followed = discovery.names
        self._calls = Calls(pool, tokenizer, hooks=hooks, clock=clock)
        self.health = HealthChecks(pool, tokenizer, self._calls, discovery=discovery, on_failure=on_failure)

    @property
    def model(self) -> str:
        """The primary model's name; `UNKNOWN_MODEL` until an endpoint without a configured name has reported one."""
        primaries = [member for member in self.pool.members if member.group == "primary"]
        # One that was not compared may serve another model, as in a rollout.
        reported = (m.endpoint.model for m in sorted(primaries, key=lambda member: not member.tokenizer_checked))
        configured = (name.model for name in self._followed if name.group == "primary")
        return next(filter(None, (*reported, *configured)), UNKNOWN_MODEL)

    @property
    def context_tokens(self) -> int | None:
        """The largest context that a primary reports, of those that may be called now if any may: prompt and answer."""
        sizes = [
            (m.available, m.context_tokens) for m in self.pool.members if m.group == "primary" and m.context_tokens
        ]
        return max(sizes)[1] if sizes else None

    @property
    def think(self) -> bool:
        """Whether a model whose answers customers see may think before it answers."""
        return any((known.tokenizer or self.tokenizer).thinks for known in self._known if known.group in SERVING_GROUPS)

    @property
    def names(self) -> frozenset[str]:
        """The names of the MODELS_FILE's entries, by which they can be stopped."""
        return frozenset(known.entry for known in self._known)

    @property
    def _known(self) -> tuple[Member | FollowedName, ...]:
        """The endpoints, and the names that may have none now."""
        return (*self.pool.members, *self._followed)

    def endpoint_statuses(self) -> tuple[EndpointStatus, ...]:
        """Return the status of each endpoint."""
        return tuple(
            EndpointStatus(
                name=member.entry,
                group=member.group,
                model=member.endpoint.model or UNKNOWN_MODEL,
                endpoint=member.endpoint.name,
                breaker=member.breaker.state,
                stopped=member.endpoint.stopped,
            )
            for member in self.pool.members
        )

    async def stream(
        self,
        prompt: RenderedChat,
        *,
        sampling: Sampling,
        conversation_id: str,
        cache_salt: str,
        priority: int = 0,
        begun_ids: Sequence[int] = (),
    ) -> AsyncGenerator[Delta | Thought | Switched | NotResumable | ModelDone]:
        """Generate an answer, or what follows its first tokens `begun_ids`; closing the generator closes the socket.

        An endpoint with another tokenizer, or without token ids, is not called where the prompt has no messages. An
        answer whose thinking uses up its tokens ends with the reason "length".

        Raises:
            TooLarge: prompt and answer do not fit into the model's context.
            Overloaded: every endpoint's queue is full.
            ModelUnavailable: no endpoint can answer, or none finished in time.
        """
        answer = self._generation(prompt, sampling, begun_ids)
        attempts = Attempts(
            self.pool,
            conversation_id,
            resumed=bool(begun_ids),
            small=self._unable(prompt, answer.most_tokens),
        )
        while not answer.spent:
            begun_tokens = len(answer.prompt_ids) - len(prompt.ids)
            target, reported = attempts.next_target(self._unable(prompt, begun_tokens + 1))
            member = target.member
            answer.continue_on(member.tokenizer, has_ids=member.endpoint.has_token_ids)
            request = self._request(answer.prompt_ids, answer.sampling, cache_salt, priority, until=attempts.deadline())
            request = self._for_member(member, request, prompt, answer.text)
            extra = attempts.extra_prompt_tokens(request)
            try:
                with self._calls.counted(target, "answer", request, extra_prompt_tokens=extra) as call:
                    for announcement in _announcements(member, switched=reported):
                        yield announcement
                    await check_tokenizer(member, self.tokenizer)
                    async with aclosing(member.endpoint.stream(request)) as pieces:
                        async for piece in pieces:
                            if not (call.has_begun or isinstance(piece, GenerationEnd)):
                                call.begin()
                            parts, call.tokens = answer.feed(piece), answer.received
                            for part in parts:
                                attempts.models[member.endpoint.model] = None
                                yield part
                            if answer.over:
                                break
                    call.outcome = "ok"
                    attempts.models[member.endpoint.model] = None
                    break
            except EndpointFailed as exc:
                attempts.record_failure(target, exc, begun=answer.begun)
                answer.resume()
        yield _done(answer, attempts)

    async def choice_probabilities(
        self,
        prompt: RenderedChat,
        choices: Choices,
        *,
        conversation_id: str,
        cache_salt: str,
        priority: int = 0,
        least_mass: float = 0.0,
    ) -> tuple[float, ...]:
        """Return the probability of each choice given that one of them comes next.

        They are equal where none is among the 20 most likely tokens, or all have less probability than `least_mass`,
        or where an endpoint without token ids answers questions, but refuses such a one.

        Raises:
            TooLarge, Overloaded, ModelUnavailable: as `stream`.
        """
        sampling = self._fitting(len(prompt.ids), Sampling(max_tokens=1))
        attempts = Attempts(self.pool, conversation_id)
        while True:
            target, _ = attempts.next_target(self._unable(prompt, 1))
            request = self._request(prompt.ids, sampling, cache_salt, priority, until=attempts.deadline())
            request = self._for_member(target.member, request, prompt)
            extra = attempts.extra_prompt_tokens(request)
            try:
                top_tokens = await self._calls.top_tokens(target, "probability", request, extra_prompt_tokens=extra)
            except EndpointFailed as exc:
                if not target.member.endpoint.has_token_ids and is_request_at_fault(exc):
                    log.warning("model_probe_refused", error=str(exc))
                    return (1 / len(choices),) * len(choices)
                attempts.record_failure(target, exc, begun=False)
            else:
                return choice_probabilities(
                    top_tokens.logprobs,
                    choices,
                    token_bytes=top_tokens.texts.__getitem__
                    if top_tokens.texts is not None
                    else (target.member.tokenizer or self.tokenizer).token_bytes,
                    least_mass=least_mass,
                )

    async def shadow_answer(
        self, prompt: RenderedChat, *, sampling: Sampling, conversation_id: str, cache_salt: str
    ) -> str | None:
        """Return the shadow's answer to a prompt, with the lowest priority; None where the shadow cannot be called.

        Raises:
            EndpointFailed: it did not finish.
            TooLarge: as `stream`.
        """
        target = self.pool.pick(conversation_id, group="shadow", avoid=self._unable(prompt, 1))
        if target is None:
            return None
        answer = self._generation(prompt, sampling)
        answer.continue_on(target.member.tokenizer, has_ids=target.member.endpoint.has_token_ids)
        until = anyio.current_time() + target.member.endpoint.deadlines.answer
        request = self._request(prompt.ids, answer.sampling, cache_salt, _SHADOW_PRIORITY, until=until)
        request = self._for_member(target.member, request, prompt)
        with self._calls.counted(target, "answer", request) as call:
            await check_tokenizer(target.member, self.tokenizer)
            async with aclosing(target.member.endpoint.stream(request)) as pieces:
                async for piece in pieces:
                    if not (call.has_begun or isinstance(piece, GenerationEnd)):
                        call.begin()
                    answer.feed(piece)
                    call.tokens = answer.received
                    if answer.over:
                        break
            call.outcome = "ok"
        return answer.text

    def _generation(self, prompt: RenderedChat, sampling: Sampling, begun_ids: Sequence[int] = ()) -> Generation:
        whole = replace(sampling, max_tokens=sampling.max_tokens + sampling.thinking_tokens)
        most_tokens = self._fitting(len(prompt.ids), whole).max_tokens
        return Generation(self.tokenizer, prompt, sampling, most_tokens=most_tokens, begun_ids=begun_ids)

    def _fitting(self, prompt_tokens: int, sampling: Sampling) -> Sampling:
        """Return the sampling with no more answer tokens than the model's context has room for."""
        if self.context_tokens is None:
            return sampling
        room = self.context_tokens - prompt_tokens
        if room < 1:
            raise TooLarge(f"The question and its documents take {prompt_tokens} of {self.context_tokens} tokens")
        return sampling if sampling.max_tokens <= room else replace(sampling, max_tokens=room)

    def _unable(self, prompt: RenderedChat, most_tokens: int) -> list[Member]:
        """Return the members whose context is too small, or that need messages where the prompt has none.

        A primary's must hold so many tokens of an answer, which may move between them; any other's begins an answer.
        """
        return [
            m
            for m in self.pool.members
            if (m.tokenizer is not None and not prompt.messages)
            or (
                m.context_tokens is not None
                and m.context_tokens < len(prompt.ids) + (most_tokens if m.group == "primary" else 1)
            )
        ]

    def _for_member(
        self, member: Member, request: GenerationRequest, prompt: RenderedChat, begun_text: str = ""
    ) -> GenerationRequest:
        """Return the request in the member's tokens, with no more answer tokens than its context has room for."""
        if member.tokenizer is not None:
            rendered = member.tokenizer.render(prompt.messages, thinks=prompt.thinks and not begun_text)
            ids = [*rendered, *member.tokenizer.encode_within(begun_text)]
            request = replace(
                request, prompt_ids=ids, end_ids=member.tokenizer.end_ids, messages=tuple(prompt.messages)
            )
        if member.context_tokens is None:
            return request
        room = max(1, member.context_tokens - len(request.prompt_ids))
        return replace(request, sampling=replace(request.sampling, max_tokens=min(room, request.sampling.max_tokens)))

    def _request(
        self, prompt_ids: Sequence[int], sampling: Sampling, cache_salt: str, priority: int, *, until: float
    ) -> GenerationRequest:
        return GenerationRequest(
            prompt_ids=prompt_ids,
            sampling=sampling,
            cache_salt=cache_salt,
            priority=priority,
            end_ids=self.tokenizer.end_ids,
            until=until,
        )


def _announcements(member: Member, *, switched: bool) -> Iterator[Switched | NotResumable]:
    """Yield what is to be told of the endpoint that goes on with an answer."""
    if switched:
        yield Switched(member.endpoint.name, member.group)
    if not member.endpoint.has_token_ids:
        yield NotResumable()


def _done(answer: Generation, attempts: Attempts) -> ModelDone:
    models = tuple(attempts.models)
    if not answer.usage_is_believed:
        log.warning("usage_not_believed", models=models)
    if answer.thinks:
        log.warning("thinking_not_closed", models=models)
    if answer.closed_unopened:
        log.warning("thinking_not_opened", models=models)
    return ModelDone(answer.finish_reason, answer.usage(), models, attempts.retried)


async def _load_tokenizer(entry: ModelsFileEntry) -> Tokenizer:
    try:
        return await anyio.to_thread.run_sync(entry.load_tokenizer)
    except UnknownTokenizer as exc:
        raise ModelsMisconfigured(f"LLM_TOKENIZER (or `tokenizer` in MODELS_FILE): {exc}") from exc


def _check_thinking(entry: ModelsFileEntry, tokenizer: Tokenizer) -> None:
    """Refuse a vLLM whose model thinks in a form that nobody here knows; a hosted model's server may tell it apart."""
    if tokenizer.thinks_unknown and entry.api == "openai":
        log.warning("thinking_left_to_server", model=entry.name)
    elif tokenizer.thinks_unknown:
        raise ModelsMisconfigured(
            f"the chat template of {entry.tokenizer} is of a model that thinks in a form of its own, and its thinking "
            "cannot be told from its answer here: serve a model that thinks between markers, or one that does not, or "
            "have vLLM tell it apart (`--reasoning-parser`) and say `api: openai` in its entry of a MODELS_FILE"
        )


@asynccontextmanager
async def open_models(
    settings: ModelSettings,
    *,
    on_call: CallHook | None = None,
    on_failure: OnFailure = uncounted,
    discovery: Discovery | None = None,
) -> AsyncGenerator[Models]:
    """Open the endpoints that the settings name, compare their tokenizers with ours, and probe those that are away.

    `discovery` says how names are resolved; the settings say which.

    Raises:
        ModelsMisconfigured: the message says what to set.
    """
    file = await anyio.to_thread.run_sync(settings.read)
    tokenizer = await _load_tokenizer(file.primary)
    foreign = {e.name: await _load_tokenizer(e) for e in file.root if not e.shares_tokenizer(file.primary)}
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
    access = {entry.name: await anyio.to_thread.run_sync(entry.access, key) for entry in file.root}
    deadlines = {entry.name: await anyio.to_thread.run_sync(entry.read_deadlines) for entry in file.root}
    async with open_session() as http:

        def tokenizer_of(entry: ModelsFileEntry) -> Tokenizer:
            return foreign.get(entry.name, tokenizer)

        for entry in file.root:
            _check_thinking(entry, tokenizer_of(entry))

        def member_of(entry: ModelsFileEntry, url: str, address: str | None = None) -> Member:
            reached = replace(access[entry.name], address=address)
            within = deadlines[entry.name]
            return Member(
                Endpoint(http, url, within, model=entry.model, access=reached)
                if entry.api == "vllm"
                else ChatEndpoint(http, url, within, counts=tokenizer_of(entry), entry=entry, access=reached),
                entry.group,
                Breaker(settings.breaker, jitter=partial(_JITTER.uniform, 0.8, 1.0)),
                entry=entry.name,
                tokenizer=tokenizer_of(entry) if entry.api == "openai" else foreign.get(entry.name),
            )

        names = tuple(
            FollowedName(
                host=url.host or "",
                entry=entry.name,
                group=entry.group,
                model=entry.model,
                tokenizer=foreign.get(entry.name),
                member_at=partial(member_of, entry, str(url)),
            )
            for entry in file.root
            if entry.follow_dns
            for url in entry.urls
        )
        discovery = replace(discovery or Discovery(), names=names)
        members = [member_of(entry, str(url)) for entry in file.root if not entry.follow_dns for url in entry.urls]
        members += await discovery.find()
        pool = Pool(members, shares=file.shares, prefill=deadlines[file.primary.name].prefill)
        hooks = [on_call] if on_call else []
        models = Models(pool, tokenizer, discovery=discovery, hooks=hooks, on_failure=on_failure)
        await models.health.check()
        with first_failure():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervise, "probes", models.health.probe_forever, on_failure)
                tasks.start_soon(supervise, "endpoints", models.health.follow_forever, on_failure)
                try:
                    yield models
                finally:
                    tasks.cancel_scope.cancel()
