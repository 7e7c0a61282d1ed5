"""Open a turn before the first byte: the checks of its content run here, and their errors become the status."""

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
from chatbot.conversations import Conversation, HistoryMessage, StoredMessage, allowed_in_prompt, path_to, window
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
    """Check the question after the route's own checks, reserve tokens, and open the audit record.

    Raises:
        ChatError: the question is rejected, with this status; nothing stays reserved.
    """
    settings, caller = services.settings, Caller.of(who, services.models.model)
    services.ledger.count_request(caller)
    if question.answer_mode is not None and not services.chooses_answer:
        raise Unprocessable("answer: not accepted here; TURN__ANSWER or the model's profile decides it")
    conversation = await load_conversation(question, who, services)
    bank = services.banks.of(who.tenant)
    screening = await services.screener.screen(question.text, question.earlier, bank.own_names)
    screened = screening.question
    branch = branch_of(question, conversation.messages)
    allowed_messages = allowed_in_prompt(
        branch, lambda passage: services.withdrawals.withdrawn(who.tenant, passage.document_id, passage.version)
    )
    earlier: list[HistoryMessage] = [*allowed_messages, *screening.earlier]
    result, canned_reply = await retrieve(screening, earlier, who, services)
    # A question that was rewritten to stand alone needs no earlier message.
    history_tokens = 0 if result.standalone else settings.history_tokens
    prompt_history = window(earlier, services.models.counter.count, history_tokens)
    language = language_in([*(message.text for message in prompt_history if message.role == "user"), screened.text])
    prompt = services.prompts.build(
        result.standalone or screened.text,
        bank=bank.name(language),
        history=[Message(message.role, message.text) for message in prompt_history],
        passages=[hit.passage for hit in result.hits],
        language=language,
    )
    if canned_reply is None:
        counted = await services.models.with_token_count(prompt.answer, conversation_id=conversation.id)
        prompt = replace(prompt, tokens=counted.tokens)
    sampling = Sampling(
        max_tokens=settings.answer_token_limit(question.max_answer_tokens),
        thinking_tokens=settings.thinking_tokens if services.models.may_think else 0,
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
        client_message_count=len(screening.earlier),
        context=tuple(message.id for message in allowed_messages if message in prompt_history),
        answer=question.answer_mode or settings.answer or AnswerMode.QUOTE,
        quoted_before=tuple(citation.quote for citation in branch[-1].citations[:1]) if branch else (),
    )
    try:
        return await record_opening(turn, services)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await discard_turn(turn, services)
        raise


async def load_conversation(question: Question, who: Principal, services: Services) -> Conversation:
    """Return the conversation that the question continues, or a new one; an empty one while Redis is unavailable.

    Of a long conversation, only the newest messages are loaded, and at least those that fit into the prompt.

    Raises:
        NotFound: the conversation or the parent message does not exist, or belongs to another customer.
        RateLimited, Overloaded: the customer has read too much, or too much is read at once.
    """
    conversation_id, now = question.conversation_id, services.now()
    if conversation_id is None:
        return Conversation.new(services.conversation_ids.new(who, now=now), now=now)

    def is_enough(messages: Sequence[StoredMessage]) -> bool:
        characters = sum(len(message.text) for message in branch_of(question, messages))
        # A token has fewer than 20 characters, so this is more text than fits into the prompt.
        return characters >= 20 * services.settings.history_tokens

    try:
        # An outage may have kept the first question of a recent conversation out of Redis.
        if services.conversation_ids.may_begin(who, conversation_id, now=now):
            conversation = await services.history.load_or_begin(who, conversation_id, now=now, is_enough=is_enough)
        else:
            conversation = await services.history.load(who, conversation_id, is_enough=is_enough)
    except StoreUnavailable:
        return Conversation.new(conversation_id, now=now)
    parent_missing = question.parent_id is not None and not branch_of(question, conversation.messages)
    # A question that is answered again may have lost its parent, and an outage may have kept all messages out of Redis.
    is_new = question.id is None
    if parent_missing and is_new and conversation.messages:
        raise NotFound("the conversation has no such message")
    return conversation


def branch_of(question: Question, messages: Sequence[StoredMessage]) -> tuple[StoredMessage, ...]:
    """Return the messages up to the question's parent; a new question without a parent follows the newest answer.

    Only finished answers count: a question that is asked while another is being answered starts another branch.
    """
    parent_id = question.parent_id
    if not parent_id and question.id is None:
        parent_id = next((message.id for message in reversed(messages) if message.role == "assistant"), None)
    return path_to(messages, parent_id)


async def retrieve(
    screening: Screening, earlier: Sequence[HistoryMessage], who: Principal, services: Services
) -> tuple[SearchResult, CannedReply | None]:
    """Return the passages that the caller may read, and the canned reply if one takes the place of an answer."""
    now, withdrawals, screened = services.now(), services.withdrawals, screening.question
    no_hits = SearchResult(hits=(), as_of=now)
    if not withdrawals.may_answer(who.tenant):
        return no_hits, CannedReply.EMERGENCY
    if screened.verdict is not Verdict.OK:
        return no_hits, CannedReply(screened.verdict)
    if screening.topic is not None:
        return no_hits, CannedReply(screening.topic)
    questions = [standalone_text(message) for message in earlier if message.role == "user"]
    access = Access(tenant=who.tenant, groups=who.groups, as_of=now)
    try:
        result = await services.retrieval.search(screened.text, earlier=questions, access=access)
    except IndexUnavailable:
        log.warning("index_unavailable")
        return no_hits, CannedReply.UNAVAILABLE
    # The index, or a node of it that was down, may still hold a passage that is already withdrawn in SQL.
    hits = tuple(hit for hit in result.hits if not withdrawals.is_over(hit.passage, now=services.now()))
    result = msgspec.structs.replace(result, hits=hits)
    if answerability.nothing_near(hits, services.answerability()):
        return result, CannedReply.CANNOT_VERIFY
    return result, None


def standalone_text(message: HistoryMessage) -> str:
    """Return an earlier question, rewritten to stand alone if that was needed."""
    return (isinstance(message, StoredMessage) and message.standalone) or message.text


async def record_opening(turn: Turn, services: Services) -> Turn:
    """Store the audit record and the question before any model call; return the turn.

    The returned turn has a notice if the history is unavailable. A question that is answered again is stored again
    under its id, with the id of its new answer.

    Raises:
        AuditUnavailable: the record could not be stored; the question is rejected.
    """
    now = services.now()
    await services.audit.open(audit_opened(turn, services.versions, at=now))
    # Shielded: once its question is in the history, the turn must be answered.
    with anyio.CancelScope(shield=True):
        try:
            await services.history.append(turn.who, turn.conversation_id, [question_message(turn)], now=now)
        except StoreUnavailable as exc:
            log.warning("history_unavailable", answer_id=turn.answer_id)
            # If Redis may have executed the append, no notice: `remember_answer` appends the question again.
            if not exc.may_be_executed:
                turn = replace(turn, notices=(*turn.notices, notice(NoticeCode.HISTORY_UNAVAILABLE, turn.language)))
    return turn


def audit_opened(turn: Turn, versions: Versions, *, at: float) -> AuditOpened:
    """Return the opening audit record."""
    history_length = len(turn.prompt.before) - 1  # without the system message
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
        history_length=history_length,
        client_message_count=min(history_length, turn.client_message_count),
        reply=turn.reply or "",
        passage_hashes=tuple(passage_hash(h.passage) for h in turn.search.hits),
        prompts=tuple(prompt.json for prompt in (turn.prompt.answer, *turn.prompt.probes)),
    )
