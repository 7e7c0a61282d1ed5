"""The models that answer: a call is retried once before its first token and continued on another endpoint after it.

An answer that breaks off is continued on another endpoint of the group (`generation.py`), and the customer sees one
unbroken stream. When no primary endpoint can be called, the fallback group answers. A `Switched` reports both; a retry
before the first token is not reported. A `NotResumable` reports that no endpoint could continue the answer.

An entry may name its endpoints by DNS (`discovery.py`): they come and go while the process runs. Whether they are there
and what they can do is asked in the background (`health.py`).
"""

import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import anyio
import structlog

from chatbot.chat import Chat, Message
from chatbot.errors import TooLarge
from chatbot.events import Usage
from chatbot.models.call import CallHook, Calls, ModelCall
from chatbot.models.choice_probabilities import Choices, choice_probabilities
from chatbot.models.detection import rendered_ids, text_of
from chatbot.models.discovery import Discovery, FollowedName
from chatbot.models.endpoint import Endpoint, GenerationEnd, GenerationRequest, PromptIds
from chatbot.models.failover import Attempts
from chatbot.models.generation import Begun, Delta, Generation
from chatbot.models.health import HealthChecks
from chatbot.models.pool import (
    Group,
    Member,
    ModelSettings,
    ModelsFileEntry,
    ModelsMisconfigured,
    Pool,
)
from chatbot.models.wire import Sampling, Thought
from chatbot.tokens import SpecialTokens, TokenCounter, UnknownTokenizer, read_tokenizer
from knowledge.breaker import Breaker, BreakerState
from knowledge.model_connection import EndpointFailed, RequestRejected, open_session
from telemetry.groups import first_failure
from telemetry.supervision import OnFailure, supervise, uncounted

log = structlog.get_logger(__name__)

UNKNOWN_MODEL = "unknown"
# vLLM serves lower numbers first; those of customers and roles are below this.
_SHADOW_PRIORITY = 1000
_COUNT_SECONDS = 0.5
"""How long the server's count of a prompt is waited for; then it is estimated."""
_DECODE_SECONDS = 1.0
_JITTER = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Switched:
    """Another endpoint generates from here on: one of the same model, or the smaller model when `group` is fallback."""

    endpoint: str
    group: Group = "primary"


@dataclass(frozen=True, slots=True)
class NotResumable:
    """No endpoint could continue the answer if this one breaks off."""


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
    unpaid_tokens: int = field(default=0, compare=False)
    """Tokens that were generated and are not charged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """An endpoint's entry in the MODELS_FILE (`name`), its model, its breaker, and whether the bank has stopped it."""

    name: str
    group: Group
    model: str
    endpoint: str
    breaker: BreakerState
    stopped: bool
    lacks: tuple[str, ...]
    """What its server cannot do; docs/operations.md has the consequence of each."""


class ForgedTokens(RequestRejected):
    """The rendered prompt has more special tokens than its template: a text of it became one."""


class Models:
    """The pool of endpoints, with what counts their tokens."""

    def __init__(
        self,
        pool: Pool,
        *,
        counter: TokenCounter | None = None,
        discovery: Discovery | None = None,
        hooks: Sequence[CallHook] = (),
        clock: Callable[[], float] = time.monotonic,
        on_failure: OnFailure = uncounted,
    ) -> None:
        """`discovery` finds endpoints beside those that the pool has."""
        discovery = discovery or Discovery()
        self.counter = counter or TokenCounter()
        self.pool = pool
        self._followed = discovery.names
        self._calls = Calls(pool, self.counter, hooks=hooks, clock=clock)
        self.health = HealthChecks(pool, self._calls, discovery=discovery, on_failure=on_failure)

    @property
    def model(self) -> str:
        """The primary model's name; `UNKNOWN_MODEL` until an endpoint without a configured name has reported one."""
        primaries = [member for member in self.pool.members if member.group == "primary"]
        # One that was not checked may serve another model, as in a rollout.
        reported = (m.endpoint.model for m in sorted(primaries, key=lambda member: not member.checked))
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
        return any(member.able.thinks for member in self.pool.serving)

    @property
    def lacks(self) -> tuple[str, ...]:
        """What any server whose answers customers see cannot do."""
        return tuple(
            dict.fromkeys(lack for member in self.pool.serving if member.checked for lack in member.able.lacks)
        )

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
                lacks=member.able.lacks if member.checked else (),
            )
            for member in self.pool.members
        )

    async def counted(self, chat: Chat, *, conversation_id: str) -> Chat:
        """Return the chat with its count by a server that may answer it; the estimate stays where none can be asked."""
        target = self.pool.pick(
            conversation_id, group="primary", avoid=[m for m in self.pool.members if not m.able.tokenize]
        )
        if target is None:
            return chat
        target.member.breaker.abandon(target.permit)
        try:
            ids = await rendered_ids(target.member.endpoint, chat.messages, seconds=_COUNT_SECONDS)
        except EndpointFailed as exc:
            log.warning("token_count_failed", error=str(exc))
            return chat
        return replace(chat, tokens=len(ids))

    async def stream(  # noqa: PLR0915  one answer, endpoint after endpoint
        self,
        chat: Chat,
        *,
        sampling: Sampling,
        conversation_id: str,
        cache_salt: str,
        priority: int = 0,
        begun: Begun | None = None,
    ) -> AsyncGenerator[Delta | Thought | Switched | NotResumable | ModelDone]:
        """Generate an answer, or what follows its part `begun`; closing the generator closes the socket.

        An answer whose thinking uses up its tokens ends with the reason "length".

        Raises:
            TooLarge: prompt and answer do not fit into the model's context.
            Overloaded: every endpoint's queue is full.
            ModelUnavailable: no endpoint can answer, or none finished in time.
        """
        answer = self._generation(chat, sampling, begun)
        unable = self._unable(chat, answer.most_tokens)
        attempts = Attempts(self.pool, conversation_id, resumed=answer.begun, small=unable)
        await self._drop_cut_character(answer)
        while not answer.spent:
            cannot_continue = [m for m in self.pool.members if not answer.can_continue_on(m.able)]
            target, reported = attempts.next_target([*self._unable(chat, answer.tokens + 1), *cannot_continue])
            member = target.member
            ids, text, left = answer.continue_on(member.able)
            left = _within(member, chat.tokens + answer.tokens, left)
            request = self._request(chat, left, cache_salt, priority, until=attempts.deadline())
            request = replace(request, ids=ids, begun_text=text)
            extra = attempts.extra_prompt_tokens(request)
            try:
                with self._calls.counted(target, "answer", request, extra_prompt_tokens=extra) as call:
                    if reported:
                        yield Switched(member.endpoint.name, member.group)
                    await self._calls.check(member)
                    if not (member.able.token_ids or member.able.continues_text):
                        yield NotResumable()
                    async for part in self._generated(member, request, answer, call):
                        attempts.models[member.endpoint.model] = None
                        yield part
                    call.outcome = "ok"
                    attempts.models[member.endpoint.model] = None
                    break
            except EndpointFailed as exc:
                attempts.record_failure(target, exc, begun=answer.begun)
                answer.resume()
                await self._drop_cut_character(answer)
        usage = answer.usage()
        if answer.thinks:
            log.warning("thinking_not_closed", models=tuple(attempts.models))
        yield ModelDone(answer.finish_reason, usage, tuple(attempts.models), attempts.retried, answer.unpaid_tokens)

    async def _generated(
        self, member: Member, request: GenerationRequest, answer: Generation, call: ModelCall
    ) -> AsyncGenerator[Delta | Thought]:
        """Generate on one endpoint until it, or the answer, is over."""
        async with aclosing(member.endpoint.stream(request)) as pieces:
            async for piece in pieces:
                if not (call.has_begun or isinstance(piece, GenerationEnd | PromptIds)):
                    call.begin()
                if isinstance(piece, PromptIds):
                    await self._check_special_tokens(member, request.chat, piece)
                for part in answer.feed(piece):
                    if isinstance(part, Thought) and not member.able.thinks:
                        member.endpoint.capabilities = replace(member.able, thinks=True)
                    yield part
                call.tokens = answer.received
                if answer.over:
                    return

    async def _check_special_tokens(self, member: Member, chat: Chat, prompt: PromptIds) -> None:
        """Compare the special tokens of a rendered prompt with those that its template gives to such messages.

        Raises:
            ForgedTokens: it has more of them.
            EndpointFailed: the template's cannot be asked for.
        """
        special, (template, exchange) = member.able.special_ids, member.able.template_specials
        found = sum(token in special for token in prompt.ids)
        if found <= template + exchange * sum(message.role == "assistant" for message in chat.messages):
            return
        plain = [Message(message.role, "x") for message in chat.messages]
        ids = await rendered_ids(member.endpoint, plain, seconds=_DECODE_SECONDS)
        if found > sum(token in special for token in ids):
            log.error("special_tokens_forged", endpoint=member.endpoint.name, found=found)
            raise ForgedTokens(f"{member.endpoint.name}: a text of the prompt became a special token")

    async def _drop_cut_character(self, answer: Generation) -> None:
        """Drop the last ids of a broken-off answer whose text did not come, by any server of its vocabulary."""
        same = [m for m in self.pool.members if answer.ids and m.available and answer.can_continue_on(m.able)]
        while same:
            try:
                text = await text_of(same[0].endpoint, answer.ids, seconds=_DECODE_SECONDS)
            except EndpointFailed:
                same.pop(0)
            else:
                if answer.drop_cut_character(text):
                    return

    async def choice_probabilities(
        self,
        chat: Chat,
        choices: Choices,
        *,
        conversation_id: str,
        cache_salt: str,
        priority: int = 0,
        least_mass: float = 0.0,
    ) -> tuple[float, ...]:
        """Return the probability of each choice given that one of them comes next.

        They are equal where none is among the most likely tokens, or all have less probability than `least_mass`, or
        where an endpoint refuses such a question.

        Raises:
            TooLarge, Overloaded, ModelUnavailable: as `stream`.
        """
        sampling = self._fitting(chat, Sampling(max_tokens=1))
        attempts = Attempts(self.pool, conversation_id)
        while True:
            target, _ = attempts.next_target(self._unable(chat, 1))
            request = self._request(chat, sampling, cache_salt, priority, until=attempts.deadline())
            extra = attempts.extra_prompt_tokens(request)
            if target.member.checked and not target.member.able.probes:
                target.member.breaker.abandon(target.permit)
                return (1 / len(choices),) * len(choices)
            try:
                top_tokens = await self._calls.top_tokens(target, "probability", request, extra_prompt_tokens=extra)
            except EndpointFailed as exc:
                attempts.record_failure(target, exc, begun=False)
            else:
                return choice_probabilities(top_tokens.logprobs, choices, least_mass=least_mass)

    async def shadow_answer(
        self, chat: Chat, *, sampling: Sampling, conversation_id: str, cache_salt: str
    ) -> str | None:
        """Return the shadow's answer to a prompt, with the lowest priority; None where the shadow cannot be called.

        Raises:
            EndpointFailed: it did not finish.
            TooLarge: as `stream`.
        """
        target = self.pool.pick(conversation_id, group="shadow", avoid=self._unable(chat, 1))
        if target is None:
            return None
        answer = self._generation(chat, sampling)
        until = anyio.current_time() + target.member.endpoint.deadlines.answer
        _, _, left = answer.continue_on(target.member.able)
        request = self._request(chat, left, cache_salt, _SHADOW_PRIORITY, until=until)
        with self._calls.counted(target, "answer", request) as call:
            await self._calls.check(target.member)
            async for _ in self._generated(target.member, request, answer, call):
                pass
            call.outcome = "ok"
        return answer.text

    def _generation(self, chat: Chat, sampling: Sampling, begun: Begun | None = None) -> Generation:
        whole = replace(sampling, max_tokens=sampling.max_tokens + sampling.thinking_tokens)
        most_tokens = self._fitting(chat, whole).max_tokens
        return Generation(chat, sampling, most_tokens=most_tokens, count=self.counter.count, begun=begun)

    def _fitting(self, chat: Chat, sampling: Sampling) -> Sampling:
        """Return the sampling with no more answer tokens than the model's context has room for."""
        if self.context_tokens is None:
            return sampling
        room = self.context_tokens - chat.tokens
        if room < 1:
            raise TooLarge(f"The question and its documents take {chat.tokens} of {self.context_tokens} tokens")
        return sampling if sampling.max_tokens <= room else replace(sampling, max_tokens=room)

    def _unable(self, chat: Chat, most_tokens: int) -> list[Member]:
        """Return the members whose context is too small.

        A primary's must hold so many tokens of an answer, which may move between them; any other's begins an answer.
        """
        return [
            m
            for m in self.pool.members
            if m.context_tokens is not None
            and m.context_tokens < chat.tokens + (most_tokens if m.group == "primary" else 1)
        ]

    def _request(
        self, chat: Chat, sampling: Sampling, cache_salt: str, priority: int, *, until: float
    ) -> GenerationRequest:
        return GenerationRequest(chat=chat, sampling=sampling, cache_salt=cache_salt, priority=priority, until=until)


def _within(member: Member, tokens: int, sampling: Sampling) -> Sampling:
    """Return the sampling with no more answer tokens than the member's context has room for, behind so many."""
    if member.context_tokens is None:
        return sampling
    return replace(sampling, max_tokens=min(max(1, member.context_tokens - tokens), sampling.max_tokens))


def _read_tokenizer(entry: ModelsFileEntry) -> tuple[Callable[[str], int] | None, SpecialTokens]:
    """Return what counts an entry's tokens, and its special tokens, as far as its tokenizer is at hand (blocking).

    Raises:
        ModelsMisconfigured: the tokenizer cannot be read.
    """
    if entry.tokenizer is None:
        return None, SpecialTokens()
    try:
        count, added = read_tokenizer(entry.tokenizer)
    except UnknownTokenizer as exc:
        raise ModelsMisconfigured(f"LLM_TOKENIZER (or `tokenizer` in MODELS_FILE): {exc}") from exc
    return count, SpecialTokens(added)


@asynccontextmanager
async def open_models(
    settings: ModelSettings,
    *,
    on_call: CallHook | None = None,
    on_failure: OnFailure = uncounted,
    discovery: Discovery | None = None,
) -> AsyncGenerator[Models]:
    """Open the endpoints that the settings name, detect their capabilities, and probe those that are away.

    `discovery` says how names are resolved; the settings say which.

    Raises:
        ModelsMisconfigured: the message says what to set.
    """
    file = await anyio.to_thread.run_sync(settings.read)
    tokenizers = {entry.name: await anyio.to_thread.run_sync(_read_tokenizer, entry) for entry in file.root}
    counter = TokenCounter(exact=tokenizers[file.primary.name][0])
    # No key of LLM_URLS goes to other houses.
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key and settings.models_file is None else None
    access = {entry.name: await anyio.to_thread.run_sync(entry.access, key) for entry in file.root}
    deadlines = {entry.name: await anyio.to_thread.run_sync(entry.read_deadlines) for entry in file.root}
    async with open_session() as http:

        def member_of(entry: ModelsFileEntry, url: str, address: str | None = None) -> Member:
            endpoint = Endpoint(
                http,
                url,
                deadlines[entry.name],
                model=entry.model,
                access=replace(access[entry.name], address=address),
                template_kwargs=entry.chat_template_kwargs,
            )
            endpoint.count_thinking = counter.count
            endpoint.capabilities = replace(endpoint.capabilities, special=tokenizers[entry.name][1])
            breaker = Breaker(settings.breaker, jitter=partial(_JITTER.uniform, 0.8, 1.0))
            return Member(endpoint, entry.group, breaker, entry=entry.name)

        names = tuple(
            FollowedName(
                host=url.host or "",
                entry=entry.name,
                group=entry.group,
                model=entry.model,
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
        models = Models(pool, counter=counter, discovery=discovery, hooks=hooks, on_failure=on_failure)
        await models.health.check()
        with first_failure():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervise, "probes", models.health.probe_forever, on_failure)
                tasks.start_soon(supervise, "endpoints", models.health.follow_forever, on_failure)
                try:
                    yield models
                finally:
                    tasks.cancel_scope.cancel()
