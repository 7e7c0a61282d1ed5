"""The models client: retries a call before the first token, and continues the answer on another endpoint after it.

Before the first token, a request is retried once on a primary, also for a canary's conversation, and then on the
fallback group. After the first token, another endpoint of the same group continues the answer (`generation.py`), even
one with an open breaker, because the answer would be lost otherwise: the customer sees one unbroken stream. An endpoint
that cut the connection is called again only if no other remains. The rest of a group is skipped after one of its
endpoints rejected the request (content filter, smaller context), or after a failure when the retry budget is empty.
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
"""The deadline of counting a prompt on the server; after it, the estimate is used."""
_DECODE_SECONDS = 1.0
# Two primaries and a fallback: connecting to a vLLM takes at most 0.6 s each, so a hand-off comes within 2 s.
_MOST_BEFORE_FIRST_TOKEN = 3
_MOST_FAILOVERS = 3


@dataclass(frozen=True, slots=True)
class Switched:
    """Another endpoint generates the rest of the answer, with a smaller model if `group` is "fallback"."""

    endpoint: str
    group: Group = "primary"


@dataclass(frozen=True, slots=True)
class NotResumable:
    """The answer is lost if the current endpoint fails: no other endpoint can continue its text."""


@dataclass(frozen=True, slots=True)
class ModelDone:
    """The answer is complete.

    `usage` counts the prompt once, even if several endpoints read it, and all tokens of the answer and its thinking.
    `models` are the models that generated parts of it. `retried` is set if an endpoint failed.
    """

    finish_reason: Literal["stop", "length"]
    usage: Usage
    models: tuple[str, ...] = field(default=(), compare=False)
    retried: bool = field(default=False, compare=False)
    unpaid_tokens: int = field(default=0, compare=False)
    """Generated tokens that are not charged."""


class Models:
    """The pool of endpoints and its token counter; `names` are the names of the MODELS_FILE's entries."""

    def __init__(self, pool: Pool, *, names: frozenset[str] = frozenset(), configured_model: str | None = None) -> None:
        self.pool = pool
        self.counter = pool.counter
        self.names = names
        self._configured_model = configured_model

    @property
    def model(self) -> str:
        """The primary model's name: reported or configured, or `UNKNOWN_MODEL` until one is known."""
        # Checked endpoints first: another one may serve another model during a rollout.
        primaries = sorted(self.pool.of_group("primary"), key=lambda endpoint: not endpoint.checked)
        names = [*(endpoint.model for endpoint in primaries), self._configured_model]
        return next((name for name in names if name), UNKNOWN_MODEL)

    @property
    def may_think(self) -> bool:
        """Whether any serving model may think before it answers."""
        return any(endpoint.capabilities.thinks for endpoint in self.pool.serving)

    @property
    def missing_capabilities(self) -> tuple[str, ...]:
        """The names of the capabilities that at least one serving endpoint lacks."""
        checked = [endpoint for endpoint in self.pool.serving if endpoint.checked]
        return tuple(dict.fromkeys(name for endpoint in checked for name in endpoint.capabilities.missing))

    async def with_token_count(self, chat: Chat, *, conversation_id: str) -> Chat:
        """Return the chat with the token count of a primary's tokenizer, or unchanged if none is available."""
        tokenizers = [endpoint for endpoint in self.pool.of_group("primary") if endpoint.capabilities.tokenize]
        endpoint = self.pool.pick(conversation_id, tokenizers)
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

        An answer whose thinking uses up its tokens ends with the finish reason "length".

        Raises:
            TooLarge: the prompt fills the model's context.
            Overloaded: the endpoints' queues are full.
            ModelUnavailable: no endpoint can answer, or none finished in time.
        """
        most_tokens = min(sampling.max_tokens + sampling.thinking_tokens, self._tokens_left(chat))
        answer = Generation(
            chat, sampling, most_tokens=most_tokens, count=self.counter.count, partial_answer=partial_answer
        )
        request = GenerationRequest(chat=chat, sampling=sampling, cache_salt=cache_salt, priority=priority)
        attempts = _Attempts(self.pool, conversation_id)
        while not answer.limit_reached:
            endpoint = attempts.next_endpoint([e for e in self.pool.members if answer.can_continue_on(e.capabilities)])
            notices: list[Switched | NotResumable] = []
            if attempts.mid_answer or endpoint.group == "fallback":
                notices.append(Switched(endpoint.name, endpoint.group))
            if not (endpoint.capabilities.token_ids or endpoint.capabilities.continues_text):
                notices.append(NotResumable())
            request = replace(request, until=attempts.deadline)
            try:
                async with aclosing(self._generate(endpoint, request, answer)) as parts:
                    async for part in parts:
                        while notices:  # before the first part, and not for an endpoint that generates nothing
                            yield notices.pop(0)
                        yield part
                break
            except EndpointFailed as exc:
                attempts.record_failure(endpoint, exc, mid_answer=answer.started)
                answer.record_failure()
        usage = answer.usage()
        models = tuple(answer.models)
        if answer.in_thinking:
            log.warning("thinking_end_missing", models=models)
        yield ModelDone(answer.finish_reason, usage, models, bool(attempts.failures), answer.unpaid_tokens)

    async def _generate(
        self, endpoint: Endpoint, request: GenerationRequest, answer: Generation
    ) -> AsyncGenerator[Delta | Thought]:
        """Generate on one endpoint until its stream or the answer ends."""
        reply = StreamDecoder()
        if endpoint.capabilities.tokenize:
            await _drop_cut_character(endpoint, answer)
        request = answer.continue_on(endpoint.capabilities, request)
        with self.pool.call(endpoint, "answer") as call:
            await self.pool.check(endpoint)
            async with aclosing(endpoint.stream(request, reply)) as pieces:
                async for piece in pieces:
                    if reply.prompt_ids and not answer.prompt_ids:
                        await self._check_special_tokens(endpoint, request.chat, reply.prompt_ids)
                        answer.prompt_ids = reply.prompt_ids
                    call.record_token()
                    answer.models[endpoint.model] = None
                    for part in answer.feed(piece):
                        if isinstance(part, Thought):
                            endpoint.capabilities.thinks = True
                        yield part
                    if answer.ended:
                        break
                else:
                    for part in answer.finish(reply):
                        yield part
            call.outcome = "ok"
            answer.models[endpoint.model] = None

    async def _check_special_tokens(self, endpoint: Endpoint, chat: Chat, prompt_ids: Sequence[int]) -> None:
        """Raise `RequestRejected` if a prompt has more special tokens than the template adds to its messages."""
        capabilities = endpoint.capabilities
        special_tokens = sum(token in capabilities.special_ids for token in prompt_ids)
        of_first_exchange, of_each_exchange = capabilities.template_specials
        exchanges = sum(message.role == "assistant" for message in chat.messages)
        if special_tokens <= of_first_exchange + of_each_exchange * exchanges:
            return
        same_roles = [Message(message.role, "x") for message in chat.messages]
        rendered = await endpoint.tokenize(same_roles, seconds=_DECODE_SECONDS)
        if special_tokens > sum(token in capabilities.special_ids for token in rendered.tokens):
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

        The probabilities are equal if no choice is among the most likely tokens, if the choices' total probability is
        below `least_mass`, or if the endpoint rejects requests for one token. The errors are those of `stream`.
        """
        self._tokens_left(chat)
        attempts = _Attempts(self.pool, conversation_id)
        request = GenerationRequest(
            chat=chat, sampling=Sampling(max_tokens=1), cache_salt=cache_salt, priority=priority
        )
        while True:
            endpoint = attempts.next_endpoint(
                [e for e in self.pool.members if e.capabilities.context_tokens > chat.tokens]
            )
            if endpoint.capabilities.top_logprobs is None:
                return (1 / len(choices),) * len(choices)
            request = replace(request, until=attempts.deadline)
            try:
                with self.pool.call(endpoint, "probability") as call:
                    top_tokens = await endpoint.top_tokens(request)
                    call.record_token()
                    call.outcome = "ok"
            except EndpointFailed as exc:
                attempts.record_failure(endpoint, exc, mid_answer=False)
            else:
                return choice_probabilities(top_tokens.logprobs, choices, least_mass=least_mass)

    def _tokens_left(self, chat: Chat) -> int:
        """Return how many tokens fit after the chat into the largest context of a primary; raise `TooLarge` if none."""
        contexts = (e.capabilities.context_tokens for e in self.pool.of_group("primary") if e.checked)
        largest = max(contexts, default=UNKNOWN_CONTEXT)
        if largest <= chat.tokens:
            raise TooLarge(f"The question and its documents take {chat.tokens} of {largest} tokens")
        return largest - chat.tokens


class _Attempts:
    """Chooses the endpoint of each attempt of one request, and stores the `failures`."""

    def __init__(self, pool: Pool, conversation_id: str) -> None:
        self._pool = pool
        self._conversation_id = conversation_id
        self._groups: Sequence[Group] = pool.group_order(conversation_id)
        self.mid_answer = False
        """Whether a part of the answer was shown before the last failure."""
        self.failures: list[tuple[Endpoint, EndpointFailed]] = []
        self.deadline = 0.0
        """The deadline of the whole answer in event loop time, set at the first call."""
        pool.add_request()

    def next_endpoint(self, candidates: Collection[Endpoint]) -> Endpoint:
        """Return the candidate for the next attempt.

        Raises:
            Overloaded: the last endpoint's queue was full, and no other can be called.
            ModelUnavailable: no endpoint can be called.
        """
        for group in self._groups:
            endpoint = self._pick([e for e in candidates if e.group == group])
            if endpoint is not None:
                if not self.failures:
                    self.deadline = anyio.current_time() + endpoint.deadlines.answer
                return endpoint
        raise self._unavailable() from (self.failures[-1][1] if self.failures else None)

    def _pick(self, candidates: Sequence[Endpoint]) -> Endpoint | None:
        """Return a candidate that has not failed, else a candidate whose only failure is a cut connection."""
        pick = partial(self._pool.pick, self._conversation_id)
        failed = [endpoint for endpoint, _ in self.failures]
        not_failed = [endpoint for endpoint in candidates if endpoint not in failed]
        failed_once = [(e, exc) for e, exc in self.failures if e in candidates and failed.count(e) == 1]
        cut_once = [e for e, exc in failed_once if isinstance(exc, ReplyBroken)]
        if self.mid_answer:
            return pick(not_failed) or pick(not_failed, even_open=True) or pick(cut_once)
        return pick(not_failed) or pick([e for e in cut_once if e.group != "canary"])

    def record_failure(self, endpoint: Endpoint, exc: EndpointFailed, *, mid_answer: bool) -> None:
        """Record a failed call, and exclude groups without a chance; `mid_answer`: a part of the answer was shown.

        Raises:
            Overloaded, ModelUnavailable: there is no further attempt.
        """
        log.warning("model_call_failed", endpoint=endpoint.name, error=str(exc), outcome=exc.outcome)
        self.failures.append((endpoint, exc))
        self.mid_answer = mid_answer
        failed_groups = [failed.group for failed, _ in self.failures]
        if isinstance(exc, RequestRejected):  # other endpoints of this group would reject it too
            self._exclude([endpoint.group])
        if mid_answer:
            self._exclude([group for group in self._groups if group != endpoint.group])
            gives_up = len(failed_groups) > _MOST_FAILOVERS
        else:
            if len(failed_groups) - failed_groups.count("fallback") >= 2:
                self._exclude(["primary", "canary"])
            gives_up = len(failed_groups) >= _MOST_BEFORE_FIRST_TOKEN
            # An unreachable or stopped endpoint, or one that rejects the request, did no work that a retry repeats.
            retry_repeats_work = not isinstance(exc, Unreachable | EndpointStopped | RequestRejected)
            if retry_repeats_work and not gives_up and not self._pool.take_retry():
                self._exclude(failed_groups)
                gives_up = isinstance(exc, DeadlineExceeded | QueueFull)  # do not flood the next group
        if gives_up or (isinstance(exc, DeadlineExceeded) and exc.phase == "whole answer"):
            raise self._unavailable() from exc

    def _exclude(self, groups: Collection[Group]) -> None:
        self._groups = [group for group in self._groups if group not in groups]

    def _unavailable(self) -> Unavailable:
        if self.failures and isinstance(self.failures[-1][1], QueueFull):
            return Overloaded(retry_after=1.0)
        return ModelUnavailable(retry_after=self._pool.retry_after())


async def _drop_cut_character(endpoint: Endpoint, answer: Generation) -> None:
    """Drop the last ids of the answer if they are a part of a character: no endpoint can continue after them."""
    while answer.ids:
        text = await endpoint.detokenize(answer.ids, seconds=_DECODE_SECONDS)
        if not answer.drop_cut_character(text):
            return


def _read_entry(
    entry: ModelsFileEntry, http: aiohttp.ClientSession, settings: ModelSettings, counter: TokenCounter
) -> Callable[..., Endpoint]:
    """Return the factory of an entry's endpoints; it takes a URL and optionally an address of the host (blocking).

    Raises:
        ModelsMisconfigured: the entry's key, TLS files or tokenizer cannot be read.
    """
    key = None
    if settings.llm_api_key and settings.models_file is None:  # never send it to the providers of a MODELS_FILE
        key = settings.llm_api_key.get_secret_value()
    special_tokens = FAMILY_TOKENS
    if entry.tokenizer is not None:
        try:
            count, added_tokens = read_tokenizer(entry.tokenizer)
        except UnknownTokenizer as exc:
            raise ModelsMisconfigured(f"LLM_TOKENIZER (or `tokenizer` in MODELS_FILE): {exc}") from exc
        special_tokens = SpecialTokens(added_tokens)
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
        special_tokens=special_tokens,
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
            added, _ = await name.update(resolve)
            members += added
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
