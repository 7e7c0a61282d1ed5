"""The models that answer: a call is retried once before its first token and continued on another endpoint after it.

Prompts are token ids, so an answer that breaks off after k tokens is continued on another endpoint of the group from
token k + 1 (`generation.py`), and the customer sees one unbroken stream. When no primary endpoint can be called, the
fallback group answers. A `Switched` reports both; a retry before the first token is not reported.

A canary or a fallback may have a tokenizer of its own: it gets the same chat rendered by that tokenizer, and its text
is encoded in the primaries' tokens, so that counts, logs and continuations have one vocabulary
(docs/decisions/0006-ladder.md). So does an endpoint that is no vLLM (`chat_endpoint.py`): it is asked with messages,
and an answer that it has begun goes on at no other such endpoint, which a `NotResumable` says. What a model thinks
before it answers is separated from the answer (`thinking.py`).

An entry may name its endpoints by DNS (`discovery.py`): they come and go while the process runs. An endpoint that is
down at boot does not stop the boot: its breaker starts open. Open breakers are closed by probes in the background,
which also check the tokenizer, and by `ping`; never by a customer's call.
"""

import random
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import anyio
import structlog

from chatbot.encodings import UnknownTokenizer
from chatbot.errors import ModelUnavailable, TooLarge
from chatbot.events import Usage
from chatbot.models.call import CallHook, CallKind, ModelCall
from chatbot.models.chat_endpoint import ChatEndpoint
from chatbot.models.choice_probabilities import Choices, choice_probabilities
from chatbot.models.completion import Delta, GenerationEnd, Sampling, TopTokens
from chatbot.models.discovery import Discovery, FollowedName
from chatbot.models.endpoint import (
    METADATA_SECONDS,
    AccessDenied,
    ContentFiltered,
    Endpoint,
    EndpointFailed,
    GenerationRequest,
    OutputLimitReached,
    RequestRejected,
    WrongModel,
    open_session,
)
from chatbot.models.failover import Attempts
from chatbot.models.generation import Generation
from chatbot.models.pool import (
    SERVING_GROUPS,
    Group,
    Member,
    ModelSettings,
    ModelsFileEntry,
    ModelsMisconfigured,
    Pool,
    Target,
)
from chatbot.models.thinking import Thought
from chatbot.tokenizer import Message, RenderedChat, Tokenizer
from knowledge.breaker import Breaker, BreakerState, CallResult
from telemetry.groups import first_failure
from telemetry.supervision import OnFailure, contained, supervise, uncounted

log = structlog.get_logger(__name__)

UNKNOWN_MODEL = "unknown"
# The default of vLLM's `--max-logprobs`.
_TOP_TOKENS = 20
# vLLM serves lower numbers first; those of customers and roles are below this.
_SHADOW_PRIORITY = 1000
# The deadline of a probe.
_PING_SECONDS = 1.5
# Of a question of one word; a model that thinks refuses fewer.
_WORD_TOKENS = 16
_PROBE_EVERY = 1.0
_JITTER = random.SystemRandom()
_TOKENIZER_SAMPLES = (
    "정기예금을 중도해지하면 기본이율의 50%만 적용됩니다. 예금자보호 한도는 1억원입니다.",
    "Early withdrawal costs 1,000,000 won (0.5%);\n\n  see  section 3.2 -- it's final. 谢谢 🙂 e\u0301",
    "\u1100\u1161\u11a8\u1100\u1161\u11a8 ㄱㅏㄱ 각각 \u00e9t\u00e9 👩‍👩‍👧 "
    "½ Ⅳ ０１２ 12345678901 \t\t    x\r\n \u3000 \u00a0y",
)


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
        self._on_failure = on_failure
        self.tokenizer = tokenizer
        self.pool = pool
        self._discovery = discovery or Discovery()
        self._stopped: frozenset[str] = frozenset()
        self._hooks = tuple(hooks)
        self._clock = clock

    @property
    def model(self) -> str:
        """The primary model's name; `UNKNOWN_MODEL` until an endpoint without a configured name has reported one."""
        reported = (m.endpoint.model for m in self.pool.members if m.group == "primary")
        configured = (name.model for name in self._discovery.names if name.group == "primary")
        return next(filter(None, (*reported, *configured)), UNKNOWN_MODEL)

    @property
    def context_tokens(self) -> int | None:
        """The smallest context that a primary reports: prompt and answer together."""
        sizes = [m.context_tokens for m in self.pool.members if m.group == "primary" and m.context_tokens is not None]
        return min(sizes, default=None)

    @property
    def think(self) -> bool:
        """Whether a model whose answers customers see may think before it answers."""
        return any(self._tokenizer_of(known).thinks for known in self._known if known.group in SERVING_GROUPS)

    @property
    def names(self) -> frozenset[str]:
        """The names of the MODELS_FILE's entries, by which they can be stopped."""
        return frozenset(known.entry for known in self._known)

    @property
    def _known(self) -> tuple[Member | FollowedName, ...]:
        """The endpoints, and the names that may have none now."""
        return (*self.pool.members, *self._discovery.names)

    def stop(self, names: Collection[str]) -> None:
        """Stop the endpoints of these entries, with the calls in progress, and resume all others."""
        self._stopped = frozenset(names)
        for member in self.pool.members:
            if member.entry not in names:
                member.endpoint.resume()
            elif not member.endpoint.stopped:
                log.warning("model_endpoint_stopped", endpoint=member.endpoint.name)
                member.endpoint.stop()

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
        attempts = Attempts(self.pool, conversation_id, resumed=bool(begun_ids), avoid=self._unable(prompt))
        while not answer.spent:
            target, reported = attempts.next_target()
            member = target.member
            answer.continue_on(member.tokenizer, has_ids=member.endpoint.has_token_ids)
            request = self._request(answer.prompt_ids, answer.sampling, cache_salt, priority, until=attempts.deadline())
            request = self._for_member(member, request, prompt, answer.text)
            extra = attempts.extra_prompt_tokens(request)
            try:
                with self._counted(target, "answer", request, extra_prompt_tokens=extra) as call:
                    for announcement in _announcements(member, switched=reported):
                        yield announcement
                    await self._check_tokenizer(member)
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
        attempts = Attempts(self.pool, conversation_id, avoid=self._unable(prompt))
        while True:
            target, _ = attempts.next_target()
            request = self._request(prompt.ids, sampling, cache_salt, priority, until=attempts.deadline())
            request = self._for_member(target.member, request, prompt)
            extra = attempts.extra_prompt_tokens(request)
            try:
                top_tokens = await self._top_tokens(target, request, "probability", extra_prompt_tokens=extra)
            except EndpointFailed as exc:
                if not target.member.endpoint.has_token_ids and _is_request_at_fault(exc):
                    log.warning("model_probe_refused", error=str(exc))
                    return (1 / len(choices),) * len(choices)
                attempts.record_failure(target, exc, begun=False)
            else:
                return choice_probabilities(
                    top_tokens.logprobs,
                    choices,
                    token_bytes=top_tokens.texts.__getitem__
                    if top_tokens.texts is not None
                    else self._tokenizer_of(target.member).token_bytes,
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
        target = self.pool.pick(conversation_id, group="shadow", avoid=self._unable(prompt))
        if target is None:
            return None
        answer = self._generation(prompt, sampling)
        answer.continue_on(target.member.tokenizer, has_ids=target.member.endpoint.has_token_ids)
        until = anyio.current_time() + target.member.endpoint.deadlines.answer
        request = self._request(prompt.ids, answer.sampling, cache_salt, _SHADOW_PRIORITY, until=until)
        request = self._for_member(target.member, request, prompt)
        with self._counted(target, "answer", request, extra_prompt_tokens=0) as call:
            await self._check_tokenizer(target.member)
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

    async def ping(self) -> None:
        """Return when an endpoint is ready, after a probe of each whose breaker permits one (of those with token ids).

        Raises:
            ModelUnavailable: no endpoint is ready.
        """
        serving = self.pool.serving
        if any(m.tokenizer_checked and m.breaker.state is BreakerState.CLOSED for m in serving):
            return
        for member in (m for m in serving if m.endpoint.has_token_ids):  # others may take longer than who asks waits
            if await self._probe(member) or (member.available and await self._closed_generates(member)):
                return
        raise ModelUnavailable(retry_after=self.pool.retry_after())

    async def probe_forever(self) -> None:
        """Probe endpoints whose breaker is open as they are due, one a second in all: none is tried on a customer."""
        async with anyio.create_task_group() as tasks:
            while True:
                await anyio.sleep(_PROBE_EVERY)
                due = [m for m in self.pool.members if m.breaker.due and not m.endpoint.stopped]
                if due:
                    member = min(due, key=lambda member: member.breaker.due_since)
                    hosted = not member.endpoint.has_token_ids  # and may queue: a healthy one would stay open for ever
                    seconds = max(_PING_SECONDS, member.endpoint.deadlines.first_token(0)) if hosted else _PING_SECONDS
                    tasks.start_soon(self._probe, member, seconds)
                for member in self.pool.members:
                    if member.begins_try_out(anyio.current_time()):
                        tasks.start_soon(self._try_out_again, member)

    async def follow_forever(self) -> None:
        """Ask for the addresses of the followed names every few seconds; the pool gets new endpoints when checked."""

        async def follow(name: FollowedName) -> None:
            while True:
                await anyio.sleep(self._discovery.every)
                new, gone = await name.update(self._discovery.resolve)
                for member in gone:
                    log.info("model_endpoint_gone", endpoint=member.endpoint.name)
                    self.pool.remove(member)
                for member in new:
                    tasks.start_soon(self._check_and_join, name, member)

        async with anyio.create_task_group() as tasks:
            for name in self._discovery.names:
                tasks.start_soon(follow, name)

    async def _check_and_join(self, name: FollowedName, member: Member) -> None:
        """Take a new endpoint into the pool; its breaker starts open where its tokenizer could not be compared."""
        with contained("follow", self._on_failure):
            try:
                await self._check_tokenizer(member)
            except EndpointFailed as exc:
                log.warning("model_endpoint_not_there_yet", endpoint=member.endpoint.name, error=str(exc))
        if not member.tokenizer_checked:
            member.breaker.trip()
        if member.entry in self._stopped:
            member.endpoint.stop()
        if member in name.members.values():  # otherwise it went while it was checked
            log.info("model_endpoint_found", endpoint=member.endpoint.name)
            self.pool.add(member)

    async def _probe(self, member: Member, seconds: float = _PING_SECONDS) -> bool:
        """Probe an endpoint whose breaker is open, if that is due; return whether it generates within these seconds."""
        permit = member.breaker.probe()
        if permit is None:
            return False
        try:
            with contained("probe", self._on_failure):
                return await self._generates(Target(member, permit), seconds)
        finally:
            # Counts only where the call has brought no result: a bug, or the end of this process.
            member.breaker.record(permit, CallResult.FAILED)
        return False

    async def _closed_generates(self, member: Member) -> bool:
        permit = member.breaker.permit()
        return permit is not None and await self._generates(Target(member, permit), _PING_SECONDS)

    async def check(self) -> None:
        """Compare every endpoint's tokenizer with ours; one that is down starts with an open breaker.

        Raises:
            ModelsMisconfigured: an endpoint serves another model or tokenizer, or none of them lets us in.
        """
        mismatches: list[str] = []
        denied: dict[Member, str] = {}

        async def check(member: Member) -> None:
            try:
                await self._check_tokenizer(member)
            except WrongModel as exc:
                mismatches.append(str(exc))
            except EndpointFailed as exc:
                log.warning("model_endpoint_not_there_yet", endpoint=member.endpoint.name, error=str(exc))
                member.breaker.trip()
                if isinstance(exc, AccessDenied):
                    denied[member] = str(exc)

        async with anyio.create_task_group() as tasks:
            for member in self.pool.members:
                tasks.start_soon(check, member)
        if all(member in denied for member in self.pool.serving):
            mismatches += denied.values()
        if mismatches:
            raise ModelsMisconfigured("; ".join(mismatches))

    def _generation(self, prompt: RenderedChat, sampling: Sampling, begun_ids: Sequence[int] = ()) -> Generation:
        whole = replace(sampling, max_tokens=sampling.max_tokens + sampling.thinking_tokens)
        most_tokens = self._fitting(len(prompt.ids), whole).max_tokens
        return Generation(self.tokenizer, prompt, sampling, most_tokens=most_tokens, begun_ids=begun_ids)

    async def _top_tokens(
        self,
        target: Target,
        request: GenerationRequest,
        kind: Literal["probability", "ping"],
        *,
        extra_prompt_tokens: int,
    ) -> TopTokens:
        with self._counted(target, kind, request, extra_prompt_tokens=extra_prompt_tokens) as call:
            await self._check_tokenizer(target.member)
            top_tokens = await target.member.endpoint.top_tokens(request, top=_TOP_TOKENS)
            call.begin()
            call.tokens = 1
            call.outcome = "ok"
            return top_tokens

    async def _generates(self, target: Target, seconds: float) -> bool:
        """Return whether the endpoint generates a token: a hung engine still answers its health check."""
        member = target.member
        request = self._one_word(member, Sampling(max_tokens=1), seconds)
        try:
            if member.endpoint.has_token_ids:
                await self._top_tokens(target, request, "ping", extra_prompt_tokens=0)
                return True
            member.tokenizer_checked = False
            with self._counted(target, "ping", request, extra_prompt_tokens=0) as call:
                await self._check_tokenizer(member, seconds=seconds)
                call.begin()
                call.outcome = "ok"
        except EndpointFailed:
            return False
        return True

    def _one_word(self, member: Member, sampling: Sampling, seconds: float) -> GenerationRequest:
        tokenizer, chat = self._tokenizer_of(member), (Message("user", "ping"),)
        request = self._request(tokenizer.render(chat), sampling, "", 0, until=anyio.current_time() + seconds)
        return replace(request, messages=chat, end_ids=tokenizer.end_ids)

    async def _try_out_again(self, member: Member) -> None:
        """Leave an endpoint that has refused a question, where it refuses one word too."""
        with contained("probe", self._on_failure):
            try:
                await self._try_out(member, member.endpoint.deadlines.first_token(0))
            except AccessDenied as exc:
                log.warning("model_endpoint_refuses_everything", endpoint=member.endpoint.name, error=str(exc))
                member.breaker.trip()
            except EndpointFailed as exc:  # its calls tell
                log.warning("model_endpoint_not_tried_out", endpoint=member.endpoint.name, error=str(exc))

    async def _try_out(self, member: Member, seconds: float) -> None:
        """Ask an endpoint whose tokens cannot be compared one word, as every question asks it.

        Raises:
            AccessDenied: it refuses what every question sends.
            EndpointFailed: it does not answer, or does not say that its answer is whole.
        """
        request = self._one_word(member, Sampling(max_tokens=_WORD_TOKENS), seconds)
        try:
            async with aclosing(member.endpoint.stream(request)) as pieces:
                async for _ in pieces:  # to its end: there are servers whose answers have none that can be told
                    pass
        except OutputLimitReached:
            return
        except RequestRejected as exc:
            raise AccessDenied(f"{exc}, of one word: see `omit`, `length_field` and `extra_body` of its entry") from exc

    async def _check_tokenizer(self, member: Member, *, seconds: float = METADATA_SECONDS) -> None:
        """Compare the endpoint's token ids with ours, once and whenever its breaker was open since.

        One that has none is asked a word within these seconds.
        """
        if member.tokenizer_checked:
            return
        endpoint, tokenizer = member.endpoint, self._tokenizer_of(member)
        card = await endpoint.model_card()
        chat = [Message("system", _TOKENIZER_SAMPLES[0]), Message("user", _TOKENIZER_SAMPLES[1])]
        messages = [{"role": message.role, "content": message.content} for message in chat]
        now = time.time()
        on_any_day = [tokenizer.render(chat, at=now + day * 86_400) for day in (0, -1, 1)]  # its zone may be another
        comparisons: list[tuple[dict[str, object], list[list[int]]]] = [
            *(({"prompt": text, "add_special_tokens": False}, [tokenizer.encode(text)]) for text in _TOKENIZER_SAMPLES),
            ({"messages": messages, "add_generation_prompt": True} | _kwargs(tokenizer), on_any_day),
        ]
        for body, ours in comparisons if endpoint.has_token_ids else ():
            if await endpoint.tokenize(body) not in ours:
                part = "chat template" if "messages" in body else "tokenizer"
                raise WrongModel(
                    f"the {part} of {card.id} at {endpoint.name} is not the one in the tokenizer's folder: "
                    "set LLM_TOKENIZER (or `tokenizer` in MODELS_FILE) to the folder of the served model"
                )
        if not endpoint.has_token_ids:
            await self._try_out(member, seconds)
        member.context_tokens = card.max_model_len
        member.tokenizer_checked = True

    def _fitting(self, prompt_tokens: int, sampling: Sampling) -> Sampling:
        """Return the sampling with no more answer tokens than the model's context has room for."""
        if self.context_tokens is None:
            return sampling
        room = self.context_tokens - prompt_tokens
        if room < 1:
            raise TooLarge(f"The question and its documents take {prompt_tokens} of {self.context_tokens} tokens")
        return sampling if sampling.max_tokens <= room else replace(sampling, max_tokens=room)

    def _tokenizer_of(self, member: Member | FollowedName) -> Tokenizer:
        return self.tokenizer if member.tokenizer is None else member.tokenizer

    def _unable(self, prompt: RenderedChat) -> list[Member]:
        """Return the members whose context is too small for the prompt, or that need messages where it has none."""
        return [
            m
            for m in self.pool.members
            if (m.tokenizer is not None and not prompt.messages)
            or (m.group != "primary" and m.context_tokens is not None and m.context_tokens <= len(prompt.ids))
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

    @contextmanager
    def _counted(
        self, target: Target, kind: CallKind, request: GenerationRequest, *, extra_prompt_tokens: int
    ) -> Iterator[ModelCall]:
        """Count a call in flight; however it ends, the breaker and the hooks get its result."""
        prompt_tokens = len(request.prompt_ids)
        slow_after = target.member.endpoint.deadlines.slow_first_token(prompt_tokens)
        call = ModelCall(target, slow_after=slow_after, clock=self._clock)
        try:
            yield call
        except EndpointFailed as exc:
            call.outcome = exc.outcome
            if kind == "answer" and not target.member.endpoint.has_token_ids and _is_request_at_fault(exc):
                target.member.schedule_try_out(anyio.current_time())  # or it refuses everything now
            raise
        finally:
            call.settle(alternatives=self.pool.has_alternative(target.member))
            record = call.finished(kind=kind, prompt_tokens=prompt_tokens, extra_prompt_tokens=extra_prompt_tokens)
            for hook in self._hooks:
                hook(record)


def _is_request_at_fault(exc: EndpointFailed) -> bool:
    return isinstance(exc, RequestRejected) and not isinstance(exc, ContentFiltered)


def _announcements(member: Member, *, switched: bool) -> Iterator[Switched | NotResumable]:
    """Yield what is to be told of the endpoint that goes on with an answer."""
    if switched:
        yield Switched(member.endpoint.name, member.group)
    if not member.endpoint.has_token_ids:
        yield NotResumable()


def _done(answer: Generation, attempts: Attempts) -> ModelDone:
    models = tuple(attempts.models)
    if answer.thinks:
        log.warning("thinking_not_closed", models=models)
    if answer.closed_unopened:
        log.warning("thinking_not_opened", models=models)
    return ModelDone(answer.finish_reason, answer.usage(), models, attempts.retried)


def _kwargs(tokenizer: Tokenizer) -> dict[str, object]:
    return {"chat_template_kwargs": tokenizer.template_kwargs} if tokenizer.template_kwargs else {}


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
        await models.check()
        with first_failure():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervise, "probes", models.probe_forever, on_failure)
                tasks.start_soon(supervise, "endpoints", models.follow_forever, on_failure)
                try:
                    yield models
                finally:
                    tasks.cancel_scope.cancel()
