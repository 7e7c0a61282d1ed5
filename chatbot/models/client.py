"""The models behind the chat: picks the endpoint, retries once before the first token, goes on elsewhere after it.

Prompts are token ids, so an answer that breaks off after k tokens is continued on another endpoint of the group from
token k + 1 (`continuation.py`), and the customer sees one unbroken stream. When no primary endpoint can be called, the
fallback group answers. Both are told by a `Switched`; a retry before the first token is not.

A canary or a fallback may have a tokenizer of its own: it gets the same chat rendered by that, and what it says is
told in the primaries' tokens, so that everybody else counts, logs and goes on in one vocabulary (decision 0006).

An endpoint that is down at boot does not stop it: its breaker starts open, and the check of its tokenizer is made by
the first call that finds it up (a probe, so one at a time). `ping` probes as well, so that a replica without traffic
becomes ready.
"""

import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import anyio

from chatbot.errors import ModelUnavailable, TooLarge
from chatbot.events import Usage
from chatbot.models.breaker import Breaker, BreakerState
from chatbot.models.call import CallHook, CallKind, ModelCall, ModelCallFinished
from chatbot.models.choice_probabilities import Choices, choice_probabilities
from chatbot.models.completion import Delta, ReportedUsage, Sampling, TopTokens
from chatbot.models.continuation import Continuation
from chatbot.models.endpoint import (
    Endpoint,
    EndpointFailed,
    GenerationEnd,
    GenerationRequest,
    Speeds,
    WrongModel,
    open_session,
)
from chatbot.models.failover import Attempts
from chatbot.models.pool import PROFILES, Group, Member, ModelSettings, ModelsMisconfigured, Pool, ProfileName, Target
from chatbot.tokenizer import Message, Rendered, Tokenizer, UnknownTokenizer

__all__ = [
    "PROFILES", "UNKNOWN_MODEL", "Delta", "Group", "ModelCallFinished", "ModelDone", "ModelSettings", "Models",
    "ModelsMisconfigured", "ProfileName", "Sampling", "Speeds", "Switched", "open_models",
]  # fmt: skip

log = logging.getLogger(__name__)

UNKNOWN_MODEL = "unknown"
# vLLM gives at most this many (its `--max-logprobs` default).
_TOP = 20
# vLLM's priority of a call that nobody waits for; those of customers and roles are lower numbers.
_BEHIND_EVERYBODY = 1000
# A readiness probe waits for it.
_PING_SECONDS = 1.5
_SAMPLES = (
    "정기예금을 중도해지하면 기본이율의 50%만 적용됩니다. 예금자보호 한도는 1억원입니다.",
    "Early withdrawal costs 1,000,000 won (0.5%);\n\n  see  section 3.2 -- it's final. 谢谢 🙂 e\u0301",
)


@dataclass(frozen=True, slots=True)
class Switched:
    """Another endpoint answers from here on: the same model elsewhere, or the smaller one when `group` is fallback."""

    endpoint: str
    group: Group = "primary"


@dataclass(frozen=True, slots=True)
class ModelDone:
    """The answer is whole. `usage` counts the prompt once, however many endpoints saw it, and all answer tokens.

    `models` are those that said some of it; `retried` tells that an endpoint failed on the way.
    """

    finish_reason: Literal["stop", "length"]
    usage: Usage
    models: tuple[str, ...] = field(default=(), compare=False)
    retried: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """How an endpoint stands, for whoever looks after the models."""

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
        hooks: Sequence[CallHook] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tokenizer = tokenizer
        self.pool = pool
        self._hooks = tuple(hooks)
        self._clock = clock

    @property
    def model(self) -> str:
        """The primary model's name; `UNKNOWN_MODEL` until an endpoint without a set name has been asked."""
        return next(
            (m.endpoint.model for m in self.pool.members if m.group == "primary" and m.endpoint.model), UNKNOWN_MODEL
        )

    @property
    def context_tokens(self) -> int | None:
        """The least that a primary told: prompt and answer together."""
        told = [m.context_tokens for m in self.pool.members if m.group == "primary" and m.context_tokens is not None]
        return min(told, default=None)

    @property
    def names(self) -> frozenset[str]:
        """What can be stopped: the names of the MODELS_FILE's entries."""
        return frozenset(member.entry for member in self.pool.members)

    def stop(self, names: Collection[str]) -> None:
        """Ask the endpoints of these entries nothing more, end what they are being asked, and allow all others."""
        for member in self.pool.members:
            if member.entry not in names:
                member.endpoint.resume()
            elif not member.endpoint.stopped:
                log.warning("model endpoint %s is stopped", member.endpoint.name)
                member.endpoint.stop()

    def endpoint_statuses(self) -> tuple[EndpointStatus, ...]:
        """Return how each endpoint stands."""
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
        prompt: Rendered,
        *,
        sampling: Sampling,
        conversation_id: str,
        cache_salt: str,
        priority: int = 0,
        said: Sequence[int] = (),
    ) -> AsyncGenerator[Delta | Switched | ModelDone]:
        """Generate an answer, or what follows `said` of it; closing the generator closes the socket at once.

        Nobody with another tokenizer is asked where the prompt has no messages.

        Raises:
            TooLarge: prompt and answer cannot fit into the model.
            Overloaded: every endpoint's queue is full.
            ModelUnavailable: no endpoint can answer, or none could finish in time.
        """
        fitting = self._fitting(len(prompt.ids), sampling)
        answer = Continuation(prompt.ids, fitting, said=said, said_text=self.tokenizer.decode(said))
        unable = self._unable(prompt)
        attempts = Attempts(self.pool, conversation_id, resumed=bool(said), avoid=unable)
        models: list[str] = []
        while not answer.spent:
            leg, told = attempts.next()
            call = self._call(answer.prompt_ids, answer.sampling, cache_salt, priority, until=attempts.until())
            call = self._for(leg.member, call, prompt.messages, answer.text)
            try:
                with self._counted(leg, "answer", call, again=attempts.again(call)) as running:
                    if told:
                        yield Switched(leg.member.endpoint.name, leg.member.group)
                    async with aclosing(self._answer(leg.member, call, answer, running)) as parts:
                        async for part in parts:
                            if leg.member.endpoint.model not in models:
                                models.append(leg.member.endpoint.model)
                            if isinstance(part, ModelDone):
                                yield replace(part, models=tuple(models), retried=attempts.retried)
                            else:
                                yield part
            except EndpointFailed as exc:
                attempts.failed(leg, exc, begun=answer.begun)
                answer.resume(self.tokenizer.decode)
            else:
                return
        usage = Usage(prompt_tokens=answer.prompt_tokens, answer_tokens=answer.kept)
        yield ModelDone("length", usage, tuple(models), attempts.retried)

    async def choice_probabilities(
        self,
        prompt: Rendered,
        words: Choices,
        *,
        conversation_id: str,
        cache_salt: str,
        priority: int = 0,
        least_mass: float = 0.0,
    ) -> tuple[float, ...]:
        """Return how likely each word is next, beside the others alone.

        They are equal where none is among the 20 likeliest, or all together are less likely than `least_mass`.

        Raises:
            TooLarge, Overloaded, ModelUnavailable: as `stream`.
        """
        sampling = self._fitting(len(prompt.ids), Sampling(max_tokens=1))
        attempts = Attempts(self.pool, conversation_id, avoid=self._unable(prompt))
        while True:
            leg, _ = attempts.next()
            call = self._call(prompt.ids, sampling, cache_salt, priority, until=attempts.until())
            call = self._for(leg.member, call, prompt.messages)
            try:
                found = await self._top_tokens(leg, call, "probability", again=attempts.again(call))
            except EndpointFailed as exc:
                attempts.failed(leg, exc, begun=False)
            else:
                token_bytes = self._tokenizer_of(leg.member).token_bytes
                return choice_probabilities(found.logprobs, words, token_bytes=token_bytes, least_mass=least_mass)

    async def shadow_answer(
        self, prompt: Rendered, *, sampling: Sampling, conversation_id: str, cache_salt: str
    ) -> str | None:
        """Return what the shadow says to a prompt, asked once, behind everybody else; nothing where it cannot be asked.

        Raises:
            EndpointFailed: it did not finish.
            TooLarge: as `stream`.
        """
        leg = self.pool.pick(conversation_id, group="shadow", avoid=self._unable(prompt))
        if leg is None:
            return None
        answer = Continuation(prompt.ids, self._fitting(len(prompt.ids), sampling))
        until = anyio.current_time() + leg.member.endpoint.speeds.whole
        call = self._call(prompt.ids, answer.sampling, cache_salt, _BEHIND_EVERYBODY, until=until)
        call = self._for(leg.member, call, prompt.messages)
        with self._counted(leg, "answer", call, again=0) as running:
            async with aclosing(self._answer(leg.member, call, answer, running)) as parts:
                return "".join([part.text async for part in parts if isinstance(part, Delta)])

    async def ping(self) -> None:
        """Return when an endpoint is ready, after trying those whose time has come to be tried.

        Raises:
            ModelUnavailable: none is.
        """
        allowed = self.pool.serving
        if any(m.checked and m.breaker.state is BreakerState.CLOSED for m in allowed):
            return
        for member in allowed:
            permit = member.breaker.admit()
            if permit is not None and await self._answers(Target(member, permit)):
                return
        raise ModelUnavailable(retry_after=self.pool.retry_after())

    async def check(self) -> None:
        """Compare every endpoint's tokenizer with ours; one that is down starts with an open breaker.

        Raises:
            ModelsMisconfigured: an endpoint serves another model or tokenizer.
        """
        wrong: list[str] = []

        async def ask(member: Member) -> None:
            try:
                await self._check(member)
            except WrongModel as exc:
                wrong.append(str(exc))
            except EndpointFailed as exc:
                log.warning("model endpoint %s is not there yet: %s", member.endpoint.name, exc)
                member.breaker.trip()

        async with anyio.create_task_group() as group:
            for member in self.pool.members:
                group.start_soon(ask, member)
        if wrong:
            raise ModelsMisconfigured("; ".join(wrong))

    async def _answer(
        self, member: Member, call: GenerationRequest, answer: Continuation, running: ModelCall
    ) -> AsyncGenerator[Delta | ModelDone]:
        """Yield what one endpoint contributes to the answer."""
        await self._check(member)
        async with aclosing(member.endpoint.stream(call)) as parts:
            async for part in parts:
                if isinstance(part, GenerationEnd):
                    running.outcome = "ok"
                    counted = part.usage if member.tokenizer is None else None
                    yield ModelDone(part.finish_reason, _usage(counted, answer))
                else:
                    running.arrived(len(part.token_ids))
                    if (shown := answer.feed(self._in_our_tokens(member, part))) is not None:
                        yield shown

    async def _top_tokens(
        self, leg: Target, call: GenerationRequest, kind: Literal["probability", "ping"], *, again: int
    ) -> TopTokens:
        with self._counted(leg, kind, call, again=again) as running:
            await self._check(leg.member)
            found = await leg.member.endpoint.top_tokens(call, top=_TOP)
            running.arrived(1)
            running.outcome = "ok"
            return found

    async def _answers(self, leg: Target) -> bool:
        """Return whether the endpoint generates a token: a hung engine still answers its health check."""
        ids = self._tokenizer_of(leg.member).render([Message("user", "ping")])
        call = self._call(ids, Sampling(max_tokens=1), "", 0, until=anyio.current_time() + _PING_SECONDS)
        call = replace(call, end_ids=self._tokenizer_of(leg.member).end_ids)
        try:
            await self._top_tokens(leg, call, "ping", again=0)
        except EndpointFailed:
            return False
        return True

    async def _check(self, member: Member) -> None:
        """Make sure, once and after every absence, that the endpoint's token ids are ours."""
        if member.checked:
            return
        endpoint, tokenizer = member.endpoint, self._tokenizer_of(member)
        card = await endpoint.card()
        chat = [Message("system", _SAMPLES[0]), Message("user", _SAMPLES[1])]
        messages = [{"role": message.role, "content": message.content} for message in chat]
        asked: list[tuple[dict[str, object], list[int]]] = [
            *(({"prompt": text, "add_special_tokens": False}, tokenizer.encode(text)) for text in _SAMPLES),
            ({"messages": messages, "add_generation_prompt": True}, tokenizer.render(chat)),
        ]
        for body, ours in asked:
            if await endpoint.tokenize(body) != ours:
                what = "chat template" if "messages" in body else "tokenizer"
                raise WrongModel(
                    f"the {what} of {card.id} at {endpoint.name} is not the one in the tokenizer's folder: "
                    "set LLM_TOKENIZER (or `tokenizer` in MODELS_FILE) to the folder of the served model"
                )
        member.context_tokens = card.max_model_len
        member.checked = True

    def _fitting(self, prompt_tokens: int, sampling: Sampling) -> Sampling:
        """Return the sampling with no more answer tokens than the model has room for."""
        if self.context_tokens is None:
            return sampling
        room = self.context_tokens - prompt_tokens
        if room < 1:
            raise TooLarge(f"The question and its documents take {prompt_tokens} of {self.context_tokens} tokens")
        return sampling if sampling.max_tokens <= room else replace(sampling, max_tokens=room)

    def _tokenizer_of(self, member: Member) -> Tokenizer:
        return self.tokenizer if member.tokenizer is None else member.tokenizer

    def _unable(self, prompt: Rendered) -> list[Member]:
        """Return the members that have no room for the prompt, or cannot be told what it says."""
        return [
            m
            for m in self.pool.members
            if (m.tokenizer is not None and not prompt.messages)
            or (m.group != "primary" and m.context_tokens is not None and m.context_tokens <= len(prompt.ids))
        ]

    def _for(
        self, member: Member, call: GenerationRequest, messages: Sequence[Message], said: str = ""
    ) -> GenerationRequest:
        """Return the call as the member is asked: in its tokens, and with no more answer than it has room for."""
        if member.tokenizer is not None:
            ids = [*member.tokenizer.render(messages), *member.tokenizer.encode(said)]
            call = replace(call, prompt_ids=ids, end_ids=member.tokenizer.end_ids)
        if member.context_tokens is None:
            return call
        room = max(1, member.context_tokens - len(call.prompt_ids))
        return replace(call, sampling=replace(call.sampling, max_tokens=min(room, call.sampling.max_tokens)))

    def _in_our_tokens(self, member: Member, delta: Delta) -> Delta:
        """Return the delta with the ids that its text has in the primaries' tokenizer."""
        return delta if member.tokenizer is None else Delta(delta.text, tuple(self.tokenizer.encode(delta.text)))

    def _call(
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
    def _counted(self, leg: Target, kind: CallKind, call: GenerationRequest, *, again: int) -> Iterator[ModelCall]:
        """Count a call in flight; whatever its end, tell the breaker and the hooks."""
        late = leg.member.endpoint.speeds.late(len(call.prompt_ids))
        running = ModelCall(leg, late=late, clock=self._clock)
        try:
            yield running
        except EndpointFailed as exc:
            running.outcome = exc.outcome
            raise
        finally:
            running.settle(alternatives=self.pool.alternatives(leg.member))
            finished = running.finished(kind=kind, prompt_tokens=len(call.prompt_ids), again=again)
            for hook in self._hooks:
                hook(finished)


def _usage(counted: ReportedUsage | None, answer: Continuation) -> Usage:
    """Return what the customer pays: the prompt once, every token of the answer."""
    return Usage(
        prompt_tokens=answer.prompt_tokens,
        # What a continuation found cached is the answer itself, mostly.
        cached_tokens=counted.cached_tokens if counted and not answer.kept else 0,
        answer_tokens=answer.kept + counted.completion_tokens if counted else answer.tokens,
    )


@asynccontextmanager
async def open_models(settings: ModelSettings, *, on_call: CallHook | None = None) -> AsyncGenerator[Models]:
    """Open the endpoints that the settings name and compare their tokenizers with ours.

    Raises:
        ModelsMisconfigured: a sentence that says what to set.
    """
    file = await anyio.to_thread.run_sync(settings.read)
    tokenizers: dict[Path, Tokenizer] = {}
    for folder in {entry.tokenizer for entry in file.root}:
        try:
            tokenizers[folder] = await anyio.to_thread.run_sync(Tokenizer.load, folder)
        except UnknownTokenizer as exc:
            raise ModelsMisconfigured(f"LLM_TOKENIZER (or `tokenizer` in MODELS_FILE): {exc}") from exc
    key = settings.llm_api_key.get_secret_value() if settings.llm_api_key else None
    async with open_session(api_key=key) as http:
        members = [
            Member(
                Endpoint(http, str(url), PROFILES[entry.profile], model=entry.model),
                entry.group,
                Breaker(settings.breaker),
                entry=entry.name,
                tokenizer=None if entry.tokenizer == file.tokenizer else tokenizers[entry.tokenizer],
            )
            for entry in file.root
            for url in entry.urls
        ]
        pool = Pool(members, shares=file.shares)
        models = Models(pool, tokenizers[file.tokenizer], hooks=[on_call] if on_call else [])
        await models.check()
        yield models
