"""One turn of a conversation, top to bottom: `open_turn` may still refuse, `answer` speaks, `finish` settles.

`open_turn` runs before the first byte; whatever it raises becomes a status. `answer` runs in the application's task
group and only puts events; connections read them. `finish` runs once, shielded, however the answer ended, and the last
event is put after everything is settled, so that a quick customer finds the history written.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from uuid import uuid4

import anyio
import structlog
from opentelemetry import trace

from chatbot import answerability
from chatbot.admission import Place
from chatbot.conversations import Conversation, HistoryMessage, Owner, StoredMessage, path_to, window
from chatbot.errors import (
    AuditUnavailable,
    ChatError,
    IndexUnavailable,
    ModelUnavailable,
    NotFound,
    Overloaded,
    StoreUnavailable,
    TooLarge,
)
from chatbot.events import Event, FinishReason, Limits, NoticeCode, Queued, Token, Usage
from chatbot.grounding import GroundingStream, QuotedAnswer, grounding_stream, quote_passages
from chatbot.limits import Caller, Reservation
from chatbot.models import LEAST_CHOICE_MASS, YES_OR_NO, Delta, ModelDone, Switched, number_choices
from chatbot.notices import DegradationLevel, notice, notice_of
from chatbot.prompt import Prompt
from chatbot.questions import (
    CannedReply,
    ScreenedQuestion,
    Verdict,
    canned_reply,
    excluded_topic,
    screen,
    screened_messages,
)
from chatbot.retrieval import SearchResult
from chatbot.services import Services
from chatbot.streams import AnswerId, LiveAnswer
from chatbot.tokenizer import Message
from chatbot.transcript import (
    FINISH,
    AnswerState,
    Question,
    Repair,
    Turn,
    accepted,
    answered,
    asked,
    audit_closed,
    audit_opened,
    basis,
    last_event,
    may_be_cached,
    record,
    sources,
    to_be_cached,
)
from knowledge.access import Access
from knowledge.identity import Principal
from knowledge.passage import Language, Passage, language_of
from telemetry.setup import current_trace_id

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)


# --- before the first byte -------------------------------------------------------------------------------------------


async def open_turn(question: Question, who: Principal, services: Services) -> Turn:
    """Decide everything that may still refuse, reserve its tokens and record that it begins.

    Raises:
        ChatError: whatever the status should be; nothing is reserved or recorded then.
    """
    conversation = await load_conversation(question, who, services)
    screened = screen(question.text)
    language = language_of(screened.text)
    branch = branch_of(conversation, question)
    said: list[HistoryMessage] = [*branch, *screened_messages(question.earlier)]
    found, reply = await retrieve(screened, said, who, services)
    prompt = build_prompt(screened.text, said, found, language, services)
    answer_tokens = await services.ledger.expected_answer_tokens(who.tenant, question.max_answer_tokens)
    reservation = await services.ledger.reserve(
        Caller.of(who, services.models.model),
        prompt_tokens=0 if reply else len(prompt.answer_ids),
        answer_tokens=answer_tokens,
        lease_seconds=services.settings.longest_answer,
    )
    turn = Turn(
        answer_id=AnswerId(uuid4().hex),
        question_id=question.id or uuid4().hex,
        conversation=conversation,
        parent_id=branch[-1].id if branch else None,
        who=who,
        screened=screened,
        language=language,
        found=found,
        prompt=prompt,
        reply=reply,
        reservation=reservation,
        max_answer_tokens=question.max_answer_tokens,
        temperature=services.settings.again_temperature if question.id else services.settings.temperature,
        notices=(notice(NoticeCode.MASKED, language),) if screened.masked else (),
        trace_id=current_trace_id(),
        opened_at=time.monotonic(),
        is_first=not said and question.id is None,
        brought=len(said) - len(branch),
    )
    try:
        recorded = await record_opening(turn, services)
    except BaseException:
        with anyio.move_on_after(1, shield=True), suppress(StoreUnavailable):  # what failed first is what is told
            await services.ledger.settle(reservation, Usage())
        raise
    return (
        turn if recorded else replace(turn, notices=(*turn.notices, notice(NoticeCode.HISTORY_UNAVAILABLE, language)))
    )


async def load_conversation(question: Question, who: Principal, services: Services) -> Conversation:
    """Return the conversation that the question goes on with, or a new one; without Redis an empty one.

    Raises:
        NotFound: there is no such conversation, or it is somebody else's.
    """
    owner, asked_for, now = Owner(who.tenant, who.sub), question.conversation_id, services.now()
    if asked_for is None:
        return Conversation.new(services.conversation_ids.new(owner, now=now), now=now)
    try:
        if services.conversation_ids.may_begin(owner, asked_for, now=now):  # its first question was not kept
            return await services.history.load_or_begin(owner, asked_for, now=now)
        return await services.history.load(owner, asked_for)
    except StoreUnavailable:
        return Conversation.new(asked_for, now=now)


def branch_of(conversation: Conversation, question: Question) -> tuple[StoredMessage, ...]:
    """Return the messages that lead to the question: up to its parent, or to the newest answer.

    A question that is still being answered is nobody's parent: one asked meanwhile begins a branch beside it.

    Raises:
        NotFound: the conversation has no such parent.
    """
    answers = [message.id for message in conversation.messages if message.role == "assistant"]
    newest = answers[-1] if answers and question.id is None else None
    branch = path_to(conversation.messages, question.parent_id or newest)
    asked_before = question.id is not None or not conversation.messages  # then nothing older need be kept
    if question.parent_id is not None and not branch and not asked_before:
        raise NotFound("the conversation has no such message")
    return branch


async def retrieve(
    screened: ScreenedQuestion, said: Sequence[HistoryMessage], who: Principal, services: Services
) -> tuple[SearchResult, CannedReply | None]:
    """Return the passages that the caller may read, or what to say where no answer should be tried."""
    as_of = services.now()
    nothing = SearchResult(hits=(), as_of=as_of)
    if services.withdrawals.stopped() or not services.withdrawals.readable():
        return nothing, CannedReply.EMERGENCY
    if screened.verdict is not Verdict.OK:
        return nothing, CannedReply(screened.verdict)
    if (why := excluded_topic(screened.text, services.bank_names)) is not None:
        return nothing, CannedReply(why)
    earlier = [message.text for message in said if message.role == "user"]
    try:
        found = await services.retrieval.search(
            screened.text, earlier=earlier, access=Access(tenant=who.tenant, groups=who.groups, as_of=as_of)
        )
    except IndexUnavailable:
        log.warning("index_unavailable")
        return nothing, CannedReply.UNAVAILABLE
    # The index may be told of a withdrawal later than the table that every replica reads.
    found = replace(found, hits=tuple(hit for hit in found.hits if not taken_back(hit.passage, who, services)))
    if answerability.nothing_near(found.hits, services.settings.answerability):
        return found, CannedReply.CANNOT_VERIFY
    return found, None


def build_prompt(
    question: str, said: Sequence[HistoryMessage], found: SearchResult, language: Language, services: Services
) -> Prompt:
    """Return the prompt, with as much of the history as its budget allows, newest first."""
    recent = window(said, services.models.tokenizer.count, services.settings.history_tokens)
    return services.prompts.build(
        question,
        history=[Message(message.role, message.text) for message in recent],
        passages=[hit.passage for hit in found.hits],
        language=language,
    )


async def record_opening(turn: Turn, services: Services) -> bool:
    """Make the audit row and the question durable before any model is called; return whether the history has it.

    A question that is answered again is kept again, under its id: with it, where the answer is that runs now.

    Raises:
        AuditUnavailable: no answer goes unaudited.
    """
    await services.audit.open(audit_opened(turn, services))
    return await remember(turn, asked(turn, services), services)


async def remember(turn: Turn, message: StoredMessage, services: Services) -> bool:
    """Append a message to the history; return whether it is there: without Redis the answer goes on."""
    owner = Owner(turn.who.tenant, turn.who.sub)
    try:
        await services.history.append(owner, turn.conversation.id, [message], now=services.now())
    except StoreUnavailable:
        log.warning("history_unavailable", answer_id=turn.answer_id)
        return False
    return True


# --- the answer ------------------------------------------------------------------------------------------------------


async def answer(turn: Turn, running: LiveAnswer, place: Place, services: Services) -> None:
    """Answer the turn, from its place in the queue; every way out leads through `finish`.

    A successor goes the same way once more, after the tokens that are in the log: what `running` has already is not
    put again.
    """
    draft = AnswerState.of(turn, running)
    try:
        running.put(accepted(turn, services), *turn.notices, sources(turn))
        if turn.reply is not None:
            say(turn.reply, turn, running, draft, services)
        else:
            with until_revoked(turn, services) as asking:
                await ask_the_model(turn, running, draft, place, services)
            if asking.cancelled_caught:
                say(CannedReply.EMERGENCY, turn, running, draft, services)
        running.check_repeated()
    except (ModelUnavailable, Overloaded) as exc:
        await answer_without_a_model(exc, turn, running, draft, services)
    except ChatError as exc:
        draft.error = exc
    except Exception:
        log.exception("answer_failed", answer_id=turn.answer_id)
        draft.error = ChatError()
    finally:
        services.admission.leave(place)
        await finish(turn, running, draft, services)


async def ask_the_model(turn: Turn, running: LiveAnswer, draft: AnswerState, place: Place, services: Services) -> None:
    """Wait for a slot, ask whether the passages hold the answer, and if so stream it through the checks."""

    def show_place(position: int, seconds: float) -> None:
        running.put(Queued(position=position, estimated_wait_ms=round(seconds * 1000)))

    slot = services.admission.slot(
        place,
        prompt_tokens=len(turn.prompt.answer_ids),
        answer_tokens=turn.reservation.answer_tokens,
        on_wait=show_place,
    )
    async with slot:
        if running.token_ids or await answerable(turn, draft, place, services):
            await stream_answer(turn, running, draft, place, services)
        else:
            say(CannedReply.CANNOT_VERIFY, turn, running, draft, services)


async def answerable(turn: Turn, draft: AnswerState, place: Place, services: Services) -> bool:
    """Return whether the passages hold the answer, by retrieval and one token of the model a passage.

    Passage by passage, until one is enough: most answers stand in the first.
    """
    if not services.settings.probes:
        return True
    settings, judged = services.settings.answerability, 0.0
    said: list[float] = []
    unknown = await services.retrieval.unknown_share(turn.screened.text, turn.found)
    with tracer.start_as_current_span("probe") as span:
        for probe in turn.prompt.probes:
            yes, _ = await services.models.choice_probabilities(
                probe,
                YES_OR_NO,
                conversation_id=turn.conversation.id,
                cache_salt=services.cache_salt(turn.who.tenant),
                priority=place.priority,
            )
            said.append(yes)
            draft.probes = (*draft.probes, yes)
            judged = answerability.score(turn.found.hits, said, unknown, turn.language, settings)
            if judged >= settings.threshold:
                break
        span.set_attributes({"probe.said": said, "probe.unknown": unknown, "probe.judged": judged})
    return judged >= settings.threshold


async def stream_answer(turn: Turn, running: LiveAnswer, draft: AnswerState, place: Place, services: Services) -> None:
    """Stream the model's tokens through the citation checks into the log, never past what is reserved."""
    checks = checks_of(turn, services)
    said = tuple(running.token_ids)
    show(checks.feed(services.models.tokenizer.decode(said)), running, draft)
    draft.usage = Usage(prompt_tokens=len(turn.prompt.answer_ids), answer_tokens=len(said))
    reservation: Reservation | None = turn.reservation
    stream = services.models.stream(
        turn.prompt.answer,
        sampling=turn.sampling,
        conversation_id=turn.conversation.id,
        cache_salt=services.cache_salt(turn.who.tenant),
        priority=place.priority,
        said=said,
    )
    async with aclosing(stream) as deltas:
        async for delta in deltas:
            match delta:
                case Delta():
                    services.admission.first_token(place)
                    draft.count(delta)
                    running.add_token_ids(delta.token_ids)
                    show(checks.feed(delta.text), running, draft)
                    reservation = await within_reservation(reservation, draft, services)
                case Switched():
                    descend(
                        DegradationLevel.FALLBACK if delta.group == "fallback" else DegradationLevel.REPLICA,
                        turn,
                        running,
                        draft,
                    )
                case ModelDone():
                    draft.ended(delta)
            if reservation is None:
                draft.finish_reason = FinishReason.BUDGET
                break
            if revoked(turn, services):
                draft.finish_reason = FinishReason.HANDOFF
                break
    show(checks.close(), running, draft)
    await conclude(checks, turn, running, draft, place, services)
    if not revoked(turn, services):
        services.shadow.follow(
            turn.prompt.answer,
            checks_of(turn, services),
            sampling=turn.sampling,
            conversation_id=turn.conversation.id,
            cache_salt=services.cache_salt(turn.who.tenant),
            within=partial(until_revoked, turn, services),
        )


def checks_of(turn: Turn, services: Services) -> GroundingStream:
    """Return the checks that an answer to the turn has to pass."""
    passages = [hit.passage for hit in turn.found.hits[: turn.prompt.passages]]
    settings = services.settings
    return grounding_stream(turn.screened.text, passages, grounding=settings.grounding, contact=settings.contact)


async def within_reservation(
    reservation: Reservation | None, draft: AnswerState, services: Services
) -> Reservation | None:
    """Return the reservation, extended once the answer has reached it, or nothing when the ledger refuses."""
    if reservation is None or draft.usage.answer_tokens < reservation.answer_tokens:
        return reservation
    return await services.ledger.extend(reservation, more_tokens=services.settings.extension_tokens)


def show(events: Sequence[Event], running: LiveAnswer, draft: AnswerState) -> None:
    """Put events on the answer and keep those that are new for the history."""
    if not events:
        return
    fresh = running.put(*events)
    if draft.first_token_at is None and any(isinstance(event, Token) for event in fresh):
        draft.first_token_at = time.monotonic()
    draft.shown.extend(fresh)


def revoked(turn: Turn, services: Services) -> bool:
    """Return whether the bank has taken back, while the answer ran, what it stands on."""
    gone = services.withdrawals
    passages = [hit.passage for hit in turn.found.hits]
    return gone.stopped() or not gone.readable() or any(taken_back(p, turn.who, services) for p in passages)


def taken_back(passage: Passage, who: Principal, services: Services) -> bool:
    """Return whether a passage that was found may answer no more: withdrawn, or over by the clock."""
    withdrawn = services.withdrawals.withdrawn(who.tenant, passage.document_id, passage.version)
    return withdrawn or passage.over(services.now())


@contextmanager
def until_revoked(turn: Turn, services: Services) -> Iterator[anyio.CancelScope]:
    """Cancel the block when the bank takes back what the answer stands on, however long the model is silent."""

    def look() -> None:
        if revoked(turn, services):
            scope.cancel()

    with anyio.CancelScope() as scope, services.withdrawals.heard_by(look):
        yield scope


async def conclude(
    checks: GroundingStream, turn: Turn, running: LiveAnswer, draft: AnswerState, place: Place, services: Services
) -> None:
    """Decide what the answer was: grounded, refused by the model itself, or withheld by the checks.

    Where the checks withheld all of it, the passages (which were judged to hold the answer) speak for themselves.
    """
    draft.withheld, draft.grounded = checks.withheld, checks.grounded
    quoted = await repair(checks, turn, running, draft, place, services)
    if draft.finish_reason is FinishReason.HANDOFF:
        say(CannedReply.EMERGENCY, turn, running, draft, services)
    elif quoted.citations:
        show_quotes(quoted, running, draft)
    elif not checks.text.strip():
        say(CannedReply.CANNOT_VERIFY, turn, running, draft, services)
        if checks.withheld:
            draft.finish_reason = FinishReason.WITHHELD
    elif not checks.cited and services.settings.probes:
        draft.finish_reason = FinishReason.REFUSED


async def repair(
    checks: GroundingStream, turn: Turn, running: LiveAnswer, draft: AnswerState, place: Place, services: Services
) -> QuotedAnswer:
    """Return what the passages say in place of an answer that was withheld whole: one quote if the model is sure of it.

    It is asked once, for one token, of which only the quotes' numbers count. Nobody pays for that, as for a probe;
    whatever becomes of it the quotes remain, and who stops the answer meanwhile has stopped it. A successor shows what
    the writer before it has shown.
    """
    quoted = checks.quotes(turn.found.wording)
    for shown in (quoted, *quoted.each()):
        if running.log_ends_with(shown.events):
            return shown
    certainty, ended = services.settings.repair_certainty, draft.finish_reason
    if len(quoted.citations) < 2 or certainty == 1 or ended in {FinishReason.BUDGET, FinishReason.HANDOFF}:
        return quoted
    draft.finish_reason = FinishReason.CANCELLED  # should it be stopped while the model chooses
    shares = await choose(quoted, turn, draft, place, services)
    draft.finish_reason = FinishReason.HANDOFF if revoked(turn, services) else ended
    return quoted.most_probable(shares, certainty)


async def choose(
    quoted: QuotedAnswer, turn: Turn, draft: AnswerState, place: Place, services: Services
) -> tuple[float, ...]:
    """Return the share that the model gives each quote as the one that states the answer; none where it cannot say."""
    passages = [hit.passage for hit in turn.found.hits]
    prompt = services.prompts.repair(
        turn.screened.text, before=turn.prompt.before, excerpts=quoted.excerpts(passages), language=turn.language
    )
    with tracer.start_as_current_span("repair") as span:
        try:
            shares = await services.models.choice_probabilities(
                prompt,
                number_choices(len(quoted.citations)),
                conversation_id=turn.conversation.id,
                cache_salt=services.cache_salt(turn.who.tenant),
                priority=place.priority,
                least_mass=LEAST_CHOICE_MASS,
            )
        except (ModelUnavailable, Overloaded, TooLarge) as exc:
            log.warning("repair_not_asked", answer_id=turn.answer_id, error=exc.code)
            return ()
        span.set_attribute("repair.shares", shares)
    draft.repair = Repair(tuple(prompt.ids), shares)
    return shares


def say(reply: CannedReply, turn: Turn, running: LiveAnswer, draft: AnswerState, services: Services) -> None:
    """Say one of the bank's own texts; it claims nothing, so it is neither cited nor called grounded."""
    text = canned_reply(reply, turn.language, contact=services.settings.contact)
    show([Token(text=f"\n\n{text}" if draft.text else text)], running, draft)
    draft.finish_reason = FINISH[reply]
    draft.grounded = False


def show_quotes(quoted: QuotedAnswer, running: LiveAnswer, draft: AnswerState) -> None:
    """Show the quotes, where there are any."""
    show(quoted.events, running, draft)
    draft.grounded = bool(quoted.citations)


def descend(rung: DegradationLevel, turn: Turn, running: LiveAnswer, draft: AnswerState) -> None:
    """Go down the ladder, and say so."""
    draft.descend(rung)
    show([notice_of(rung, turn.language)], running, draft)


async def answer_without_a_model(
    exc: ChatError, turn: Turn, running: LiveAnswer, draft: AnswerState, services: Services
) -> None:
    """With every model away: what was answered before on the same basis, or the passages themselves and a person."""
    if draft.text:
        draft.error = exc
        return
    draft.usage = Usage()  # nobody pays for what no model said
    if await answer_again(turn, running, draft, services):
        return
    if revoked(turn, services):
        say(CannedReply.EMERGENCY, turn, running, draft, services)
        return
    passages = [hit.passage for hit in turn.found.hits[: turn.prompt.passages]]
    quoted = quote_passages(turn.screened.text, passages, turn.language, wording=turn.found.wording)
    descend(DegradationLevel.QUOTED if quoted.text else DegradationLevel.HANDOFF, turn, running, draft)
    show_quotes(quoted, running, draft)
    say(CannedReply.UNAVAILABLE, turn, running, draft, services)
    draft.grounded = bool(quoted.citations)


async def answer_again(turn: Turn, running: LiveAnswer, draft: AnswerState, services: Services) -> bool:
    """Show the answer that the same question got before from the same passages; return whether there is one."""
    if not may_be_cached(turn):
        return False
    cached = await services.answer_cache.find(basis(turn, services))
    if cached is None or revoked(turn, services):
        return False
    if services.models.tokenizer.count(cached.text) > turn.max_answer_tokens:
        return False
    descend(DegradationLevel.CACHED, turn, running, draft)
    show([Token(text=cached.text), *cached.citations], running, draft)
    draft.finish_reason, draft.grounded, draft.cached_answer_id = FinishReason.STOP, True, cached.answer_id
    return True


# --- the end ---------------------------------------------------------------------------------------------------------


async def finish(turn: Turn, running: LiveAnswer, draft: AnswerState, services: Services) -> None:
    """Settle, write the history, close the audit row, observe, and only then put the last event.

    Nothing of it where another replica writes the answer by now.
    """
    limits: Limits | None = None
    with anyio.move_on_after(services.settings.finish_timeout, shield=True) as scope:
        if not await running.confirm_ownership():
            return
        limits = await settle(turn, draft, services)
        await remember(turn, answered(turn, draft, services), services)
        await keep_for_later(turn, draft, services)
        await close_audit(turn, running, draft, services)
    if scope.cancelled_caught:
        log.error("finish_timed_out", answer_id=turn.answer_id)
    for hook in services.on_turn_finished:
        hook(record(turn, draft, now=time.monotonic()))
    running.put(last_event(turn, draft, limits, services))


async def settle(turn: Turn, draft: AnswerState, services: Services) -> Limits | None:
    """Charge what was used, once."""
    try:
        return await services.ledger.settle(turn.reservation, draft.usage)
    except StoreUnavailable:
        log.warning("settle_failed", answer_id=turn.answer_id)  # it stays charged until its window passes
        return None


async def keep_for_later(turn: Turn, draft: AnswerState, services: Services) -> None:
    """Keep a grounded answer for when no model can give one."""
    if (answer := to_be_cached(turn, draft, services)) is not None:
        await services.answer_cache.keep(basis(turn, services), answer)


async def close_audit(turn: Turn, running: LiveAnswer, draft: AnswerState, services: Services) -> None:
    """Close the audit row; one that stays open is found by `chatbot audit verify`."""
    try:
        await services.audit.close(audit_closed(turn, running, draft, services))
    except AuditUnavailable:
        log.exception("audit_not_closed", answer_id=turn.answer_id)
