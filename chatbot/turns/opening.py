"""Before the first byte: `open_turn` runs every check that may reject; its errors become the response's status."""

import time
from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import anyio
import msgspec
import structlog

from chatbot import answerability
from chatbot.audit import AuditOpened, Versions, passage_hash
from chatbot.chat import Message
from chatbot.conversations import Conversation, HistoryMessage, StoredMessage, path_to, repeatable, window
from chatbot.errors import IndexUnavailable, NotFound, StoreUnavailable, Unprocessable
from chatbot.events import NoticeCode
from chatbot.limits import Caller
from chatbot.models import Sampling
from chatbot.notices import notice
from chatbot.questions import CannedReply, Verdict
from chatbot.retrieval import SearchResult
from chatbot.screener import Screening
from chatbot.services import Services
from chatbot.streams import AnswerId
from chatbot.turns.closing import discard_turn
from chatbot.turns.state import Question, Turn, question_message
from knowledge.access import Access
from knowledge.identity import Principal
from knowledge.passage import language_in
from knowledge.profiles import AnswerMode
from telemetry.setup import current_trace_id

log = structlog.get_logger(__name__)


async def open_turn(question: Question, who: Principal, services: Services) -> Turn:
    """Run every check that may reject the question, reserve tokens and open the audit record.

    Raises:
        ChatError: rejected, with its status; nothing is reserved or recorded.
    """
    settings, caller = services.settings, Caller.of(who, services.models.model)
    services.ledger.count_request(caller)
    if question.answer is not None and not services.chooses_answer:
        raise Unprocessable("answer: TURN__ANSWER or the model's profile decides it here")
    conversation = await load_conversation(question, who, services)
    bank = services.banks.of(who.tenant)
    screening = await services.screener.screen(question.text, question.earlier, bank.own_names)
    screened = screening.question
    branch = branch_of(question, conversation.messages)
    repeated = repeatable(
        branch, lambda passage: services.withdrawals.withdrawn(who.tenant, passage.document_id, passage.version)
    )
    earlier: list[HistoryMessage] = [*repeated, *screening.earlier]
    result, canned_reply = await retrieve(screening, earlier, who, services)
    # A question that is understood alone needs no message before it.
    budget = 0 if result.standalone else settings.history_tokens
    in_prompt = window(earlier, services.models.counter.count, budget)
    language = language_in([*(message.text for message in in_prompt if message.role == "user"), screened.text])
    prompt = services.prompts.build(
        result.standalone or screened.text,
        bank=bank.name(language),
        history=[Message(message.role, message.text) for message in in_prompt],
        passages=[hit.passage for hit in result.hits],
        language=language,
    )
    if canned_reply is None:
        counted = await services.models.counted(prompt.answer, conversation_id=conversation.id)
        prompt = replace(prompt, tokens=counted.tokens)
    sampling = Sampling(
        max_tokens=settings.answer_tokens(question.max_answer_tokens),
        thinking_tokens=settings.thinking_tokens if services.models.think else 0,
        temperature=settings.regeneration_temperature if question.id else settings.temperature,
    )
    reservation = await services.ledger.reserve(
        caller,
        prompt_tokens=0 if canned_reply else prompt.tokens,
        answer_tokens=await services.ledger.expected_answer_tokens(
            who.tenant, sampling.max_tokens + sampling.thinking_tokens
        ),
        lease_seconds=settings.longest_answer,
    )
    turn = Turn(
        answer_id=AnswerId(uuid4().hex),
        question_id=question.id or uuid4().hex,
        conversation_id=conversation.id,
        parent_id=branch[-1].id if branch else None,
        asked_at=next((m.at for m in conversation.messages if m.id == question.id), services.now()),
        who=who,
        screened=screened,
        language=language,
        search=result,
        prompt=prompt,
        reply=canned_reply,
        reservation=reservation,
        sampling=sampling,
        notices=(notice(NoticeCode.MASKED, language),) if screened.masked else (),
        trace_id=current_trace_id(),
        opened_at=time.monotonic(),
        client_messages=len(screening.earlier),
        context=tuple(message.id for message in repeated if message in in_prompt),
        answer=question.answer or settings.answer or AnswerMode.QUOTE,
        quoted_before=tuple(citation.quote for citation in branch[-1].citations) if branch else (),
    )
    try:
        return await record_opening(turn, services)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await discard_turn(turn, services)
        raise


async def load_conversation(question: Question, who: Principal, services: Services) -> Conversation:
    """Return the conversation that the question continues, or a new one; without Redis an empty one.

    Of a long conversation only as much is read as fits into the prompt.

    Raises:
        NotFound: the conversation or its message does not exist, or belongs to another customer.
        RateLimited, Overloaded: the customer has read too much, or too much is read at once.
    """
    conversation_id, now = question.conversation_id, services.now()
    if conversation_id is None:
        return Conversation.new(services.conversation_ids.new(who, now=now), now=now)

    def enough(messages: Sequence[StoredMessage]) -> bool:
        characters = sum(len(message.text) for message in branch_of(question, messages))
        # A token has fewer than 20 characters, so this is more than the prompt takes.
        return characters >= 20 * services.settings.history_tokens

    try:
        if services.conversation_ids.may_begin(who, conversation_id, now=now):  # its first question may be missing
            conversation = await services.history.load_or_begin(who, conversation_id, now=now, enough=enough)
        else:
            conversation = await services.history.load(who, conversation_id, enough=enough)
    except StoreUnavailable:
        return Conversation.new(conversation_id, now=now)
    # A question that is answered again may have lost its parent, and so may any if the conversation was not stored.
    parent_missing = question.parent_id is not None and not branch_of(question, conversation.messages)
    if parent_missing and question.id is None and conversation.messages:
        raise NotFound("the conversation has no such message")
    return conversation


def branch_of(question: Question, messages: Sequence[StoredMessage]) -> tuple[StoredMessage, ...]:
    """Return the messages up to the question's parent, or to the newest answer.

    A question whose answer is still running is not a parent: a question asked during it starts another branch.
    """
    newest = next((message.id for message in reversed(messages) if message.role == "assistant"), None)
    return path_to(messages, question.parent_id or (newest if question.id is None else None))


async def retrieve(
    screening: Screening, earlier: Sequence[HistoryMessage], who: Principal, services: Services
) -> tuple[SearchResult, CannedReply | None]:
    """Return the passages that the caller may read, or the canned reply to give instead of an answer."""
    now, withdrawals, screened = services.now(), services.withdrawals, screening.question
    nothing = SearchResult(hits=(), as_of=now)
    if not withdrawals.may_answer(who.tenant):
        return nothing, CannedReply.EMERGENCY
    if screened.verdict is not Verdict.OK:
        return nothing, CannedReply(screened.verdict)
    if screening.topic is not None:
        return nothing, CannedReply(screening.topic)
    questions = [  # as they were understood
        (message.standalone if isinstance(message, StoredMessage) else "") or message.text
        for message in earlier
        if message.role == "user"
    ]
    access = Access(tenant=who.tenant, groups=who.groups, as_of=now)
    try:
        result = await services.retrieval.search(screened.text, earlier=questions, access=access)
    except IndexUnavailable:
        log.warning("index_unavailable")
        return nothing, CannedReply.UNAVAILABLE
    # The index, or a node that was down, may apply an end later than the withdrawals table.
    hits = tuple(hit for hit in result.hits if not withdrawals.is_over(hit.passage, now=services.now()))
    result = msgspec.structs.replace(result, hits=hits)
    if answerability.nothing_near(hits, services.answerability()):
        return result, CannedReply.CANNOT_VERIFY
    return result, None


async def record_opening(turn: Turn, services: Services) -> Turn:
    """Store the audit record and the question before any model call; return the turn, noting a missing history.

    A question that is answered again is appended again, under its id: the message names the answer that runs now.

    Raises:
        AuditUnavailable: the record could not be stored; the question is rejected.
    """
    now = services.now()
    await services.audit.open(audit_opened(turn, services.versions, at=now))
    # Shielded: a question that may be in the history must get its answer.
    with anyio.CancelScope(shield=True):
        try:
            await services.history.append(turn.who, turn.conversation_id, [question_message(turn)], now=now)
        except StoreUnavailable as exc:
            log.warning("history_unavailable", answer_id=turn.answer_id)
            # If the append may be executed, `remember_answer` repeats it later.
            if not exc.may_be_executed:
                turn = replace(turn, notices=(*turn.notices, notice(NoticeCode.HISTORY_UNAVAILABLE, turn.language)))
    return turn


def audit_opened(turn: Turn, versions: Versions, *, at: float) -> AuditOpened:
    """Return the audit record that is written before any model is called."""
    history = len(turn.prompt.before) - 1  # without the system message
    return AuditOpened(
        answer_id=turn.answer_id,
        tenant=turn.who.tenant,
        sub=turn.who.sub,
        conversation_id=turn.conversation_id,
        question=turn.screened.text,
        passages=tuple((h.passage.document_id, h.passage.version, h.passage.n) for h in turn.search.hits),
        groups=tuple(sorted(turn.who.groups)),
        as_of=turn.search.as_of,
        model=versions.model,
        prompt_version=versions.prompt,
        index_version=turn.search.collection or versions.index,
        embedder=versions.embedder,
        sampling=msgspec.json.encode(turn.sampling).decode(),
        grounding=turn.answer,
        at=at,
        question_id=turn.question_id,
        parent_id=turn.parent_id,
        history=history,
        brought=min(history, turn.client_messages),
        reply=turn.reply or "",
        passage_hashes=tuple(passage_hash(h.passage) for h in turn.search.hits),
        prompts=tuple(prompt.json for prompt in (turn.prompt.answer, *turn.prompt.probes)),
    )
