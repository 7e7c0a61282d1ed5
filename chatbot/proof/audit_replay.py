"""What an answer's audit rows prove: its passages, prompt and checks again as they were then, and its model if asked.

The rows hold hashes of what was said, not the words. While the conversation is kept its words are compared with the
hashes and the exact prompt is rebuilt; afterwards the passages and the facts of the rows are what can still be shown,
or more where somebody has the question (docs/decisions/0010-replay.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from chatbot.audit import AuditKeys, AuditRow, Closed, Opened, Versions, matches, passage_hash
from chatbot.conversations import Conversation, Owner, path_to
from chatbot.errors import IndexUnavailable, NotFound
from chatbot.grounding import GroundingMode, grounding_stream
from chatbot.prompt import Prompt, PromptBuilder
from chatbot.proof.context import ReplayContext, Replayed, ReplayFinding, ReplayStanding
from chatbot.proof.rerun import WHOLE, Reasked, ask_again
from chatbot.questions import Verdict, screen
from chatbot.tokenizer import Message
from knowledge.access import Access
from knowledge.index import IndexUnavailable as IndexAway
from knowledge.passage import Passage, language_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What was said, as far as anybody still has it; `earlier` is None where the prompt's history is not whole."""

    question: str | None
    earlier: tuple[Message, ...] | None
    answer: str | None


async def replay(
    answer_id: str,
    archive: ReplayContext,
    *,
    tenant: str | None = None,
    question: str | None = None,
    ask_model: bool = False,
) -> Replayed:
    """Return what an answer's rows prove; `question` is what somebody says was asked, `tenant` whose answer it must be.

    Raises:
        NotFound: no row names the answer, or it is another tenant's.
        AuditUnavailable, StoreUnavailable, IndexUnavailable: what it was made of cannot be read.
        ModelUnavailable, Overloaded, TooLarge: the model was to be asked and cannot be.
    """
    rows = await archive.audit.rows(answer_id)
    if not rows or (tenant is not None and rows[0].tenant != tenant):
        raise NotFound("no audit row names this answer")
    keys = archive.audit.keys
    proven = rows_finding(rows, keys)
    opened, closed = entries(rows) if proven.standing is ReplayStanding.SAME else (None, None)
    replayed = Replayed(answer_id=answer_id, opened=opened, closed=closed, now=archive.versions, findings=(proven,))
    if opened is None:
        return replayed
    words = words_of(await conversation_of(opened, archive), opened, question)
    passages, found = await passages_of(opened, archive)
    prompt = None if found.standing is ReplayStanding.GONE else rebuilt(words, passages, archive.prompts)
    findings = [
        proven,
        question_finding(words, opened, keys),
        found,
        prompt_finding(prompt, words, opened, archive),
        *screening(words, opened),
    ]
    if closed is not None:
        findings += [answer_finding(words, closed, keys)]
        findings += grounded_again(words, passages, prompt, opened, closed, archive.contact)
    if ask_model and closed is not None and archive.models is not None:
        if prompt is None or findings[3].standing is not ReplayStanding.SAME:
            findings.append(
                ReplayFinding("model", ReplayStanding.UNKNOWN, "not asked: the prompt is not the one that was sent")
            )
        elif words.question is not None:
            reask = Reasked(prompt, passages, words.question, opened, closed)
            findings += await ask_again(reask, archive.models, archive)
    return replace(replayed, findings=tuple(findings))


# --- what is still there ---------------------------------------------------------------------------------------------


def rows_finding(rows: Sequence[AuditRow], keys: AuditKeys) -> ReplayFinding:
    """Return whether the rows are what was signed; whether their chain is whole is for `chatbot audit verify`."""
    touched = [row for row in rows if not (keys.signed(row) and matches(row))]
    if touched:
        where = ", ".join(f"{row.kind} (writer {row.writer}, row {row.sequence})" for row in touched)
        return ReplayFinding("rows", ReplayStanding.DIFFERS, f"not what was signed: {where}; nothing else is believed")
    if rows[0].kind != "opened":
        return ReplayFinding("rows", ReplayStanding.DIFFERS, "nothing says that the answer began")
    told = "opened and closed" if len(rows) == 2 else "opened; nothing says how it ended"
    return ReplayFinding("rows", ReplayStanding.SAME, f"{told}, as signed")


def entries(rows: Sequence[AuditRow]) -> tuple[Opened | None, Closed | None]:
    """Return what the rows say."""
    said = [row.entry() for row in rows]
    opened = next((entry for entry in said if isinstance(entry, Opened)), None)
    return opened, next((entry for entry in said if isinstance(entry, Closed)), None)


async def conversation_of(opened: Opened, archive: ReplayContext) -> Conversation | None:
    """Return the conversation, unless its customer has deleted it or its time is over.

    Raises:
        StoreUnavailable: Redis cannot be asked.
    """
    try:
        return await archive.history.load(Owner(opened.tenant, opened.sub), opened.conversation_id)
    except NotFound:
        return None


def words_of(kept: Conversation | None, opened: Opened, given: str | None) -> Words:
    """Return what was said; a question that somebody gives takes the place of one that nobody kept."""
    by_id = {message.id: message for message in kept.messages} if kept else {}
    asked, answer = by_id.get(opened.question_id), by_id.get(opened.answer_id)
    question = asked.text if asked else screen(given).text if given is not None else None
    branch = path_to(kept.messages, opened.parent_id) if kept else ()
    window = branch[len(branch) - opened.history :] if opened.history <= len(branch) else ()
    whole = len(window) == opened.history and not opened.brought
    return Words(
        question=question,
        earlier=tuple(Message(message.role, message.text) for message in window) if whole else None,
        answer=answer.text if answer else None,
    )


async def passages_of(opened: Opened, archive: ReplayContext) -> tuple[list[Passage], ReplayFinding]:
    """Return the passages as the customer could read them then, none unless all are there, and how they stand.

    Raises:
        IndexUnavailable: the index cannot be asked.
    """
    access = Access(tenant=opened.tenant, groups=frozenset(opened.groups), as_of=opened.as_of)
    hashes = opened.passage_hashes or [""] * len(opened.passages)
    passages: list[Passage] = []
    wrong: list[str] = []
    gone: list[str] = []
    for (document_id, version, n), known in zip(opened.passages, hashes, strict=True):
        name = f"{document_id} v{version} #{n}"
        try:
            found = await archive.index.passage(document_id=document_id, version=version, n=n, access=access)
        except IndexAway as exc:
            raise IndexUnavailable from exc
        if found is None:
            gone.append(name)
            continue
        passages.append(found)
        if known and passage_hash(found) != known:
            wrong.append(name)
    if wrong:
        return passages, ReplayFinding(
            "passages", ReplayStanding.DIFFERS, f"another text than was found then: {', '.join(wrong)}"
        )
    if gone:
        detail = f"not in the index as this customer could read it then: {', '.join(gone)}"
        return [], ReplayFinding("passages", ReplayStanding.GONE, detail)
    told = f"{len(passages)} as of then, by document, version and text"
    if opened.passages and not opened.passage_hashes:
        return passages, ReplayFinding(
            "passages", ReplayStanding.UNKNOWN, f"{told}: the row is older than hashes of passages"
        )
    return passages, ReplayFinding("passages", ReplayStanding.SAME, told)


def rebuilt(words: Words, passages: Sequence[Passage], prompts: PromptBuilder) -> Prompt | None:
    """Return the prompt, where everything that it is made of is there."""
    if words.question is None or words.earlier is None:
        return None
    language = language_of(words.question)
    return prompts.build(words.question, history=words.earlier, passages=passages, language=language)


# --- whether it is the same ------------------------------------------------------------------------------------------


def question_finding(words: Words, opened: Opened, keys: AuditKeys) -> ReplayFinding:
    """Return whether the question is the one whose hash was signed."""
    if words.question is None:
        return ReplayFinding(
            "question", ReplayStanding.GONE, "the conversation is not kept any more; give a --question to compare"
        )
    if keys.question_hash(opened.tenant, words.question) != opened.question_hash:
        return ReplayFinding("question", ReplayStanding.DIFFERS, "another text than was asked")
    return ReplayFinding("question", ReplayStanding.SAME, f"{len(words.question)} characters, by its hash")


def prompt_finding(prompt: Prompt | None, words: Words, opened: Opened, archive: ReplayContext) -> ReplayFinding:
    """Return whether the prompt is, token by token, the one that was built."""
    if not opened.prompt_hash:
        return ReplayFinding("prompt", ReplayStanding.UNKNOWN, "the row is older than hashes of prompts")
    if opened.brought:
        detail = f"{opened.brought} messages in it were brought by the caller and kept nowhere"
        return ReplayFinding("prompt", ReplayStanding.GONE, detail)
    if prompt is None:
        lost = [
            *(["question"] if words.question is None else []),
            *([f"history ({opened.history} messages)"] if words.earlier is None else []),
        ]
        return ReplayFinding(
            "prompt", ReplayStanding.GONE, f"its {' and its '.join(lost) or 'passages'} cannot be had any more"
        )
    hashed = archive.audit.keys.prompt_hash(opened.tenant, (prompt.answer_ids, *prompt.probes_ids))
    if hashed != opened.prompt_hash:
        return ReplayFinding(
            "prompt", ReplayStanding.DIFFERS, "other tokens than were sent" + because(opened, archive.versions)
        )
    return ReplayFinding(
        "prompt", ReplayStanding.SAME, f"{len(prompt.answer_ids)} tokens with {prompt.passages} passages"
    )


def because(opened: Opened, now: Versions) -> str:
    """Return what may explain another prompt."""
    reasons = []
    if opened.prompt_version != now.prompt:
        reasons.append(f"the templates were {opened.prompt_version} and are {now.prompt}")
    if opened.model != now.model and now.model:
        reasons.append(f"the model was {opened.model} and is {now.model}")
    return f": {'; '.join(reasons)}" if reasons else ""


def screening(words: Words, opened: Opened) -> Iterator[ReplayFinding]:
    """Tell whether the question's screening comes to what it came to."""
    if words.question is None or not opened.prompt_hash:
        return
    then = Verdict(opened.reply) if opened.reply in set(Verdict) else Verdict.OK
    now = screen(words.question).verdict
    standing = ReplayStanding.SAME if now is then else ReplayStanding.DIFFERS
    yield ReplayFinding("screening", standing, f"{then} then, {now} now")


def answer_finding(words: Words, closed: Closed, keys: AuditKeys) -> ReplayFinding:
    """Return whether the kept answer is the one that was shown."""
    if not closed.answer_hash:
        return ReplayFinding("answer", ReplayStanding.UNKNOWN, "the row is older than hashes of answers")
    if words.answer is None:
        return ReplayFinding("answer", ReplayStanding.GONE, "the conversation does not keep it any more")
    if keys.answer_hash(closed.tenant, words.answer) != closed.answer_hash:
        return ReplayFinding("answer", ReplayStanding.DIFFERS, "another text than was shown")
    return ReplayFinding("answer", ReplayStanding.SAME, f"{len(words.answer)} characters, by their hash")


def grounded_again(
    words: Words, passages: Sequence[Passage], prompt: Prompt | None, opened: Opened, closed: Closed, contact: str
) -> Iterator[ReplayFinding]:
    """Check what was shown against the passages once more, sentence by sentence."""
    if words.answer is None or words.question is None or prompt is None or closed.finish_reason not in WHOLE:
        return
    checks = grounding_stream(words.question, passages[: prompt.passages], grounding=GroundingMode.OFF, contact=contact)
    checks.feed(words.answer)
    checks.close()
    standing = ReplayStanding.SAME if checks.grounded == closed.grounded else ReplayStanding.DIFFERS
    detail = f"grounded={closed.grounded} then ({opened.grounding}), {checks.grounded} now; cites {list(checks.cited)}"
    yield ReplayFinding("grounded", standing, detail)
