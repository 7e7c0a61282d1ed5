"""The models client: it retries a call before the first token, and continues the answer elsewhere afterwards.

Before the first token, a request is retried once on a primary, also for a canary's conversation, and then on the
fallback group. After the first token, another endpoint of the same group continues the answer (`generation.py`), even
one with an open breaker, because the answer would be lost otherwise: the customer sees one unbroken stream. An endpoint
that cut the connection is called again only if no other remains. The rest of a group is skipped after it rejected the
request (content filter, smaller context), or after a failure without a retry budget; the first call to the next group
repeats no work there.
"""

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import aiohttp
import anyio
import structlog

from chatbot.chat import Chat, Message
from chatbot.errors import ModelUnavailable, Overloaded, TooLarge, Unavailable
from chatbot.events import Usage
from chatbot.models.choice_probabilities import Choices, choice_probabilities
from chatbot.models.endpoint import UNKNOWN_CONTEXT, Endpoint, GenerationRequest, Group, Sampling, StreamDecoder
from chatbot.models.generation import Delta, Generation, PartialAnswer, Thought
from chatbot.models.pool import CallHook, FollowedName, Pool, Resolve, addresses_of
from chatbot.models.settings import ModelSettings, ModelsFileEntry, ModelsMisconfigured
from chatbot.tokens import FAMILY_TOKENS, SpecialTokens, TokenCounter, UnknownTokenizer, read_tokenizer
from knowledge.model_connection import (
    DeadlineExceeded,
    EndpointFailed,
    EndpointStopped,
    QueueFull,
    ReplyBroken,
    RequestRejected,
    Unreachable,
    open_session,
)
from knowledge.profiles import read_deadlines
from telemetry.groups import first_failure
from telemetry.supervision import OnFailure, supervise, uncounted

log = structlog.get_logger(__name__)

UNKNOWN_MODEL = "unknown"
_COUNT_SECONDS = 0.5
"""The deadline of counting a prompt on the server; the estimate applies afterwards."""
_DECODE_SECONDS = 1.0
# Two primaries and a fallback: connecting to a vLLM takes at most 0.6 s each, so a hand-off comes within 2 s.
_MOST_BEFORE_FIRST_TOKEN = 3
_MOST_FAILOVERS = 3


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
    """The pool of endpoints and its token counter; `names` are those of the MODELS_FILE's entries."""

    def __init__(self, pool: Pool, *, names: frozenset[str] = frozenset(), configured_model: str | None = None) -> None:
        self.pool = pool
        self.counter = pool.counter
        self.names = names
        self._configured_model = configured_model

    @property
    def model(self) -> str:
        """The primary model's name; `UNKNOWN_MODEL` until an endpoint without a configured name has reported one."""
        # An unchecked endpoint may serve another model during a rollout.
        primaries = sorted(self.pool.of_group("primary"), key=lambda endpoint: not endpoint.checked)
        names = [*(endpoint.model for endpoint in primaries), self._configured_model]
        return next(filter(None, names), UNKNOWN_MODEL)

    @property
    def think(self) -> bool:
        """Whether any serving model may think before it answers."""
        return any(endpoint.able.thinks for endpoint in self.pool.serving)

    @property
    def lacks(self) -> tuple[str, ...]:
        """The capabilities that at least one serving endpoint lacks."""
        return tuple(dict.fromkeys(lack for e in self.pool.serving if e.checked for lack in e.able.lacks))

    async def counted(self, chat: Chat, *, conversation_id: str) -> Chat:
        """Return the chat with a token count from one of its servers, or with the estimate if none is available."""
        able = [endpoint for endpoint in self.pool.of_group("primary") if endpoint.able.tokenize]
        endpoint = self.pool.pick(conversation_id, able)
        if endpoint is None:
            return chat
        try:
            rendered = await endpoint.tokenize(chat.messages, seconds=_COUNT_SECONDS)
        except EndpointFailed as exc:
            log.warning("token_count_failed", error=str(exc))
            return chat
        return replace(chat, tokens=len(rendered.tokens))

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
        attempts = _Attempts(self.pool, conversation_id)
        while not answer.spent:
            so_far = chat.tokens + answer.answer.tokens
            able = [e for e in self.pool.members if answer.can_continue_on(e.able) and e.able.context_tokens > so_far]
            endpoint, reported = attempts.next_endpoint(able)
            notices: list[Switched | NotResumable] = []
            if reported:
                notices.append(Switched(endpoint.name, endpoint.group))
            if not (endpoint.able.token_ids or endpoint.able.continues_text):
                notices.append(NotResumable())
            request = replace(request, until=attempts.deadline)
            try:
                async with aclosing(self._generate(endpoint, request, answer)) as parts:
                    async for part in parts:
                        while notices:  # only with the first part: the endpoint may generate nothing
                            yield notices.pop(0)
                        yield part
                break
            except EndpointFailed as exc:
                attempts.record_failure(endpoint, exc, mid_answer=answer.started)
                answer.record_failure()
        usage, models = answer.usage(), tuple(answer.models)
        if answer.thinks:
            log.warning("thinking_end_missing", models=models)
        yield ModelDone(answer.finish_reason, usage, models, bool(attempts.failures), answer.unpaid_tokens)

    async def _generate(
        self, endpoint: Endpoint, request: GenerationRequest, answer: Generation
    ) -> AsyncGenerator[Delta | Thought]:
        """Generate on one endpoint until its stream or the answer ends."""
        reply = StreamDecoder()
        # An answer cannot continue after the ids of a part of a character.
        is_cut = endpoint.able.tokenize
        while answer.ids and is_cut:
            is_cut = answer.drop_cut_character(await endpoint.detokenize(answer.ids, seconds=_DECODE_SECONDS))
        request = answer.continue_on(endpoint.able, request)
        with self.pool.call(endpoint, "answer") as call:
            await self.pool.check(endpoint)
            async with aclosing(endpoint.stream(request, reply)) as pieces:
                async for piece in pieces:
                    if reply.prompt_ids and not answer.prompt_ids:
                        await self._check_special_tokens(endpoint, request.chat, reply.prompt_ids)
                        answer.prompt_ids = reply.prompt_ids
                    call.begin()
                    answer.models[endpoint.model] = None
                    for part in answer.feed(piece):
                        if isinstance(part, Thought):
                            endpoint.able.thinks = True
                        yield part
                    if answer.over:
                        break
                else:
                    for part in answer.finish(reply):
                        yield part
            call.outcome = "ok"
            answer.models[endpoint.model] = None

    async def _check_special_tokens(self, endpoint: Endpoint, chat: Chat, prompt_ids: Sequence[int]) -> None:
        """Raise RequestRejected if a prompt has more special tokens than its template adds to such messages."""
        special, (template, exchange) = endpoint.able.special_ids, endpoint.able.template_specials
        special_tokens = sum(token in special for token in prompt_ids)
        if special_tokens <= template + exchange * sum(message.role == "assistant" for message in chat.messages):
            return
        plain = [Message(message.role, "x") for message in chat.messages]
        rendered = await endpoint.tokenize(plain, seconds=_DECODE_SECONDS)
        if special_tokens > sum(token in special for token in rendered.tokens):
            log.error("special_tokens_forged", endpoint=endpoint.name, found=special_tokens)
            raise RequestRejected(f"{endpoint.name}: a text of the prompt became a special token")

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
        attempts = _Attempts(self.pool, conversation_id)
        request = GenerationRequest(
            chat=chat, sampling=Sampling(max_tokens=1), cache_salt=cache_salt, priority=priority
        )
        while True:
            able = [endpoint for endpoint in self.pool.members if endpoint.able.context_tokens > chat.tokens]
            endpoint, _ = attempts.next_endpoint(able)
            if endpoint.able.top_logprobs is None:
                return (1 / len(choices),) * len(choices)
            request = replace(request, until=attempts.deadline)
            try:
                with self.pool.call(endpoint, "probability") as call:
                    top_tokens = await endpoint.top_tokens(request)
                    call.begin()
                    call.outcome = "ok"
            except EndpointFailed as exc:
                attempts.record_failure(endpoint, exc, mid_answer=False)
            else:
                return choice_probabilities(top_tokens.logprobs, choices, least_mass=least_mass)

    def _room(self, chat: Chat) -> int:
        """Return how many tokens of an answer fit into the largest context of a primary; raise TooLarge if none."""
        contexts = (e.able.context_tokens for e in self.pool.of_group("primary") if e.checked)
        most = max(contexts, default=UNKNOWN_CONTEXT)
        if most <= chat.tokens:
            raise TooLarge(f"The question and its documents take {chat.tokens} of {most} tokens")
        return most - chat.tokens


class _Attempts:
    """The endpoints that one request is sent to in turn, and their `failures`."""

    def __init__(self, pool: Pool, conversation_id: str) -> None:
        self._pool = pool
        self._conversation_id = conversation_id
        self._groups: Sequence[Group] = pool.group_order(conversation_id)
        self._mid_answer = False
        self.failures: list[tuple[Endpoint, EndpointFailed]] = []
        self.deadline = 0.0
        """The deadline of the whole answer in event loop time, set at the first call."""
        pool.add_request()

    def next_endpoint(self, able: Collection[Endpoint]) -> tuple[Endpoint, bool]:
        """Return the next of the `able` endpoints, and whether the customer is notified of the switch.

        Raises:
            Overloaded: the last endpoint's queue was full, and no other can be called.
            ModelUnavailable: no endpoint can be called.
        """
        for group in self._groups:
            endpoint = self._pick([e for e in able if e.group == group])
            if endpoint is not None:
                self.deadline = self.deadline or anyio.current_time() + endpoint.deadlines.answer
                return endpoint, self._mid_answer or group == "fallback"
        raise self._no_target() from (self.failures[-1][1] if self.failures else None)

    def _pick(self, able: Sequence[Endpoint]) -> Endpoint | None:
        pick, failed = partial(self._pool.pick, self._conversation_id), [endpoint for endpoint, _ in self.failures]
        fresh = [endpoint for endpoint in able if endpoint not in failed]
        cut_once = [e for e, exc in self.failures if failed.count(e) == 1 and isinstance(exc, ReplyBroken)]
        if self._mid_answer:
            return pick(fresh) or pick(fresh, override=True) or pick([e for e in cut_once if e in able])
        return pick(fresh) or pick([e for e in cut_once if e in able and e.group != "canary"])

    def record_failure(self, endpoint: Endpoint, exc: EndpointFailed, *, mid_answer: bool) -> None:
        """Record a failed call to an endpoint; `mid_answer` if a part of the answer was already shown.

        Raises:
            Overloaded, ModelUnavailable: the request gives up.
        """
        log.warning("model_call_failed", endpoint=endpoint.name, error=str(exc), outcome=exc.outcome)
        self.failures.append((endpoint, exc))
        self._mid_answer = mid_answer
        failed = [each.group for each, _ in self.failures]
        if isinstance(exc, RequestRejected):  # other endpoints of this group would reject it too
            self._leave([endpoint.group])
        if mid_answer:
            self._leave([group for group in self._groups if group != endpoint.group])
            gives_up = len(failed) > _MOST_FAILOVERS
        else:
            if len(failed) - failed.count("fallback") >= 2:
                self._leave(["primary", "canary"])
            gives_up = len(failed) >= _MOST_BEFORE_FIRST_TOKEN
            # An unreachable or stopped endpoint, or one that rejects the request, did no work that a retry repeats.
            works_again = not isinstance(exc, Unreachable | EndpointStopped | RequestRejected)
            if works_again and not gives_up and not self._pool.take_retry():
                self._leave(failed)
                gives_up = isinstance(exc, DeadlineExceeded | QueueFull)  # do not flood the next group
        if gives_up or (isinstance(exc, DeadlineExceeded) and exc.phase == "whole answer"):
            raise self._no_target() from exc

    def _leave(self, groups: Collection[Group]) -> None:
        self._groups = [group for group in self._groups if group not in groups]

    def _no_target(self) -> Unavailable:
        if self.failures and isinstance(self.failures[-1][1], QueueFull):
            return Overloaded(retry_after=1.0)
        return ModelUnavailable(retry_after=self._pool.retry_after())


def _read_entry(
    entry: ModelsFileEntry, http: aiohttp.ClientSession, settings: ModelSettings, counter: TokenCounter
) -> Callable[..., Endpoint]:
    """Return the factory of an entry's endpoints; it takes a URL and optionally one of its addresses (blocking).

    Raises:
        ModelsMisconfigured: the entry's key, TLS files or tokenizer cannot be read.
    """
    # Never send LLM_API_KEY to the providers of a MODELS_FILE.
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key and settings.models_file is None else None
    special = FAMILY_TOKENS
    if entry.tokenizer is not None:
        try:
            count, added = read_tokenizer(entry.tokenizer)
        except UnknownTokenizer as exc:
            raise ModelsMisconfigured(f"LLM_TOKENIZER (or `tokenizer` in MODELS_FILE): {exc}") from exc
        special = SpecialTokens(added)
        if entry.group == "primary":
            counter.exact = count
    return partial(
        Endpoint,
        http,
        deadlines=read_deadlines(entry.profile),
        group=entry.group,
        entry=entry.name,
        model=entry.model,
        access=entry.access(key),
        special=special,
        template_kwargs=entry.chat_template_kwargs,
    )


@asynccontextmanager
async def open_models(
    settings: ModelSettings,
    *,
    on_call: CallHook = lambda _: None,
    on_failure: OnFailure = uncounted,
    resolve: Resolve = addresses_of,
    resolve_every: float = 5.0,
) -> AsyncGenerator[Models]:
    """Open the configured endpoints, detect their capabilities, and probe unavailable endpoints in the background.

    Raises:
        ModelsMisconfigured: the message says what to set.
    """
    file = await anyio.to_thread.run_sync(settings.read)
    counter, members, names = TokenCounter(), list[Endpoint](), list[FollowedName]()
    async with open_session() as http:
        for entry in file.root:
            endpoint_at = await anyio.to_thread.run_sync(_read_entry, entry, http, settings, counter)
            if entry.follow_dns:
                names += [FollowedName(url.host or "", partial(endpoint_at, str(url))) for url in entry.urls]
            else:
                members += [endpoint_at(str(url)) for url in entry.urls]
        for name in names:
            members += (await name.update(resolve))[0]
        prefill = read_deadlines(file.primary.profile).prefill
        pool = Pool(
            members,
            counter=counter,
            canary_share=file.canary_share,
            prefill=prefill,
            on_call=on_call,
            on_failure=on_failure,
        )
        await pool.check_all()
        follow = partial(pool.follow_forever, names, resolve=resolve, every=resolve_every)
        with first_failure():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(supervise, "probes", pool.probe_forever, on_failure)
                tasks.start_soon(supervise, "endpoints", follow, on_failure)
                try:
                    yield Models(pool, names=file.names, configured_model=file.primary.model)
                finally:
                    tasks.cancel_scope.cancel()
