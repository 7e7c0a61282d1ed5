"""The models that answer: a call is retried once before its first token and continued on another endpoint after it.

An answer that breaks off is continued on another endpoint of the group (`generation.py`), and the customer sees one
unbroken stream. When no primary endpoint can be called, the fallback group answers. A `Switched` reports both; a retry
before the first token is not reported. A `NotResumable` reports that no endpoint could continue the answer.
"""

import random
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import aiohttp
import anyio
import structlog

from chatbot.chat import Chat, Message
from chatbot.errors import TooLarge
from chatbot.events import Usage
from chatbot.models.call import Attempts, CallHook, Calls, ModelCall
from chatbot.models.choice_probabilities import Choices, choice_probabilities
from chatbot.models.detection import rendered_ids, text_of
from chatbot.models.endpoint import Endpoint, GenerationRequest
from chatbot.models.generation import Delta, Generation, PartialAnswer
from chatbot.models.health import Discovery, FollowedName, HealthChecks
from chatbot.models.pool import Member, Pool
from chatbot.models.settings import Group, ModelSettings, ModelsFileEntry, ModelsMisconfigured
from chatbot.models.wire import Sampling, StreamDecoder, Thought
from chatbot.tokens import FAMILY_TOKENS, SpecialTokens, TokenCounter, UnknownTokenizer, read_tokenizer
from knowledge.breaker import Breaker
from knowledge.model_connection import EndpointFailed, RequestRejected, open_session
from knowledge.profiles import read_deadlines
from telemetry.groups import first_failure
from telemetry.supervision import OnFailure, supervise, uncounted

log = structlog.get_logger(__name__)

UNKNOWN_MODEL = "unknown"
# vLLM serves lower numbers first; those of customers and roles are below this.
_SHADOW_PRIORITY = 1000
_COUNT_SECONDS = 0.5
"""How long the server's count of a prompt is waited for; then it is estimated."""
_DECODE_SECONDS = 1.0
_ANY_CONTEXT = 2**31
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
        self._followed = [name.entry for name in discovery.names]
        self._calls = Calls(pool, self.counter, hooks=hooks, clock=clock)
        self.health = HealthChecks(pool, self._calls, discovery=discovery, on_failure=on_failure)

    @property
    def model(self) -> str:
        """The primary model's name; `UNKNOWN_MODEL` until an endpoint without a configured name has reported one."""
        primaries = [member for member in self.pool.members if member.group == "primary"]
        # One that was not checked may serve another model, as in a rollout.
        reported = (m.endpoint.model for m in sorted(primaries, key=lambda member: not member.checked))
        configured = (entry.model for entry in self._followed if entry.group == "primary")
        return next(filter(None, (*reported, *configured)), UNKNOWN_MODEL)

    @property
    def context_tokens(self) -> int | None:
        """The largest context that a primary reports: prompt and answer."""
        return max((m.able.context_tokens or 0 for m in self.pool.members if m.group == "primary"), default=0) or None

    @property
    def think(self) -> bool:
        """Whether a model whose answers customers see may think before it answers."""
        return any(member.able.thinks for member in self.pool.serving)

    @property
    def lacks(self) -> tuple[str, ...]:
        """What any server whose answers customers see cannot do."""
        return tuple(dict.fromkeys(lack for m in self.pool.serving if m.checked for lack in m.able.lacks))

    @property
    def names(self) -> frozenset[str]:
        """The names of the MODELS_FILE's entries, by which they can be stopped."""
        return frozenset([*(m.entry for m in self.pool.members), *(entry.name for entry in self._followed)])

    async def counted(self, chat: Chat, *, conversation_id: str) -> Chat:
        """Return the chat with its count by a server that may answer it; the estimate stays where none can be asked."""
        unable = [m for m in self.pool.members if not m.able.tokenize]
        member = self.pool.pick(conversation_id, group="primary", avoid=unable)
        if member is None:
            return chat
        try:
            ids = await rendered_ids(member.endpoint, chat.messages, seconds=_COUNT_SECONDS)
        except EndpointFailed as exc:
            log.warning("token_count_failed", error=str(exc))
            return chat
        return replace(chat, tokens=len(ids))

    async def stream(  # noqa: PLR0913, PLR0915  one answer, endpoint after endpoint
        self,
        chat: Chat,
        *,
        sampling: Sampling,
        conversation_id: str,
        cache_salt: str,
        priority: int = 0,
        partial_answer: PartialAnswer | None = None,
        groups: Sequence[Group] = (),
    ) -> AsyncGenerator[Delta | Thought | Switched | NotResumable | ModelDone]:
        """Generate an answer, or continue `partial_answer`; closing the generator closes the socket.

        An answer whose thinking uses up its tokens ends with the reason "length". `groups` answer in place of those of
        the conversation.

        Raises:
            TooLarge: prompt and answer do not fit into the model's context.
            Overloaded: every endpoint's queue is full.
            ModelUnavailable: no endpoint can answer, or none finished in time.
        """
        most_tokens = min(sampling.max_tokens + sampling.thinking_tokens, self._room(chat))
        answer = Generation(
            chat, sampling, most_tokens=most_tokens, count=self.counter.count, partial_answer=partial_answer
        )
        attempts = Attempts(self.pool, conversation_id, groups=groups, resumed=answer.started)
        await self._drop_cut_character(answer)
        while not answer.spent:
            so_far = chat.tokens + answer.tokens
            member, reported = attempts.next_member(
                [m for m in self.pool.members if not (answer.can_continue_on(m.able) and m.holds(so_far + 1))]
            )
            ids, prefix, left = answer.continue_on(member.able)
            room = max(1, (member.able.context_tokens or _ANY_CONTEXT) - so_far)
            request = GenerationRequest(
                chat=chat,
                sampling=replace(left, max_tokens=min(room, left.max_tokens)),
                cache_salt=cache_salt,
                priority=priority,
                until=attempts.deadline(),
                ids=ids,
                prefix=prefix,
            )
            extra = attempts.extra_prompt_tokens(request)
            try:
                with self._calls.counted(member, "answer", request, extra_prompt_tokens=extra) as call:
                    await self._calls.check(member)
                    notices: list[Switched | NotResumable] = []
                    if reported:
                        notices.append(Switched(member.endpoint.name, member.group))
                    if not (member.able.token_ids or member.able.continues_text):
                        notices.append(NotResumable())
                    async for part in self._generated(member, request, answer, call):
                        attempts.models[member.endpoint.model] = None
                        while notices:  # not before: the endpoint may generate nothing
                            yield notices.pop(0)
                        yield part
                    call.outcome = "ok"
                    attempts.models[member.endpoint.model] = None
                    break
            except EndpointFailed as exc:
                attempts.record_failure(member, exc, mid_answer=answer.started)
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
        reply = StreamDecoder()
        async with aclosing(member.endpoint.stream(request, reply)) as pieces:
            async for piece in pieces:
                if reply.prompt_ids and not answer.prompt_ids:
                    await self._check_special_tokens(member, request.chat, reply.prompt_ids)
                    answer.prompt_ids = reply.prompt_ids
                call.begin()
                for part in answer.feed(piece):
                    if isinstance(part, Thought) and not member.able.thinks:
                        member.endpoint.capabilities = replace(member.able, thinks=True)
                    yield part
                call.answer_tokens = answer.received
                if answer.over:
                    return
        for part in answer.finish(reply):
            yield part

    async def _check_special_tokens(self, member: Member, chat: Chat, prompt_ids: Sequence[int]) -> None:
        """Raise ForgedTokens where a prompt has more special tokens than its template gives to such messages."""
        special, (template, exchange) = member.able.special_ids, member.able.template_specials
        found = sum(token in special for token in prompt_ids)
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
        self._room(chat)
        attempts = Attempts(self.pool, conversation_id)
        while True:
            member, _ = attempts.next_member([m for m in self.pool.members if not m.holds(chat.tokens + 1)])
            request = GenerationRequest(
                chat=chat,
                sampling=Sampling(max_tokens=1),
                cache_salt=cache_salt,
                priority=priority,
                until=attempts.deadline(),
            )
            extra = attempts.extra_prompt_tokens(request)
            if member.checked and member.able.top_logprobs is None:
                return (1 / len(choices),) * len(choices)
            try:
                with self._calls.counted(member, "probability", request, extra_prompt_tokens=extra) as call:
                    await self._calls.check(member)
                    top_tokens = await member.endpoint.top_tokens(request)
                    call.begin()
                    call.answer_tokens = 1
                    call.outcome = "ok"
            except EndpointFailed as exc:
                attempts.record_failure(member, exc, mid_answer=False)
            else:
                return choice_probabilities(top_tokens.logprobs, choices, least_mass=least_mass)

    async def shadow_answer(
        self, chat: Chat, *, sampling: Sampling, conversation_id: str, cache_salt: str
    ) -> str | None:
        """Return the shadow's answer to a prompt, with the lowest priority; None where the shadow cannot be called.

        Raises:
            TooLarge, Overloaded, ModelUnavailable: as `stream`.
        """
        if self.pool.pick(conversation_id, group="shadow") is None:
            return None
        stream = self.stream(
            chat,
            sampling=sampling,
            conversation_id=conversation_id,
            cache_salt=cache_salt,
            priority=_SHADOW_PRIORITY,
            groups=("shadow",),
        )
        async with aclosing(stream) as parts:
            return "".join([part.text async for part in parts if isinstance(part, Delta)])

    def _room(self, chat: Chat) -> int:
        """Return how many tokens of an answer the model's context has room for; raise TooLarge where it has none."""
        context = self.context_tokens or _ANY_CONTEXT
        if context <= chat.tokens:
            raise TooLarge(f"The question and its documents take {chat.tokens} of {context} tokens")
        return context - chat.tokens


def _read_entry(
    entry: ModelsFileEntry, http: aiohttp.ClientSession, settings: ModelSettings, counter: TokenCounter
) -> Callable[..., Member]:
    """Return what makes an endpoint of an entry at a URL (and one address of it); blocking.

    Raises:
        ModelsMisconfigured: its key, TLS files or tokenizer cannot be read.
    """
    # No key of LLM_URLS goes to other houses.
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key and settings.models_file is None else None
    access, deadlines, special = entry.access(key), read_deadlines(entry.profile), FAMILY_TOKENS
    if entry.tokenizer is not None:
        try:
            count, added = read_tokenizer(entry.tokenizer)
        except UnknownTokenizer as exc:
            raise ModelsMisconfigured(f"LLM_TOKENIZER (or `tokenizer` in MODELS_FILE): {exc}") from exc
        special = SpecialTokens(added)
        if entry.group == "primary":
            counter.exact = count

    def member_at(url: str, address: str | None = None) -> Member:
        reached, template = replace(access, address=address), entry.chat_template_kwargs
        endpoint = Endpoint(http, url, deadlines, model=entry.model, access=reached, template_kwargs=template)
        endpoint.count_thinking = counter.count
        endpoint.capabilities = replace(endpoint.capabilities, special=special)
        breaker = Breaker(settings.breaker, jitter=partial(_JITTER.uniform, 0.8, 1.0))
        return Member(endpoint, entry.group, breaker, entry=entry.name)

    return member_at


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
    discovery, counter, members, names = discovery or Discovery(), TokenCounter(), list[Member](), list[FollowedName]()
    async with open_session() as http:
        for entry in file.root:
            member_at = await anyio.to_thread.run_sync(_read_entry, entry, http, settings, counter)
            if entry.follow_dns:
                names += [FollowedName(url.host or "", entry, partial(member_at, str(url))) for url in entry.urls]
            else:
                members += [member_at(str(url)) for url in entry.urls]
        for name in names:
            members += (await name.update(discovery.resolve))[0]
        models = Models(
            Pool(members, shares=file.shares, prefill=read_deadlines(file.primary.profile).prefill),
            counter=counter,
            discovery=replace(discovery, names=tuple(names)),
            hooks=[on_call] if on_call else [],
            on_failure=on_failure,
        )
        await models.health.check()
        with first_failure():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervise, "probes", models.health.probe_forever, on_failure)
                tasks.start_soon(supervise, "endpoints", models.health.follow_forever, on_failure)
                try:
                    yield models
                finally:
                    tasks.cancel_scope.cancel()
