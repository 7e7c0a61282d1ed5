"""One turn of a conversation, top to bottom: `open_turn` may still refuse, `answer` speaks, `finish` settles.

`open_turn` runs before the first byte; what it raises becomes a status. `answer` runs in the application's task group
and only puts events; connections read them. `finish` runs once, shielded, however the answer ended, and the last event
is put after everything is settled, so that a quick customer finds the history written.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from uuid import uuid4

import anyio
import msgspec
import structlog
from opentelemetry import trace

from chatbot import answerability
from chatbot.admission import Place
from chatbot.answerability import Evidence
from chatbot.answering import Answering, is_over, may_not_answer
from chatbot.audit import Audit, AuditClosed
from chatbot.chat import Message
from chatbot.conversations import (
    Conversation,
    HistoryMessage,
    Owner,
    StoredMessage,
    path_to,
    repeatable,
    window,
)
from chatbot.errors import (
    AuditUnavailable,
    ChatError,
    IndexUnavailable,
    ModelUnavailable,
    NotFound,
    Overloaded,
    StoreUnavailable,
)
from chatbot.events import FinishReason, Limits, NoticeCode, PassageRef, Queued, Token, Usage
from chatbot.grounding import GroundingStream
from chatbot.limits import Caller
from chatbot.models import YES_OR_NO, Delta, ModelDone, NotResumable, Switched, Thought
from chatbot.notices import DegradationLevel, notice
from chatbot.prompt import Prompt, PromptBuilder
from chatbot.questions import CannedReply, Verdict
from chatbot.quotes import is_close
from chatbot.quoting import may_choose, quote, quoted_answer, ranked_units
from chatbot.records import TurnFinished
from chatbot.retrieval import SearchResult
from chatbot.screener import Screening
from chatbot.services import Services
from chatbot.streams import AnswerId, LiveAnswer
from chatbot.transcript import (
    AnswerState,
    Question,
    Turn,
    accepted,
    answer_message,
    audit_closed,
    audit_opened,
    basis,
    earlier_questions,
    last_event,
    may_be_cached,
    outcome,
    question_message,
    sources,
    to_be_cached,
    turn_finished,
)
from knowledge.access import Access
from knowledge.bank import Bank
from knowledge.identity import Principal
from knowledge.passage import Language, language_in
from knowledge.withdrawals import Withdrawals
from telemetry.setup import current_trace_id
from telemetry.supervision import contained

log = structlog.get_logger(__name__)
tracer = trace.get_tracer(__name__)

_CHARACTERS_PER_TOKEN = 20
"""More than a token of text has: what is read beyond the prompt's window takes the place of messages left out."""


# --- before the first byte -------------------------------------------------------------------------------------------


async def open_turn(question: Question, who: Principal, services: Services) -> Turn:
    """Decide everything that may still refuse, reserve tokens and open the audit record.

    Raises:
        ChatError: the refusal, with its status; nothing is reserved or recorded then.
    """
    owner, settings = Owner(who.tenant, who.sub), services.settings
    caller = Caller.of(who, services.models.model)
    services.ledger.count_request(caller)
    conversation = await load_conversation(question, owner, services)
    bank = services.banks.of(who.tenant)
    screening = await services.screener.screen(question.text, question.earlier, bank.own_names)
    screened = screening.question
    branch = branch_of(conversation, question)
    repeated = repeatable(branch, partial(was_withdrawn, who.tenant, services.withdrawals))
    earlier: list[HistoryMessage] = [*repeated, *screening.earlier]
    result, canned_reply = await retrieve(screening, earlier, who, services)
    # A question that is understood alone needs no message before it.
    budget = 0 if result.standalone else settings.history_tokens
    in_prompt = window(earlier, services.models.counter.count, budget)
    language = language_in([*(message.text for message in in_prompt if message.role == "user"), screened.text])
    prompt = build_prompt(result.standalone or screened.text, in_prompt, result, language, bank, services.prompts)
    if canned_reply is None:
        counted = await services.models.counted(prompt.answer, conversation_id=conversation.id)
        prompt = replace(prompt, tokens=counted.tokens)
    max_answer_tokens = settings.answer_tokens(question.max_answer_tokens)
    thinking_tokens = settings.thinking_tokens if services.models.think else 0
    answer_tokens = await services.ledger.expected_answer_tokens(who.tenant, max_answer_tokens + thinking_tokens)
    reservation = await services.ledger.reserve(
        caller,
        prompt_tokens=0 if canned_reply else prompt.tokens,
        answer_tokens=answer_tokens,
        lease_seconds=settings.longest_answer,
    )
    turn = Turn(
        answer_id=AnswerId(uuid4().hex),
        question_id=question.id or uuid4().hex,
        conversation=conversation,
        parent_id=branch[-1].id if branch else None,
        who=who,
        screened=screened,
        language=language,
        found=result,
        prompt=prompt,
        reply=canned_reply,
        reservation=reservation,
        max_answer_tokens=max_answer_tokens,
        thinking_tokens=thinking_tokens,
        temperature=settings.again_temperature if question.id else settings.temperature,
        notices=(notice(NoticeCode.MASKED, language),) if screened.masked else (),
        trace_id=current_trace_id(),
        opened_at=time.monotonic(),
        is_first=not earlier and question.id is None,
        brought=len(screening.earlier),
        context=tuple(message.id for message in repeated if message in in_prompt),
        shown_before=tuple(citation.quote for citation in branch[-1].citations) if branch else (),
    )
    try:
        kept = await record_opening(turn, services)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await abandon(turn, services)
        raise
    return turn if kept else replace(turn, notices=(*turn.notices, notice(NoticeCode.HISTORY_UNAVAILABLE, language)))


async def abandon(turn: Turn, services: Services) -> None:
    """Give back what was reserved for an answer that will not be given, and close its audit record if it was opened."""
    unanswered = AnswerState(error=AuditUnavailable())
    services.audit.abandon(audit_closed(turn, unanswered, model_text="", at=services.now()))
    await services.deferred.write("settlement", partial(services.ledger.settle, turn.reservation, Usage()))


async def load_conversation(question: Question, owner: Owner, services: Services) -> Conversation:
    """Return the conversation that the question continues, or a new one; without Redis an empty one.

    Of a long one only as much is read as the prompt may take.

    Raises:
        NotFound: there is no such conversation, or it belongs to another customer.
        RateLimited, Overloaded: the customer has read too much, or too much is read at once.
    """
    conversation_id, now = question.conversation_id, services.now()
    if conversation_id is None:
        return Conversation.new(services.conversation_ids.new(owner, now=now), now=now)
    enough = partial(holds_branch, question, characters=_CHARACTERS_PER_TOKEN * services.settings.history_tokens)
    try:
        if services.conversation_ids.may_begin(owner, conversation_id, now=now):  # its first question was not kept
            return await services.history.load_or_begin(owner, conversation_id, now=now, enough=enough)
        return await services.history.load(owner, conversation_id, enough=enough)
    except StoreUnavailable:
        return Conversation.new(conversation_id, now=now)


def holds_branch(question: Question, messages: Sequence[StoredMessage], *, characters: int) -> bool:
    """Return whether the messages hold so many characters of what leads to the question."""
    parent_id = question.parent_id or next((m.id for m in reversed(messages) if m.role == "assistant"), None)
    return sum(len(message.text) for message in path_to(messages, parent_id)) >= characters


def branch_of(conversation: Conversation, question: Question) -> tuple[StoredMessage, ...]:
    """Return the messages that lead to the question: up to its parent, or to the newest answer.

    A question whose answer still runs is no parent: a question asked meanwhile begins a branch beside it.

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


def was_withdrawn(tenant: str, withdrawals: Withdrawals, passage: PassageRef) -> bool:
    """Return whether a passage of an earlier answer is withdrawn by now."""
    return withdrawals.withdrawn(tenant, passage.document_id, passage.version)


async def retrieve(
    screening: Screening, earlier: Sequence[HistoryMessage], who: Principal, services: Services
) -> tuple[SearchResult, CannedReply | None]:
    """Return the passages that the caller may read, and the canned reply where no answer should be tried."""
    now, withdrawals, screened = services.now(), services.withdrawals, screening.question
    nothing = SearchResult(hits=(), as_of=now)
    if may_not_answer(withdrawals, who.tenant):
        return nothing, CannedReply.EMERGENCY
    if screened.verdict is not Verdict.OK:
        return nothing, CannedReply(screened.verdict)
    if screening.topic is not None:
        return nothing, CannedReply(screening.topic)
    access = Access(tenant=who.tenant, groups=who.groups, as_of=now)
    try:
        result = await services.retrieval.search(screened.text, earlier=earlier_questions(earlier), access=access)
    except IndexUnavailable:
        log.warning("index_unavailable")
        return nothing, CannedReply.UNAVAILABLE
    # The index, or a node of it that was away, may hear of an end later than the table that every replica reads.
    hits = tuple(hit for hit in result.hits if not is_over(hit.passage, withdrawals, now=services.now()))
    result = msgspec.structs.replace(result, hits=hits)
    if answerability.nothing_near(hits, services.answerability()):
        return result, CannedReply.CANNOT_VERIFY
    return result, None


def build_prompt(
    question: str,
    earlier: Sequence[HistoryMessage],
    result: SearchResult,
    language: Language,
    bank: Bank,
    prompts: PromptBuilder,
) -> Prompt:
    """Return the prompt of a question to the bank, with these earlier messages."""
    return prompts.build(
        question,
        bank=bank.name(language),
        history=[Message(message.role, message.text) for message in earlier],
        passages=[hit.passage for hit in result.hits],
        language=language,
    )


async def record_opening(turn: Turn, services: Services) -> bool:
    """Make the audit record and the question durable before any model is called; return whether the history keeps it.

    A question that is answered again is appended again, under its id: the message names the answer that runs now.

    Raises:
        AuditUnavailable: no answer goes unaudited.
    """
    settings = services.settings
    await services.audit.open(audit_opened(turn, services.versions, answer=settings.answer, at=services.now()))
    owner, question = Owner(turn.who.tenant, turn.who.sub), question_message(turn, at=services.now())
    # Shielded: once the history may have the question, its answer is given.
    with anyio.CancelScope(shield=True):
        try:
            await services.history.append(owner, turn.conversation.id, [question], now=services.now())
        except StoreUnavailable as exc:  # the answer goes on without it
            log.warning("history_unavailable", answer_id=turn.answer_id)
            return exc.may_be_executed  # then `remember_answer` appends the question, if need be, with its answer
    return True


# --- the answer ------------------------------------------------------------------------------------------------------


async def answer(turn: Turn, live: LiveAnswer, place: Place, services: Services) -> None:
    """Answer the turn, from its place in the queue; every path ends in `finish`.

    A successor runs this once more, after the tokens in the log: events that are published already are not put again.
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
        await finish(answering)


async def speak(answering: Answering, place: Place) -> None:
    """Put everything but the last event: the model's answer, or what there is without a model."""
    turn, live = answering.turn, answering.live
    try:
        live.put(accepted(turn, answering.services.versions), *turn.notices, sources(turn))
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
    if evidence and answering.quotes and not (is_close(ranked_units(answering)) and may_choose(answering)):
        await quote_answer(answering, evidence, ends=FinishReason.STOP, priority=place.priority)
        return

    def show_place(position: int, seconds: float) -> None:
        live.put(Queued(position=position, estimated_wait_ms=round(seconds * 1000)))

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
    """Return what the passages are worth where that needs no model's word."""
    turn, services = answering.turn, answering.services
    if answering.live.output:
        return Evidence.CERTAIN
    return answerability.evidence_of_search(turn.found.hits, unknown, turn.language, services.answerability())


async def ask_for_evidence(answering: Answering, unknown: float, *, priority: int) -> Evidence:
    """Return what the passages are worth, by retrieval and one token of the model for a passage."""
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
    """Show the model's words as far as the checks let them pass, or quotes where they let nothing pass."""
    checks = answering.checks()
    await stream_answer(checks, answering, place)
    await conclude(checks, answering, priority=place.priority)
    ask_the_shadow(answering)


async def quote_answer(answering: Answering, evidence: Evidence, *, ends: FinishReason, priority: int) -> None:
    """Show what the passages state, and end the answer as `ends` says."""
    quoted = await quote(answering, evidence, ends=ends, priority=priority)
    if answering.state.finish_reason is FinishReason.HANDOFF:
        answering.show_canned_reply(CannedReply.EMERGENCY)
    elif quoted.events:
        answering.show_quotes(quoted)
    else:
        answering.show_canned_reply(CannedReply.CANNOT_VERIFY)


async def stream_answer(checks: GroundingStream, answering: Answering, place: Place) -> None:
    """Stream the model's tokens through the checks, until it is done or the reservation used up."""
    turn, state, services = answering.turn, answering.state, answering.services
    begun = answering.begun()
    answering.show(checks.feed(begun.text))
    state.begin_after(begun, turn)
    reservation = turn.reservation
    stream = services.models.stream(
        turn.prompt.answer,
        sampling=turn.sampling,
        conversation_id=turn.conversation.id,
        cache_salt=services.cache_salt(turn.who.tenant),
        priority=place.priority,
        begun=begun,
    )
    async with aclosing(stream) as parts:
        async for part in parts:
            if not isinstance(part, Delta | Thought):
                note(part, answering)
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


def note(part: Switched | NotResumable | ModelDone, answering: Answering) -> None:
    """Record what befell the model's answer, and tell the customer what they should know of it."""
    match part:
        case Switched(group=group):
            answering.degrade(DegradationLevel.FALLBACK if group == "fallback" else DegradationLevel.REPLICA)
        case NotResumable():
            answering.tell_once(NoticeCode.NOT_RESUMABLE)
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
    """Ask a model on trial the same, unless the answer is revoked; the customer sees nothing of it."""
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
    """Show what there is with every model away: a cached answer on the same basis, or quotes and a hand-off."""
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
    quoted = quoted_answer(ranked_units(answering)[:1], answering, certain=True)
    answering.degrade(DegradationLevel.QUOTED if quoted.text else DegradationLevel.HANDOFF)
    answering.show_quotes(quoted)
    answering.show_canned_reply(CannedReply.UNAVAILABLE)
    state.grounded, state.missing = state.quoted, exc.code


async def answer_from_cache(answering: Answering) -> bool:
    """Show the answer that the same question got before from the same passages; return whether there is one."""
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
    state.quoted = cached.quoted
    return True


# --- the end ---------------------------------------------------------------------------------------------------------


async def finish(answering: Answering) -> None:
    """Settle, write the history, close the audit record, call the hooks, and only then put the last event.

    None of it where another replica writes the answer by now.
    """
    turn, live, state, services = answering.turn, answering.live, answering.state, answering.services
    with anyio.CancelScope(shield=True):
        if not await live.confirm_ownership(outcome(state)):
            return
        state.as_published(turn, live.published, broken=live.stage == "broken")
        limits = await settle(answering)
        await remember_answer(answering)
    with anyio.move_on_after(services.settings.finish_timeout, shield=True) as scope, contained("record"):
        await keep_for_later(answering)
        closed = audit_closed(turn, state, model_text=answering.begun().text, at=services.now())
        await close_audit(closed, services.audit)
    if scope.cancelled_caught:
        log.error("finish_timed_out", answer_id=turn.answer_id)
    tell(services.on_turn_finished, turn_finished(turn, state, now=time.monotonic()))
    live.put(last_event(turn, state, limits, answering.bank))


def tell(hooks: Sequence[Callable[[TurnFinished], None]], finished: TurnFinished) -> None:
    """Call every hook, whatever another one raises."""
    for hook in hooks:
        with contained("hook"):
            hook(finished)


async def settle(answering: Answering) -> Limits | None:
    """Charge what was used, once, now or later; return what the caller has left, if the ledger can be asked."""
    turn, state, services = answering.turn, answering.state, answering.services
    return await services.deferred.write("settlement", partial(services.ledger.settle, turn.reservation, state.usage))


async def remember_answer(answering: Answering) -> None:
    """Append the answer to the history, now or later, unless the customer was told that the history is not kept.

    Its question comes with it: Redis may have forgotten that, and the conversation, in a failover.
    """
    turn, state, services = answering.turn, answering.state, answering.services
    if not turn.kept:
        return
    now = services.now()
    messages = [question_message(turn, at=turn.found.as_of), answer_message(turn, state, at=now)]
    owner = Owner(turn.who.tenant, turn.who.sub)
    append = partial(services.history.append, owner, turn.conversation.id, messages, now=now)
    await services.deferred.write("history", append)


async def keep_for_later(answering: Answering) -> None:
    """Keep a grounded answer for when no model can give one."""
    turn, services = answering.turn, answering.services
    cached = to_be_cached(turn, answering.state, model=services.models.model, at=services.now())
    if cached is not None:
        await services.answer_cache.keep(basis(turn, services.versions), cached)


async def close_audit(closed: AuditClosed, audit: Audit) -> None:
    """Close the audit record; `chatbot audit verify` finds one that stays open."""
    try:
        await audit.close(closed)
    except AuditUnavailable:
        log.exception("audit_not_closed", answer_id=closed.answer_id)
