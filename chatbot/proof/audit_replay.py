"""Replay an answer from its audit rows: rebuild its passages and prompt, and repeat its checks.

The rows hold hashes of texts. While the conversation is stored, its texts are compared with the hashes and the exact
prompt is rebuilt. Afterwards only the passages and the facts in the rows are available, unless the caller provides the
question (docs/decisions/0010-replay.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from chatbot.audit import AuditKeys, AuditRow, Closed, Opened, Versions, columns_match_body, passage_hash
from chatbot.chat import Message
from chatbot.conversations import Conversation, History, path_to
from chatbot.errors import IndexUnavailable, NotFound
from chatbot.grounding import GroundingStream
from chatbot.prompt import Prompt, PromptBuilder
from chatbot.proof.context import ReplayContext, Replayed, ReplayFinding, ReplayStanding
from chatbot.questions import CannedReply, Verdict, canned_reply, screen
from knowledge.access import Access
from knowledge.bank import Bank
from knowledge.identity import Principal
from knowledge.index import Index
from knowledge.index import IndexUnavailable as PassageIndexUnavailable
from knowledge.passage import Language, Passage, language_in


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTexts:
    """The texts of an answer, each None if it is not available."""

    question: str | None
    prompt_question: str | None  # as in the prompt: the rewritten question if there was one
    history: tuple[Message, ...] | None  # the prompt's earlier messages; None also if one of them is missing
    answer: str | None

    @property
    def language(self) -> Language:
        """The language of the answer."""
        earlier_questions = (message.content for message in self.history or () if message.role == "user")
        return language_in([*earlier_questions, self.prompt_question or ""])


async def replay(
    answer_id: str, context: ReplayContext, *, tenant: str | None = None, question: str | None = None
) -> Replayed:
    """Compare an answer with its audit rows.

    `question` replaces a question that is no longer stored. If `tenant` is given, the answer must belong to it.

    Raises:
        NotFound: no audit row names the answer, or the answer belongs to another tenant.
        AuditUnavailable, StoreUnavailable, IndexUnavailable: a part of the answer cannot be read.
    """
    rows = await context.audit.rows(answer_id)
    if not rows or (tenant is not None and rows[0].tenant != tenant):
        raise NotFound("no audit row names this answer")
    keys = context.audit.keys
    rows_result = rows_finding(rows, keys)
    opened, closed = decode_entries(rows) if rows_result.standing is ReplayStanding.SAME else (None, None)
    replayed = Replayed(
        answer_id=answer_id,
        opened=opened,
        closed=closed,
        current_versions=context.versions,
        findings=(rows_result,),
    )
    if opened is None:
        return replayed
    bank = context.banks.of(opened.tenant)
    texts = known_texts(await conversation_of(opened, context.history), opened, question)
    passages, passages_result = await read_passages(opened, context.index)
    prompt = None
    if passages_result.standing is not ReplayStanding.GONE:
        prompt = rebuild_prompt(texts, passages, bank, context.prompts)
    findings = [
        rows_result,
        question_finding(texts, opened, keys),
        passages_result,
        prompt_finding(prompt, texts, opened, context),
        *screening_finding(texts, opened),
    ]
    if closed is not None:
        findings += [answer_finding(texts, closed, keys)]
        findings += grounding_finding(texts, passages, prompt, closed, bank)
    return replace(replayed, findings=tuple(findings))


# --- available texts -------------------------------------------------------------------------------------------------


def rows_finding(rows: Sequence[AuditRow], keys: AuditKeys) -> ReplayFinding:
    """Check the signatures of the rows; `chatbot audit verify` checks their chain."""
    changed = [row for row in rows if not (keys.has_valid_hmac(row) and columns_match_body(row))]
    if changed:
        where = ", ".join(f"{row.kind} (writer {row.writer}, row {row.sequence})" for row in changed)
        return ReplayFinding(
            "rows", ReplayStanding.DIFFERS, f"changed after signing: {where}; no other part is compared"
        )
    if rows[0].kind != "opened":
        return ReplayFinding("rows", ReplayStanding.DIFFERS, "the opening row is missing")
    detail = "opened and closed, as signed" if len(rows) == 2 else "opened, as signed; the closing row is missing"
    return ReplayFinding("rows", ReplayStanding.SAME, detail)


def decode_entries(rows: Sequence[AuditRow]) -> tuple[Opened | None, Closed | None]:
    """Return the opening and closing entries of the rows."""
    decoded = [row.entry() for row in rows]
    opened = next((entry for entry in decoded if isinstance(entry, Opened)), None)
    closed = next((entry for entry in decoded if isinstance(entry, Closed)), None)
    return opened, closed


async def conversation_of(opened: Opened, history: History) -> Conversation | None:
    """Return the conversation, or None if its customer deleted it or it has expired.

    Raises:
        StoreUnavailable: Redis is unavailable.
    """
    try:
        return await history.load(Principal(tenant=opened.tenant, sub=opened.sub), opened.conversation_id)
    except NotFound:
        return None


def known_texts(conversation: Conversation | None, opened: Opened, given_question: str | None) -> KnownTexts:
    """Return the stored texts; the given question replaces one that is not stored."""
    messages = conversation.messages if conversation else ()
    by_id = {message.id: message for message in messages}
    question, answer = by_id.get(opened.question_id), by_id.get(opened.answer_id)
    if question is not None:
        history = tuple(by_id[message_id] for message_id in question.context if message_id in by_id)
    else:
        branch = path_to(messages, opened.parent_id)
        history = branch[len(branch) - opened.history_length :] if opened.history_length <= len(branch) else ()
    is_complete = len(history) == opened.history_length and not opened.client_message_count
    question_text = None if given_question is None else screen(given_question).text
    if question is not None:
        question_text = question.text
    return KnownTexts(
        question=question_text,
        prompt_question=question.standalone if question and question.standalone else question_text,
        history=tuple(Message(message.role, message.text) for message in history) if is_complete else None,
        answer=answer.text if answer else None,
    )


async def read_passages(opened: Opened, index: Index) -> tuple[list[Passage], ReplayFinding]:
    """Return the passages that the customer could read then, and the finding; no passages if it is `GONE`.

    Raises:
        IndexUnavailable: the index is unavailable.
    """
    access = Access(tenant=opened.tenant, groups=frozenset(opened.groups), as_of=opened.as_of)
    passages: list[Passage] = []
    changed: list[str] = []
    gone: list[str] = []
    for (document_id, version, n), signed_hash in zip(opened.passages, opened.passage_hashes, strict=True):
        name = f"{document_id} v{version} #{n}"
        try:
            passage = await index.passage(document_id=document_id, version=version, n=n, access=access)
        except PassageIndexUnavailable as exc:
            raise IndexUnavailable from exc
        if passage is None:
            gone.append(name)
            continue
        passages.append(passage)
        if passage_hash(passage) != signed_hash:
            changed.append(name)
    if changed:
        detail = f"the text has changed since: {', '.join(changed)}"
        return passages, ReplayFinding("passages", ReplayStanding.DIFFERS, detail)
    if gone:
        detail = f"not in the index, or not readable for this customer then: {', '.join(gone)}"
        return [], ReplayFinding("passages", ReplayStanding.GONE, detail)
    return passages, ReplayFinding("passages", ReplayStanding.SAME, f"{len(passages)} passages with the same texts")


def rebuild_prompt(texts: KnownTexts, passages: Sequence[Passage], bank: Bank, prompts: PromptBuilder) -> Prompt | None:
    """Rebuild the prompt, or return None if the question or the history is missing."""
    if texts.prompt_question is None or texts.history is None:
        return None
    return prompts.build(
        texts.prompt_question,
        bank=bank.name(texts.language),
        history=texts.history,
        passages=passages,
        language=texts.language,
    )


# --- comparisons -----------------------------------------------------------------------------------------------------


def question_finding(texts: KnownTexts, opened: Opened, keys: AuditKeys) -> ReplayFinding:
    """Compare the question with its signed hash."""
    if texts.question is None:
        detail = "the conversation is no longer stored; give its question with --question"
        return ReplayFinding("question", ReplayStanding.GONE, detail)
    if keys.question_hash(opened.tenant, texts.question) != opened.question_hash:
        return ReplayFinding("question", ReplayStanding.DIFFERS, "the text differs from the signed hash")
    return ReplayFinding("question", ReplayStanding.SAME, f"{len(texts.question)} characters with the signed hash")


def prompt_finding(prompt: Prompt | None, texts: KnownTexts, opened: Opened, context: ReplayContext) -> ReplayFinding:
    """Compare the rebuilt messages with the signed hash of the prompt."""
    if opened.client_message_count:
        detail = f"{opened.client_message_count} of its messages came from the client and were never stored"
        return ReplayFinding("prompt", ReplayStanding.GONE, detail)
    if prompt is None:
        missing = ["question"] if texts.question is None else []
        if texts.history is None:
            missing.append(f"history ({opened.history_length} messages)")
        detail = f"no longer stored: {' and '.join(missing) or 'passages'}"
        return ReplayFinding("prompt", ReplayStanding.GONE, detail)
    messages = tuple(chat.json for chat in (prompt.answer, *prompt.probes))
    prompt_hash = context.audit.keys.prompt_hash(opened.tenant, messages)
    if prompt_hash != opened.prompt_hash:
        detail = "the messages differ from the signed hash" + version_changes(opened, context.versions)
        return ReplayFinding("prompt", ReplayStanding.DIFFERS, detail)
    return ReplayFinding(
        "prompt", ReplayStanding.SAME, f"{len(prompt.answer.messages)} messages with {prompt.passages} passages"
    )


def version_changes(opened: Opened, current: Versions) -> str:
    """Name the version changes that may explain a different prompt."""
    reasons = []
    if opened.prompt_version != current.prompt:
        reasons.append(f"the templates were {opened.prompt_version} and are {current.prompt}")
    if opened.model != current.model and current.model:
        reasons.append(f"the model was {opened.model} and is {current.model}")
    return f": {'; '.join(reasons)}" if reasons else ""


def screening_finding(texts: KnownTexts, opened: Opened) -> Iterator[ReplayFinding]:
    """Compare the verdict of screening the question now with the recorded verdict."""
    if texts.question is None:
        return
    recorded = Verdict(opened.reply) if opened.reply in set(Verdict) else Verdict.OK
    repeated = screen(texts.question).verdict
    standing = ReplayStanding.SAME if repeated is recorded else ReplayStanding.DIFFERS
    yield ReplayFinding("screening", standing, f"{recorded} then, {repeated} now")


def answer_finding(texts: KnownTexts, closed: Closed, keys: AuditKeys) -> ReplayFinding:
    """Compare the stored answer with the signed hash of the shown answer."""
    if texts.answer is None:
        return ReplayFinding("answer", ReplayStanding.GONE, "the conversation is no longer stored")
    if keys.answer_hash(closed.tenant, texts.answer) != closed.answer_hash:
        return ReplayFinding("answer", ReplayStanding.DIFFERS, "the text differs from the signed hash")
    return ReplayFinding("answer", ReplayStanding.SAME, f"{len(texts.answer)} characters with the signed hash")


def grounding_finding(
    texts: KnownTexts, passages: Sequence[Passage], prompt: Prompt | None, closed: Closed, bank: Bank
) -> Iterator[ReplayFinding]:
    """Check that the passages contain the quoted lines, or that a written answer passes the checks again."""
    if texts.answer is None or texts.prompt_question is None or prompt is None or not closed.grounded:
        return
    if closed.quoted:
        _introduction, _, quotes = texts.answer.partition("\n\n")
        # The hand-off follows the quotes if no model could answer.
        handoff = canned_reply(CannedReply.PERSON, texts.language, bank)
        known_text = "\n".join([*(passage.text for passage in passages), handoff])
        unknown_lines = [line for line in quotes.splitlines() if line not in known_text]
        is_grounded = not unknown_lines
        detail = f"{len(unknown_lines)} of {len(quotes.splitlines())} lines in no passage"
    else:
        sources = passages[: prompt.passages]
        checks = GroundingStream(sources, question=texts.prompt_question, language=texts.language, bank=bank)
        checks.feed(texts.answer)
        checks.close()
        is_grounded = checks.grounded
        detail = f"{checks.withheld} sentences that no passage supports"
    yield ReplayFinding("grounded", ReplayStanding.SAME if is_grounded else ReplayStanding.DIFFERS, detail)
