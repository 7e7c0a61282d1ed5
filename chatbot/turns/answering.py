"""While the answer streams: `answer` runs in the application's task group and emits events, which connections read.

Of units whose ranking is close a model that reads fast is asked twice for the number of the one that states the answer,
the second time in the opposite order, since models prefer a place. What it computes is charged as answer tokens are.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from itertools import permutations

import anyio
import structlog
from msgspec.structs import replace
from opentelemetry import trace

from chatbot import answerability
from chatbot.admission import Place
from chatbot.answerability import Evidence
from chatbot.audit import Versions
from chatbot.errors import AuditUnavailable, ChatError, IndexUnavailable, ModelUnavailable, Overloaded, TooLarge
from chatbot.events import (
    Accepted,
    Event,
    FinishReason,
    Notice,
    NoticeCode,
    Queued,
    Related,
    RelatedPassage,
    Token,
    Usage,
)
from chatbot.grounding import GroundingStream
from chatbot.models import (
    LEAST_CHOICE_MASS,
    YES_OR_NO,
    Delta,
    ModelDone,
    NotResumable,
    PartialAnswer,
    Switched,
    Thought,
    number_choices,
    read_output,
)
from chatbot.notices import DegradationLevel, degradation_notice, notice
from chatbot.questions import CannedReply, canned_reply
from chatbot.quotes import Candidate, QuotedAnswer, asks_two_things, is_close, nearest_unit, posterior
from chatbot.records import Choice
from chatbot.services import Services
from chatbot.streams import LiveAnswer
from chatbot.turns.closing import finish
from chatbot.turns.quoting import (
    CHOSEN_FROM,
    choice_prompts,
    chosen_units,
    in_ranked_order,
    may_choose,
    prompts_json,
    quoted_answer,
    ranked_units,
)
from chatbot.turns.state import (
    FINISH,
    AnswerState,
    Turn,
    basis,
    is_progress,
    may_be_cached,
    may_not_answer,
    shown_in,
    sources,
    withdrawn,
)
from knowledge.bank import Bank
from knowledge.profiles import AnswerMode

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)


@dataclass(frozen=True, slots=True)
class Answering:
    """What every step of an answer uses; the events go to `live`, everything else that changes is in `state`."""

    turn: Turn
    live: LiveAnswer
    state: AnswerState
    services: Services

    @classmethod
    def of(cls, turn: Turn, live: LiveAnswer, services: Services) -> "Answering":
        """Return an answer at its start, or at the end of the previous writer's log."""
        progress_shown = {event.code for event in live.published if isinstance(event, Notice) and is_progress(event)}
        state = AnswerState(shown=shown_in(turn, live.published), progress_shown=progress_shown)
        answering = cls(turn, live, state, services)
        if live.output:
            answering.state.begin_after(answering.partial_answer(), turn)
        return answering

    @property
    def bank(self) -> Bank:
        """The customer's bank."""
        return self.services.banks.of(self.turn.who.tenant)

    @property
    def quotes(self) -> bool:
        """Whether the answer consists of the bank's own words, and no word of a model has been logged."""
        return self.turn.answer is AnswerMode.QUOTE and not self.live.output

    def partial_answer(self) -> PartialAnswer:
        """Return the logged part of the model's answer."""
        return read_output(self.live.output)

    def checks(self) -> GroundingStream:
        """Return new grounding checks for a text that answers the turn."""
        turn = self.turn
        return GroundingStream(turn.prompt_passages, question=turn.question, language=turn.language, bank=self.bank)

    # --- emitting events ---------------------------------------------------------------------------------------------

    def take(self, part: Delta | Thought, checks: GroundingStream) -> None:
        """Count and log the part; emit checked answer text, or a "thinking" notice.

        The count is charged if the model cannot report its usage.
        """
        usage = self.state.usage
        if isinstance(part, Delta):
            self.state.usage = replace(usage, answer_tokens=usage.answer_tokens + part.tokens)
            self.show(checks.feed(part.text), output=part.output)
            return
        self.state.usage = replace(usage, thinking_tokens=usage.thinking_tokens + part.tokens)
        self.notify_once(NoticeCode.THINKING)

    def show(self, events: Sequence[Event], *, output: bytes = b"") -> None:
        """Emit events, with the model output they come from; keep those that are new."""
        fresh = self.live.emit(*events, output=output)
        self.state.text_emitted = self.state.text_emitted or any(isinstance(event, Token) for event in events)
        if self.state.first_token_at is None and any(isinstance(event, Token) for event in fresh):
            self.state.first_token_at = time.monotonic()
        self.state.shown.extend(fresh)

    def notify_once(self, code: NoticeCode) -> bool:
        """Emit a progress notice once; return True if it was emitted now."""
        if code in self.state.progress_shown:
            return False
        self.live.emit(notice(code, self.turn.language))
        self.state.progress_shown.add(code)
        return True

    def show_canned_reply(self, reply: CannedReply) -> None:
        """Emit one of the bank's canned replies: without claims, so neither cited nor grounded."""
        text = canned_reply(reply, self.turn.language, self.bank)
        follows = self.state.text_emitted if self.live.repeats else bool(self.state.text)
        self.show([Token(text=f"\n\n{text}" if follows else text)])
        self.state.finish_reason = FINISH[reply]
        self.state.missing = self._missing(reply)
        self.state.grounded = False

    def _missing(self, reply: CannedReply) -> str:
        """Return the error code of the unavailable store that caused a reply, or ""."""
        if reply is CannedReply.UNAVAILABLE:
            return IndexUnavailable.code
        unreadable = reply is CannedReply.EMERGENCY and not self.services.withdrawals.readable()
        return AuditUnavailable.code if unreadable else ""

    def show_quotes(self, quoted: QuotedAnswer) -> None:
        """Show the quoted units, if there are any."""
        self.show(quoted.events)
        self.state.grounded = self.state.quoted = bool(quoted.events)

    def show_related(self) -> None:
        """Show the passages that may help a customer whose question is not answered, if there are any."""
        turn = self.turn
        items = [
            RelatedPassage(
                n=n,
                document_id=passage.document_id,
                version=passage.version,
                title=passage.title,
                section=passage.section,
                page=passage.page,
                quote=quote,
            )
            for n, passage in enumerate(turn.prompt_passages[:MOST_RELATED], 1)
            if (quote := nearest_unit(turn.found.query or turn.question, passage))
        ]
        if items:
            self.show([Related(items=tuple(items))])

    def degrade(self, level: DegradationLevel) -> None:
        """Record the degradation level and show its notice."""
        self.state.degrade(level)
        self.show([degradation_notice(level, self.turn.language)])

    # --- revocation --------------------------------------------------------------------------------------------------

    def revoked(self) -> bool:
        """Return whether an emergency stop or the withdrawal of a passage forbids the answer."""
        withdrawals, now = self.services.withdrawals, self.services.now()
        passages = (hit.passage for hit in self.turn.found.hits)
        return may_not_answer(withdrawals, self.turn.who.tenant) or any(
            withdrawn(p, withdrawals, now=now) for p in passages
        )

    @contextmanager
    def until_revoked(self) -> Iterator[anyio.CancelScope]:
        """Cancel the block when the answer is revoked, even if the model sends nothing.

        Revocation is checked when the withdrawals change; the scope's deadline is when a passage's validity ends.
        """
        withdrawals = self.services.withdrawals
        ends = (hit.passage.visible_until for hit in self.turn.found.hits)
        first_end = min((end for end in ends if end is not None), default=math.inf)

        def look() -> None:
            if self.revoked():
                scope.cancel()

        left = first_end - self.services.now()
        with anyio.move_on_after(left) as scope, withdrawals.notifying(look):
            look()
            yield scope


async def answer(turn: Turn, live: LiveAnswer, place: Place, services: Services) -> None:
    """Answer the turn, from its place in the queue; every path ends in `finish`.

    A successor runs this again after the logged tokens; published events are not emitted twice.
    """
    answering = Answering.of(turn, live, services)
    state = answering.state
    try:
        await speak(answering, place)
    except ChatError as exc:
        state.error = exc
    except Exception:
        log.exception("answer_failed", answer_id=turn.answer_id)
        state.error = ChatError()
    finally:
        services.admission.leave(place)
        await finish(turn, live, state, services)


async def speak(answering: Answering, place: Place) -> None:
    """Emit all events except the final one: the model's answer, or quotes without a model."""
    turn, live = answering.turn, answering.live
    try:
        live.emit(accepted(turn, answering.services.versions), *turn.notices, sources(turn))
        if turn.reply is not None:
            answering.show_canned_reply(turn.reply)
        else:
            with answering.until_revoked() as scope:
                await answer_from_passages(answering, place)
            if scope.cancelled_caught:
                answering.show_canned_reply(CannedReply.EMERGENCY)
            elif answering.state.finish_reason in {FinishReason.REFUSED, FinishReason.WITHHELD}:
                answering.show_related()
        live.check_repeated()
    except (ModelUnavailable, Overloaded) as exc:
        await answer_without_a_model(exc, answering)


async def answer_from_passages(answering: Answering, place: Place) -> None:
    """Quote at once where the search alone is clear; otherwise wait for a slot and ask the model."""
    turn, live, admission = answering.turn, answering.live, answering.services.admission
    unknown = await answering.services.retrieval.unknown_share(turn.question, turn.found, tenant=turn.who.tenant)
    evidence = evidence_without_model(answering, unknown)
    if evidence is Evidence.NONE:
        answering.show_canned_reply(CannedReply.CANNOT_VERIFY)
        return
    if (
        evidence
        and answering.quotes
        and not (is_close(ranked_units(answering.turn)) and may_choose(answering.services.models.pool.prefill_rate))
    ):
        await quote_answer(answering, evidence, ends=FinishReason.STOP, priority=place.priority)
        return

    def show_place(position: int, seconds: float) -> None:
        live.emit(Queued(position=position, estimated_wait_ms=round(seconds * 1000)))

    slot = admission.slot(
        place,
        prompt_tokens=turn.prompt.tokens,
        answer_tokens=turn.reservation.answer_tokens,
        on_wait=show_place,
    )
    async with slot:
        evidence = evidence or await ask_for_evidence(answering, unknown, priority=place.priority)
        if evidence is Evidence.NONE:
            answering.show_canned_reply(CannedReply.CANNOT_VERIFY)
        elif answering.quotes or evidence is Evidence.NEAR:
            await quote_answer(answering, evidence, ends=FinishReason.STOP, priority=place.priority)
        else:
            await write_answer(answering, place)


def evidence_without_model(answering: Answering, unknown: float) -> Evidence | None:
    """Return the answerability if no probe of the model is needed."""
    turn, services = answering.turn, answering.services
    if answering.live.output:
        return Evidence.CERTAIN
    return answerability.evidence_of_search(turn.found.hits, unknown, turn.language, services.answerability())


async def ask_for_evidence(answering: Answering, unknown: float, *, priority: int) -> Evidence:
    """Return the answerability, by retrieval and one probed token per passage."""
    turn, state, services = answering.turn, answering.state, answering.services
    weights, score = services.answerability(), 0.0
    with tracer.start_as_current_span("probe") as span:
        for probe in turn.prompt.probes:
            yes, _ = await services.models.choice_probabilities(
                probe,
                YES_OR_NO,
                conversation_id=turn.conversation.id,
                cache_salt=services.cache_salt(turn.who.tenant),
                priority=priority,
            )
            state.charge(probe)
            state.probes = (*state.probes, yes)
            score = answerability.score(turn.found.hits, state.probes, unknown, turn.language, weights)
            if answerability.settled(score, weights):
                break
        span.set_attributes({"probe.said": state.probes, "probe.unknown": unknown, "probe.judged": score})
    return answerability.evidence(score, weights)


async def write_answer(answering: Answering, place: Place) -> None:
    """Emit the model's text that passes the checks, or quotes if none does."""
    checks = answering.checks()
    await stream_answer(checks, answering, place)
    await conclude(checks, answering, priority=place.priority)
    ask_the_shadow(answering)


async def quote_answer(answering: Answering, evidence: Evidence, *, ends: FinishReason, priority: int) -> None:
    """Emit quotes of the passages, and end the answer with `ends`."""
    quoted = await quote(answering, evidence, ends=ends, priority=priority)
    if answering.state.finish_reason is FinishReason.HANDOFF:
        answering.show_canned_reply(CannedReply.EMERGENCY)
    elif quoted.events:
        answering.show_quotes(quoted)
    else:
        answering.show_canned_reply(CannedReply.CANNOT_VERIFY)


async def quote(answering: Answering, evidence: Evidence, *, ends: FinishReason, priority: int) -> QuotedAnswer:
    """Return the answer that quotes, and let it end as `ends` says, or be handed to a person if it is revoked.

    Until then it ends as cancelled.
    """
    state, ranked = answering.state, ranked_units(answering.turn)
    if (repeated := shown_before(ranked, answering, certain=evidence is Evidence.CERTAIN)) is not None:
        state.finish_reason = ends
        return repeated
    state.finish_reason = FinishReason.CANCELLED
    if asks_two_things(answering.turn.question):
        chosen = ranked[:2]
    elif not is_close(ranked):
        chosen = ranked[:1]
    elif (
        evidence is Evidence.CERTAIN
        and may_choose(answering.services.models.pool.prefill_rate)
        and ends is not FinishReason.BUDGET
    ):
        chosen = await choose(ranked[:CHOSEN_FROM], answering, priority=priority)
    else:
        chosen = ranked[:2]
    shown = answering.turn.shown_before
    if all(unit.text in shown for unit in chosen):  # a follow-up is not answered with the previous answer alone
        chosen = (*chosen, *[unit for unit in ranked if unit.text not in shown][:1])
    state.finish_reason = FinishReason.HANDOFF if answering.revoked() else ends
    return quoted_answer(chosen, answering.turn, certain=evidence is Evidence.CERTAIN)


def shown_before(ranked: Sequence[Candidate], answering: Answering, *, certain: bool) -> QuotedAnswer | None:
    """Return the quotes that the previous writer emitted, if any: a successor does not call the model again."""
    most = ranked[:CHOSEN_FROM]
    choices = [*((unit,) for unit in most), *permutations(most, 2)]
    answers = (quoted_answer(choice, answering.turn, certain=certain) for choice in choices)
    return next((shown for shown in answers if answering.live.log_ends_with(shown.events)), None)


async def choose(ranked: Sequence[Candidate], answering: Answering, *, priority: int) -> tuple[Candidate, ...]:
    """Return the units that answer the question, by the ranking and the model; by the ranking without a model."""
    turn, services, state = answering.turn, answering.services, answering.state
    prompts = choice_prompts(
        ranked,
        services.prompts,
        question=turn.question,
        before=turn.prompt.before,
        passages=turn.prompt_passages,
        language=turn.language,
    )
    choices: list[tuple[float, ...]] = []
    with tracer.start_as_current_span("choose") as span:
        try:
            for prompt in prompts:
                shares = await services.models.choice_probabilities(
                    prompt,
                    number_choices(len(ranked)),
                    conversation_id=turn.conversation.id,
                    cache_salt=services.cache_salt(turn.who.tenant),
                    priority=priority,
                    least_mass=LEAST_CHOICE_MASS,
                )
                state.charge(prompt)
                choices.append(shares)
        except (ModelUnavailable, Overloaded, TooLarge) as exc:
            log.warning("choice_skipped", answer_id=turn.answer_id, error=exc.code)
            return tuple(ranked[:2])
        shares = posterior(ranked, in_ranked_order(choices))
        span.set_attribute("choice.shares", shares)
    state.choice = Choice(prompts_json(prompts), tuple(choices[0]))
    return chosen_units(ranked, shares)


async def stream_answer(checks: GroundingStream, answering: Answering, place: Place) -> None:
    """Stream the model's tokens through the checks, until it is done or the reservation used up."""
    turn, state, services = answering.turn, answering.state, answering.services
    partial_answer = answering.partial_answer()
    answering.show(checks.feed(partial_answer.text))
    state.begin_after(partial_answer, turn)
    reservation = turn.reservation
    stream = services.models.stream(
        turn.prompt.answer,
        sampling=turn.sampling,
        conversation_id=turn.conversation.id,
        cache_salt=services.cache_salt(turn.who.tenant),
        priority=place.priority,
        partial_answer=partial_answer,
    )
    async with aclosing(stream) as parts:
        async for part in parts:
            if not isinstance(part, Delta | Thought):
                handle_part(part, answering)
                continue
            if not place.has_first_token:
                services.admission.record_first_token(place)
            answering.take(part, checks)
            if state.usage.answer_tokens + state.usage.thinking_tokens >= reservation.answer_tokens:
                extended = await services.ledger.extend(reservation, more_tokens=services.settings.extension_tokens)
                if extended is None:
                    state.finish_reason = FinishReason.BUDGET
                    break
                reservation = extended
    answering.show(checks.close())


def handle_part(part: Switched | NotResumable | ModelDone, answering: Answering) -> None:
    """Handle a non-text part of the model's stream: record it, and notify the customer."""
    match part:
        case Switched(group=group):
            answering.degrade(DegradationLevel.FALLBACK if group == "fallback" else DegradationLevel.REPLICA)
        case NotResumable():
            answering.notify_once(NoticeCode.NOT_RESUMABLE)
        case ModelDone():
            answering.state.model_done(part)


async def conclude(checks: GroundingStream, answering: Answering, *, priority: int) -> None:
    """Decide how the answer ends: grounded, refused by the model itself, or withheld by the checks and quoted."""
    state = answering.state
    state.withheld, state.grounded = checks.withheld, checks.grounded
    if checks.withheld_whole:
        await quote_answer(answering, Evidence.CERTAIN, ends=state.finish_reason, priority=priority)
        if state.finish_reason is FinishReason.REFUSED:
            state.finish_reason = FinishReason.WITHHELD
    elif not checks.text.strip():
        answering.show_canned_reply(CannedReply.CANNOT_VERIFY)
    elif not checks.cited:
        state.finish_reason = FinishReason.REFUSED


def ask_the_shadow(answering: Answering) -> None:
    """Send the prompt to the shadow model, unless the answer is revoked; its output is never shown."""
    turn, services = answering.turn, answering.services
    if not answering.revoked():
        services.shadow.follow(
            turn.prompt.answer,
            answering.checks(),
            sampling=turn.sampling,
            conversation_id=turn.conversation.id,
            cache_salt=services.cache_salt(turn.who.tenant),
            within=answering.until_revoked,
        )


async def answer_without_a_model(exc: ChatError, answering: Answering) -> None:
    """Answer without a model: from the cache on the same basis, or by quotes and a hand-off."""
    state = answering.state
    if state.text:
        state.error = exc
        return
    state.usage = Usage()  # what no model generated is not charged
    if await answer_from_cache(answering):
        return
    if answering.revoked():
        answering.show_canned_reply(CannedReply.EMERGENCY)
        return
    quoted = quoted_answer(ranked_units(answering.turn)[:1], answering.turn, certain=True)
    answering.degrade(DegradationLevel.QUOTED if quoted.text else DegradationLevel.HANDOFF)
    answering.show_quotes(quoted)
    answering.show_canned_reply(CannedReply.UNAVAILABLE)
    state.grounded, state.missing = state.quoted, exc.code


async def answer_from_cache(answering: Answering) -> bool:
    """Emit the cached answer to the same question on the same passages; return whether it was cached."""
    turn, state, services = answering.turn, answering.state, answering.services
    if not may_be_cached(turn):
        return False
    cached = await services.answer_cache.find(basis(turn, services.versions))
    if cached is None or answering.revoked():
        return False
    if services.models.counter.count(cached.text) > turn.max_answer_tokens:
        return False
    answering.degrade(DegradationLevel.CACHED)
    answering.show([Token(text=cached.text), *cached.citations])
    state.finish_reason, state.grounded, state.cached_answer_id = FinishReason.STOP, True, cached.answer_id
    state.quoted = cached.result.quoted
    return True


MOST_RELATED = 3
"""Passages that are shown in place of an answer."""


def accepted(turn: Turn, versions: Versions) -> Accepted:
    """Return the first event of the stream."""
    return Accepted(
        answer_id=turn.answer_id,
        conversation_id=turn.conversation.id,
        question_id=turn.question_id,
        model=versions.model,
        prompt_version=versions.prompt,
        trace_id=turn.trace_id,
        understood_as=turn.found.standalone,
    )
