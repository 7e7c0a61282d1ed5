"""The models client: it retries a call once before the first token, and continues it on another endpoint afterwards.

If an answer breaks off, another endpoint of the group continues it (`generation.py`), and the customer sees one
unbroken stream. If no primary can be called, the fallback group answers. `Switched` reports both cases; a retry before
the first token is not reported. `NotResumable` reports that no endpoint could continue the answer.
"""

import random
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
from chatbot.models.choice_probabilities import Choices, choice_probabilities
from chatbot.models.detection import rendered_ids, text_of
from chatbot.models.endpoint import Endpoint, GenerationRequest
from chatbot.models.failover import Attempts
from chatbot.models.generation import Delta, Generation, PartialAnswer, Thought
from chatbot.models.health import FollowedName, HealthChecks, Resolve, addresses_of
from chatbot.models.pool import CallHook, Member, Pool
from chatbot.models.settings import Group, ModelSettings, ModelsFileEntry, ModelsMisconfigured
from chatbot.models.wire import UNKNOWN_CONTEXT, Sampling, StreamDecoder
from chatbot.tokens import FAMILY_TOKENS, SpecialTokens, TokenCounter, UnknownTokenizer, read_tokenizer
from knowledge.breaker import Breaker
from knowledge.model_connection import EndpointFailed, RequestRejected, open_session
from knowledge.profiles import read_deadlines
from telemetry.groups import first_failure
from telemetry.supervision import OnFailure, supervise, uncounted

log = structlog.get_logger(__name__)

UNKNOWN_MODEL = "unknown"
_COUNT_SECONDS = 0.5
"""The deadline of counting a prompt on the server; the estimate applies afterwards."""
_DECODE_SECONDS = 1.0
_JITTER = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Switched:
    """Another endpoint generates the rest: of the same model, or of the smaller model if `group` is fallback."""

    endpoint: str
    group: Group = "primary"


@dataclass(frozen=True, slots=True)
class NotResumable:
    """No endpoint could continue the answer if the current one breaks off."""


@dataclass(frozen=True, slots=True)
class ModelDone:
    """The answer is complete.

    `usage` counts the prompt once, even if several endpoints read it, and all tokens of the answer and its thinking.
    `models` are the models that generated parts of it; `retried`: an endpoint failed on the way.
    """

    finish_reason: Literal["stop", "length"]
    usage: Usage
    models: tuple[str, ...] = field(default=(), compare=False)
    retried: bool = field(default=False, compare=False)
    unpaid_tokens: int = field(default=0, compare=False)
    """Generated tokens that are not charged."""


class Models:
    """The pool of endpoints and its token counter; `entries` are those of the MODELS_FILE."""

    def __init__(
        self, pool: Pool, *, entries: Sequence[ModelsFileEntry] = (), on_failure: OnFailure = uncounted
    ) -> None:
        self.pool = pool
        self.counter = pool.counter
        self._entries = entries
        self.health = HealthChecks(pool, on_failure=on_failure)

    @property
    def model(self) -> str:
        """The primary model's name; `UNKNOWN_MODEL` until an endpoint without a configured name has reported one."""
        # An unchecked endpoint may serve another model during a rollout.
        primaries = sorted(self.pool.of_group("primary"), key=lambda member: not member.checked)
        configured = [entry.model for entry in self._entries if entry.group == "primary"]
        return next(filter(None, [*(m.endpoint.model for m in primaries), *configured]), UNKNOWN_MODEL)

    @property
    def context_tokens(self) -> int:
        """The largest context (prompt and answer) of a primary."""
        contexts = (member.able.context_tokens for member in self.pool.of_group("primary") if member.checked)
        return max(contexts, default=UNKNOWN_CONTEXT)

    @property
    def think(self) -> bool:
        """Whether any serving model may think before it answers."""
        return any(member.able.thinks for member in self.pool.serving)

    @property
    def lacks(self) -> tuple[str, ...]:
        """The capabilities that at least one serving endpoint lacks."""
        return tuple(dict.fromkeys(lack for m in self.pool.serving if m.checked for lack in m.able.lacks))

    @property
    def names(self) -> frozenset[str]:
        """The names of the MODELS_FILE's entries, as `chatbot stop --model` takes them."""
        return frozenset(entry.name for entry in self._entries)

    async def counted(self, chat: Chat, *, conversation_id: str) -> Chat:
        """Return the chat with a token count from one of its servers, or with the estimate if none is available."""
        able = [m for m in self.pool.of_group("primary") if m.able.tokenize]
        member = self.pool.pick(conversation_id, able)
        if member is None:
            return chat
        try:
            ids = await rendered_ids(member.endpoint, chat.messages, seconds=_COUNT_SECONDS)
        except EndpointFailed as exc:
            log.warning("token_count_failed", error=str(exc))
            return chat
        return replace(chat, tokens=len(ids))

    async def stream(
        self,
        chat: Chat,
        *,
        sampling: Sampling,
        conversation_id: str,
        cache_salt: str,
        priority: int = 0,
        partial_answer: PartialAnswer | None = None,
    ) -> AsyncGenerator[Delta | Thought | Switched | NotResumable | ModelDone]:
        """Generate an answer, or continue `partial_answer`; closing the generator closes the socket.

        An answer whose thinking uses up its tokens ends with the reason "length".

        Raises:
            TooLarge: prompt and answer do not fit into the model's context.
            Overloaded: the endpoints' queues are full.
            ModelUnavailable: no endpoint can answer, or none finished in time.
        """
        most_tokens = min(sampling.max_tokens + sampling.thinking_tokens, self._room(chat))
        answer = Generation(
            chat, sampling, most_tokens=most_tokens, count=self.counter.count, partial_answer=partial_answer
        )
        request = GenerationRequest(chat=chat, sampling=sampling, cache_salt=cache_salt, priority=priority)
        attempts, resumed = Attempts(self.pool, conversation_id), answer.started
        while not answer.spent:
            so_far = chat.tokens + answer.tokens
            able = [m for m in self.pool.members if answer.can_continue_on(m.able) and m.able.context_tokens > so_far]
            member, reported = attempts.next_member(able)
            notices: list[Switched | NotResumable] = []
            if reported:
                notices.append(Switched(member.endpoint.name, member.group))
            if not (member.able.token_ids or member.able.continues_text):
                notices.append(NotResumable())
            due, repeated = replace(request, until=attempts.deadline), resumed or bool(attempts.failures)
            try:
                async with aclosing(self._generate(member, due, answer, repeated=repeated)) as parts:
                    async for part in parts:
                        while notices:  # only with the first part: the endpoint may generate nothing
                            yield notices.pop(0)
                        yield part
                break
            except EndpointFailed as exc:
                attempts.record_failure(member, exc, mid_answer=answer.started)
                answer.record_failure()
        usage, models = answer.usage(), tuple(answer.models)
        if answer.thinks:
            log.warning("thinking_end_missing", models=models)
        yield ModelDone(answer.finish_reason, usage, models, bool(attempts.failures), answer.unpaid_tokens)

    async def _generate(
        self, member: Member, request: GenerationRequest, answer: Generation, *, repeated: bool
    ) -> AsyncGenerator[Delta | Thought]:
        """Generate on one endpoint until its stream or the answer ends."""
        endpoint, reply = member.endpoint, StreamDecoder()
        await self._drop_cut_character(endpoint, answer)
        request = answer.continue_on(member.able, request)
        with self.pool.call(member, "answer", request, repeated=repeated) as call:
            await self.pool.check(member)
            async with aclosing(endpoint.stream(request, reply)) as pieces:
                async for piece in pieces:
                    if reply.prompt_ids and not answer.prompt_ids:
                        await self._check_special_tokens(member, request.chat, reply.prompt_ids)
                        answer.prompt_ids = reply.prompt_ids
                    call.begin()
                    answer.models[endpoint.model] = None
                    for part in answer.feed(piece):
                        if isinstance(part, Thought) and not member.able.thinks:
                            endpoint.learn(thinks=True)
                        yield part
                    call.answer_tokens = answer.received
                    if answer.over:
                        break
                else:
                    for part in answer.finish(reply):
                        yield part
            call.outcome = "ok"
            answer.models[endpoint.model] = None

    async def _drop_cut_character(self, endpoint: Endpoint, answer: Generation) -> None:
        """Drop the last token ids of a broken-off answer that end within a character."""
        is_cut = endpoint.capabilities.tokenize
        while answer.ids and is_cut:
            is_cut = answer.drop_cut_character(await text_of(endpoint, answer.ids, seconds=_DECODE_SECONDS))

    async def _check_special_tokens(self, member: Member, chat: Chat, prompt_ids: Sequence[int]) -> None:
        """Raise RequestRejected if a prompt has more special tokens than its template adds to such messages."""
        special, (template, exchange) = member.able.special_ids, member.able.template_specials
        special_tokens = sum(token in special for token in prompt_ids)
        if special_tokens <= template + exchange * sum(message.role == "assistant" for message in chat.messages):
            return
        plain = [Message(message.role, "x") for message in chat.messages]
        ids = await rendered_ids(member.endpoint, plain, seconds=_DECODE_SECONDS)
        if special_tokens > sum(token in special for token in ids):
            log.error("special_tokens_forged", endpoint=member.endpoint.name, found=special_tokens)
            raise RequestRejected(f"{member.endpoint.name}: a text of the prompt became a special token")

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
        """Return the probability of each choice given that one of them is next.

        The probabilities are equal if no choice is among the most likely tokens, if their total is below `least_mass`,
        or if the endpoint rejects questions for one token.

        Raises:
            TooLarge, Overloaded, ModelUnavailable: as `stream`.
        """
        self._room(chat)
        attempts = Attempts(self.pool, conversation_id)
        request = GenerationRequest(
            chat=chat, sampling=Sampling(max_tokens=1), cache_salt=cache_salt, priority=priority
        )
        while True:
            able = [m for m in self.pool.members if m.able.context_tokens > chat.tokens]
            member, _ = attempts.next_member(able)
            if member.able.top_logprobs is None:
                return (1 / len(choices),) * len(choices)
            request = replace(request, until=attempts.deadline)
            try:
                with self.pool.call(member, "probability", request, repeated=bool(attempts.failures)) as call:
                    await self.pool.check(member)
                    top_tokens = await member.endpoint.top_tokens(request)
                    call.begin()
                    call.answer_tokens = 1
                    call.outcome = "ok"
            except EndpointFailed as exc:
                attempts.record_failure(member, exc, mid_answer=False)
            else:
                return choice_probabilities(top_tokens.logprobs, choices, least_mass=least_mass)

    def _room(self, chat: Chat) -> int:
        """Return how many tokens of an answer fit into the model's context; raise TooLarge if none."""
        room = self.context_tokens - chat.tokens
        if room <= 0:
            raise TooLarge(f"The question and its documents take {chat.tokens} of {self.context_tokens} tokens")
        return room


def _read_entry(
    entry: ModelsFileEntry, http: aiohttp.ClientSession, settings: ModelSettings, counter: TokenCounter
) -> Callable[..., Member]:
    """Return the factory of an entry's endpoints; it takes a URL and optionally one of its addresses (blocking).

    Raises:
        ModelsMisconfigured: the entry's key, TLS files or tokenizer cannot be read.
    """
    # Never send LLM_API_KEY to the providers of a MODELS_FILE.
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
        endpoint.capabilities = replace(endpoint.capabilities, special=special)
        breaker = Breaker(settings.breaker, jitter=partial(_JITTER.uniform, 0.8, 1.0))
        return Member(endpoint, entry.group, breaker, entry.name)

    return member_at


@asynccontextmanager
async def open_models(
    settings: ModelSettings,
    *,
    on_call: CallHook | None = None,
    on_failure: OnFailure = uncounted,
    resolve: Resolve = addresses_of,
    resolve_every: float = 5.0,
) -> AsyncGenerator[Models]:
    """Open the configured endpoints, detect their capabilities, and probe unavailable endpoints in the background.

    Raises:
        ModelsMisconfigured: the message says what to set.
    """
    file = await anyio.to_thread.run_sync(settings.read)
    counter, members, names = TokenCounter(), list[Member](), list[FollowedName]()
    async with open_session() as http:
        for entry in file.root:
            member_at = await anyio.to_thread.run_sync(_read_entry, entry, http, settings, counter)
            if entry.follow_dns:
                names += [FollowedName(url.host or "", partial(member_at, str(url))) for url in entry.urls]
            else:
                members += [member_at(str(url)) for url in entry.urls]
        for name in names:
            members += (await name.update(resolve))[0]
        prefill, hooks = read_deadlines(file.primary.profile).prefill, [on_call] if on_call else []
        pool = Pool(members, counter=counter, canary_share=file.canary_share, prefill=prefill, hooks=hooks)
        models = Models(pool, entries=file.root, on_failure=on_failure)
        await models.health.check()
        follow = partial(models.health.follow_forever, names, resolve=resolve, every=resolve_every)
        with first_failure():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervise, "probes", models.health.probe_forever, on_failure)
                tasks.start_soon(supervise, "endpoints", follow, on_failure)
                try:
                    yield models
                finally:
                    tasks.cancel_scope.cancel()
