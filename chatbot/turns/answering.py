"""Answer an opened turn: `answer` runs in the application's task group and emits the events that connections read."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import anyio
import structlog
from msgspec.structs import replace
from opentelemetry import trace

from chatbot import answerability
from chatbot.admission import Place
from chatbot.answerability import Evidence
from chatbot.chat import Chat
from chatbot.errors import AuditUnavailable, ChatError, IndexUnavailable, ModelUnavailable, Overloaded, TooLarge
from chatbot.events import (
    PROGRESS,
    Accepted,
    Citation,
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
    Choices,
    Delta,
    ModelDone,
    NotResumable,
    Switched,
    Thought,
    number_choices,
    read_output,
)
from chatbot.notices import DegradationLevel, degradation_notice, notice
from chatbot.questions import HANDOFFS, CannedReply, canned_reply
from chatbot.quotes import Candidate, asks_two_things, close_candidates, nearest_unit, quoting_answer, rank
from chatbot.records import AnswerResult
from chatbot.services import Services
from chatbot.streams import LiveAnswer
from chatbot.turns.closing import finish
from chatbot.turns.quoting import CHOSEN_FROM, choice_prompts, chosen_units, may_choose
from chatbot.turns.state import Turn, shown_events, sources, text_of
from knowledge.profiles import AnswerMode

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

_MOST_RELATED = 3
"""The most passages that are shown in place of an answer."""


@dataclass(slots=True)
class Answering:
    """An answer in progress: it emits its events through `live` and collects its outcome in `result`."""

    turn: Turn
    live: LiveAnswer
    services: Services
    result: AnswerResult = field(default_factory=AnswerResult)
    first_token_at: float | None = None
    """Monotonic time in seconds of the first published text."""
    text_emitted: bool = False
    """Whether this writer has emitted text, new or repeated from the log."""
    progress_shown: set[NoticeCode] = field(default_factory=set)

    @classmethod
    def of(cls, turn: Turn, live: LiveAnswer, services: Services) -> "Answering":
        """Return a new answer; for a successor, with the usage and the progress notices of the previous writer."""
        usage = logged_usage(turn, live) if live.output else Usage()
        shown_codes = {event.code for event in live.published_events if isinstance(event, Notice)}
        return cls(turn, live, services, AnswerResult(usage=usage), progress_shown=shown_codes & PROGRESS)

    @property
    def ranked_units(self) -> tuple[Candidate, ...]:
        """The quotable unit of each passage in the prompt, the likeliest answer to the question first."""
        turn = self.turn
        return rank(turn.question, turn.search.hits[: turn.prompt.passages], turn.language, turn.quoted_before)

    @property
    def model_chooses_unit(self) -> bool:
        """Whether the model chooses what is quoted: several units rank close, and the model is fast enough."""
        has_choice = len(close_candidates(self.ranked_units)) > 1 and not asks_two_things(self.turn.question)
        return has_choice and may_choose(self.services.models.pool.prefill_rate)

    def update(self, **fields: Any) -> None:
        """Set fields of the result."""
        self.result = replace(self.result, **fields)

    def degrade(self, level: DegradationLevel) -> None:
        """Record the degradation level and show its notice."""
        self.result = self.result.degraded_to(level)
        self.show([degradation_notice(level, self.turn.language)])

    def show(self, events: Sequence[Event], *, output: bytes = b"") -> None:
        """Emit events, with the model output they come from."""
        new_events = self.live.emit(*events, output=output)
        if any(isinstance(event, Token) for event in events):
            self.text_emitted = True
        if self.first_token_at is None and any(isinstance(event, Token) for event in new_events):
            self.first_token_at = time.monotonic()

    def notify_once(self, code: NoticeCode) -> None:
        """Emit a progress notice, unless the answer has shown it before."""
        if code not in self.progress_shown:
            self.progress_shown.add(code)
            self.live.emit(notice(code, self.turn.language))

    def handle_part(self, part: Delta | Thought | Switched | NotResumable | ModelDone, checks: GroundingStream) -> None:
        """Record a part of the model's stream and its usage, and emit its checked text or its notice."""
        usage = self.result.usage
        match part:
            case Delta():
                self.update(usage=replace(usage, answer_tokens=usage.answer_tokens + part.tokens))
                self.show(checks.feed(part.text), output=part.output)
            case Thought():
                self.update(usage=replace(usage, thinking_tokens=usage.thinking_tokens + part.tokens))
                self.notify_once(NoticeCode.THINKING)
            case Switched():
                self.degrade(DegradationLevel.FALLBACK if part.group == "fallback" else DegradationLevel.REPLICA)
            case NotResumable():
                self.notify_once(NoticeCode.NOT_RESUMABLE)
            case ModelDone():
                self.update(usage=part.usage, models=part.models, unpaid_tokens=part.unpaid_tokens)
                self.update(finish_reason=FinishReason(part.finish_reason))
                if part.retried:
                    self.result = self.result.degraded_to(DegradationLevel.REPLICA)

    def show_canned_reply(self, reply: CannedReply) -> None:
        """Emit one of the bank's canned replies, which is neither cited nor grounded, as the end of the answer."""
        text = canned_reply(reply, self.turn.language, self.services.banks.of(self.turn.who.tenant))
        follows_logged_text = not self.live.is_repeating and text_of(self.live.published_events) != ""
        if self.text_emitted or follows_logged_text:
            text = f"\n\n{text}"
        self.show([Token(text=text)])
        missing = ""
        if reply is CannedReply.UNAVAILABLE:
            missing = IndexUnavailable.code
        elif reply is CannedReply.EMERGENCY and not self.services.withdrawals.readable():
            missing = AuditUnavailable.code
        finish_reason = FinishReason.HANDOFF if reply in HANDOFFS else FinishReason.REFUSED
        self.update(finish_reason=finish_reason, missing=missing, grounded=False)

    def show_quotes(self, quotes: Sequence[Event]) -> None:
        """Emit quotes as the whole answer, and record it as grounded."""
        self.show(quotes)
        self.update(finish_reason=FinishReason.STOP, grounded=True, quoted=True)

    def show_related(self) -> None:
        """Emit the passages nearest to a question that is not answered, if there are any."""
        query = self.turn.search.query or self.turn.question
        items = []
        for n, passage in enumerate(self.turn.prompt_passages[:_MOST_RELATED], 1):
            quote = nearest_unit(query, passage)
            if quote:
                items.append(RelatedPassage.of(n, passage, quote=quote))
        if items:
            self.show([Related(items=tuple(items))])

    def is_revoked(self) -> bool:
        """Return whether an emergency stop or the withdrawal of a passage forbids the answer."""
        withdrawals, now = self.services.withdrawals, self.services.now()
        if not withdrawals.may_answer(self.turn.who.tenant):
            return True
        return any(withdrawals.has_withdrawn(hit.passage, now=now) for hit in self.turn.search.hits)

    @contextmanager
    def until_revoked(self) -> Iterator[anyio.CancelScope]:
        """Cancel the block when the answer is revoked, even if the model sends nothing.

        The answer is revoked at the first end of a passage's validity, or by a change of the withdrawals.
        """
        validity_ends = (hit.passage.visible_until for hit in self.turn.search.hits)
        first_end = min((end for end in validity_ends if end is not None), default=math.inf)
        scope = anyio.move_on_after(first_end - self.services.now())

        def cancel_if_revoked() -> None:
            if self.is_revoked():
                scope.cancel()

        with scope, self.services.withdrawals.notifying(cancel_if_revoked):
            cancel_if_revoked()
            yield scope


async def answer(turn: Turn, live: LiveAnswer, place: Place, services: Services) -> None:
    """Answer the turn, from its place in the queue; every path ends in `finish`.

    A successor runs the same steps again and continues after the logged tokens; no event is published twice.
    """
    answering = Answering.of(turn, live, services)
    try:
        await emit_answer(answering, place)
    except ChatError as exc:
        answering.update(error=exc.code, retry_after=exc.retry_after)
    except Exception:
        log.exception("answer_failed", answer_id=turn.answer_id)
        answering.update(error=ChatError.code)
    finally:
        services.admission.leave(place)
        await finish(turn, live, answering.result, services, first_token_at=answering.first_token_at)


async def emit_answer(answering: Answering, place: Place) -> None:
    """Emit all events of the answer except the final one; if no model is available, a quote and a hand-off."""
    turn, live = answering.turn, answering.live
    try:
        versions = answering.services.versions
        accepted = Accepted(
            answer_id=turn.answer_id,
            conversation_id=turn.conversation_id,
            question_id=turn.question_id,
            model=versions.model,
            prompt_version=versions.prompt,
            trace_id=turn.trace_id,
            understood_as=turn.search.standalone,
        )
        live.emit(accepted, *turn.notices, sources(turn))
        if turn.reply is not None:
            answering.show_canned_reply(turn.reply)
        else:
            with answering.until_revoked() as scope:
                await answer_from_passages(answering, place)
            if scope.cancelled_caught:
                live.stop_repeating()  # a successor may be cancelled before it has repeated the whole log
                answering.show_canned_reply(CannedReply.EMERGENCY)
            elif answering.result.finish_reason in {FinishReason.REFUSED, FinishReason.WITHHELD}:
                answering.show_related()
        live.check_all_repeated()
    except (ModelUnavailable, Overloaded) as exc:
        answer_without_a_model(exc, answering)


async def answer_from_passages(answering: Answering, place: Place) -> None:
    """Quote or write the answer, as the evidence allows; wait for a model slot only if the model is needed."""
    turn, live, services = answering.turn, answering.live, answering.services
    previous_quotes = logged_quotes(turn, live)
    if previous_quotes:
        answering.show_quotes(previous_quotes)
        return

    def show_place(position: int, seconds: float) -> None:
        live.emit(Queued(position=position, estimated_wait_ms=round(seconds * 1000)))

    unknown_share = await services.retrieval.unknown_share(turn.question, turn.search, tenant=turn.who.tenant)
    if live.output:
        known_evidence: Evidence | None = Evidence.CERTAIN  # a model writes only with certain evidence
    else:
        known_evidence = answerability.evidence_of_search(
            turn.search.hits, unknown_share, turn.language, services.answerability()
        )
    is_written = turn.answer is AnswerMode.WRITTEN
    slot = services.admission.slot(
        place, prompt_tokens=turn.prompt.tokens, answer_tokens=turn.reservation.answer_tokens, on_wait=show_place
    )
    if known_evidence is Evidence.CERTAIN:
        needs_model = is_written or answering.model_chooses_unit
    else:
        needs_model = known_evidence is None
    async with slot if needs_model else nullcontext():
        evidence = known_evidence or await probe_evidence(answering, unknown_share, place)
        if evidence is Evidence.NONE:
            answering.show_canned_reply(CannedReply.CANNOT_VERIFY)
        elif is_written and evidence is Evidence.CERTAIN:
            await write_answer(answering, place)
        else:
            await quote_answer(answering, place, is_certain=evidence is Evidence.CERTAIN)


async def probe_evidence(answering: Answering, unknown_share: float, place: Place) -> Evidence:
    """Return the evidence level: ask the model about one passage after the other until the level is certain."""
    turn = answering.turn
    weights = answering.services.answerability()
    score = 0.0
    with tracer.start_as_current_span("probe") as span:
        for probe in turn.prompt.probes:
            yes, _ = await probabilities(answering, place, probe, YES_OR_NO)
            answering.update(probes=(*answering.result.probes, yes))
            score = answerability.score(
                turn.search.hits, answering.result.probes, unknown_share, turn.language, weights
            )
            only_first_counts = weights.likeliest == 0
            if score >= weights.threshold or only_first_counts:
                break
        span.set_attributes(
            {"probe.yes": answering.result.probes, "probe.unknown": unknown_share, "probe.score": score}
        )
    return answerability.evidence_of_score(score, weights)


async def probabilities(
    answering: Answering, place: Place, prompt: Chat, choices: Choices, least_mass: float = 0.0
) -> tuple[float, ...]:
    """Return the model's probability of each choice as the next token; charge the prompt and one token."""
    shares = await answering.services.models.choice_probabilities(
        prompt,
        choices,
        conversation_id=answering.turn.conversation_id,
        cache_salt=answering.services.cache_salt(answering.turn.who.tenant),
        priority=place.priority,
        least_mass=least_mass,
    )
    usage = answering.result.usage
    answering.update(
        usage=replace(usage, prompt_tokens=usage.prompt_tokens + prompt.tokens, answer_tokens=usage.answer_tokens + 1)
    )
    return shares


async def quote_answer(answering: Answering, place: Place, *, is_certain: bool) -> None:
    """Quote the units that rank close; if the evidence `is_certain`, a fast model may choose among the first three."""
    turn, ranked = answering.turn, answering.ranked_units
    if not ranked:
        answering.show_canned_reply(CannedReply.CANNOT_VERIFY)
        return
    if is_certain and answering.model_chooses_unit:
        chosen = await choose_units(ranked[:CHOSEN_FROM], answering, place)
    else:
        chosen = close_candidates(ranked)
        if len(chosen) < 2 and asks_two_things(turn.question):
            chosen = ranked[:2]
    if all(unit.text in turn.quoted_before for unit in chosen):  # a follow-up asks for more than the previous answer
        not_quoted_before = tuple(unit for unit in ranked if unit.text not in turn.quoted_before)
        chosen += not_quoted_before[:1]
    answering.show_quotes(quoting_answer(chosen, turn.prompt_passages, turn.language, is_certain=is_certain).events)


async def choose_units(ranked: tuple[Candidate, ...], answering: Answering, place: Place) -> tuple[Candidate, ...]:
    """Return the units likeliest by the ranking and the model; if the model fails, the units that rank close."""
    turn = answering.turn
    prompts = choice_prompts(
        ranked, answering.services.prompts, turn.question, turn.prompt.before, turn.prompt_passages, turn.language
    )
    numbers = number_choices(len(ranked))
    with tracer.start_as_current_span("choose"):
        try:
            choices = [await probabilities(answering, place, prompt, numbers, LEAST_CHOICE_MASS) for prompt in prompts]
        except (ModelUnavailable, Overloaded, TooLarge) as exc:
            log.warning("quote_choice_skipped", answer_id=turn.answer_id, error=exc.code)
            return close_candidates(ranked)
    answering.update(choice=choices[0])
    return chosen_units(ranked, choices)


async def write_answer(answering: Answering, place: Place) -> None:
    """Emit the model's text as far as it passes the checks, and record how it ends."""
    turn, bank = answering.turn, answering.services.banks.of(answering.turn.who.tenant)
    checks = GroundingStream(turn.prompt_passages, question=turn.question, language=turn.language, bank=bank)
    await stream_answer(checks, answering, place)
    answering.update(withheld=checks.withheld, grounded=checks.grounded)
    if not checks.text.strip():
        answering.show_canned_reply(CannedReply.CANNOT_VERIFY)
        if checks.withheld:
            answering.update(finish_reason=FinishReason.WITHHELD)
    elif not checks.cited:
        answering.update(finish_reason=FinishReason.REFUSED)


async def stream_answer(checks: GroundingStream, answering: Answering, place: Place) -> None:
    """Stream the model's tokens through the checks, until the model is done or the caller's allowance is used up."""
    turn, services, reservation = answering.turn, answering.services, answering.turn.reservation
    partial_answer = read_output(answering.live.output)
    answering.show(checks.feed(partial_answer.text))
    answering.update(usage=logged_usage(turn, answering.live))
    stream = services.models.stream(
        turn.prompt.answer,
        sampling=turn.sampling,
        conversation_id=turn.conversation_id,
        cache_salt=services.cache_salt(turn.who.tenant),
        priority=place.priority,
        partial_answer=partial_answer,
    )
    async with aclosing(stream) as parts:
        async for part in parts:
            answering.handle_part(part, checks)
            if not isinstance(part, Delta | Thought):
                continue
            services.admission.record_first_token(place)
            if answering.result.usage.generated_tokens >= reservation.answer_tokens:
                extended = await services.ledger.extend(reservation, more_tokens=services.settings.extension_tokens)
                if extended is None:
                    answering.update(finish_reason=FinishReason.BUDGET)
                    break
                reservation = extended
    answering.show(checks.close())


def logged_usage(turn: Turn, live: LiveAnswer) -> Usage:
    """Return the usage of the answer's prompt and of the logged output.

    The probes are not added: their prompts are the beginning of the answer's prompt, which is charged once.
    """
    logged = read_output(live.output)
    return Usage(prompt_tokens=turn.prompt.tokens, answer_tokens=logged.tokens, thinking_tokens=logged.prompt.thinking)


def answer_without_a_model(exc: ChatError, answering: Answering) -> None:
    """Answer with a quote and a hand-off; raise the model's error if the answer already has text."""
    turn = answering.turn
    if answering.text_emitted or text_of(answering.live.published_events):
        raise exc
    answering.update(usage=Usage())  # a failed model is not charged
    if answering.is_revoked():
        answering.show_canned_reply(CannedReply.EMERGENCY)
        return
    quote = quoting_answer(answering.ranked_units[:1], turn.prompt_passages, turn.language, is_certain=True)
    has_quote = quote.text != ""
    answering.degrade(DegradationLevel.QUOTED if has_quote else DegradationLevel.HANDOFF)
    answering.show(quote.events)
    answering.show_canned_reply(CannedReply.PERSON if has_quote else CannedReply.UNAVAILABLE)
    answering.update(grounded=has_quote, quoted=has_quote, missing=exc.code)


def logged_quotes(turn: Turn, live: LiveAnswer) -> Sequence[Event]:
    """Return the events of the previous writer's answer if it consists of quotes; otherwise no events."""
    logged = shown_events(turn, live.published_events)
    only_quotes = all(isinstance(event, Token | Citation) for event in logged)
    has_citation = any(isinstance(event, Citation) for event in logged)
    return logged if only_quotes and has_citation and not live.output else ()
