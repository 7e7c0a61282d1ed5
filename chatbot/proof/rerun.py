"""Asks the model again for a recorded answer, with the same messages, seed and parameters, and compares the texts."""

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from chatbot.audit import Closed, Opened
from chatbot.errors import IndexUnavailable
from chatbot.grounding import (
    NO_QUOTES,
    GroundingMode,
    GroundingStream,
    Quote,
    QuotedAnswer,
    grounding_stream,
    quoted_answer,
)
from chatbot.models import LEAST_CHOICE_MASS, YES_OR_NO, Delta, Models, Sampling, number_choices
from chatbot.prompt import Prompt
from chatbot.proof.context import ReplayContext, ReplayFinding, ReplayStanding, Subject
from chatbot.quoting import rank_quotes
from chatbot.transcript import messages_json
from knowledge.index import IndexUnavailable as IndexFailed
from knowledge.passage import Language, Passage

COMPLETE = frozenset({"stop", "length"})
"""The finish reasons of answers that the model ended itself."""
_CACHE_SALT = "replay"
"""No tenant's: a replay leaves nothing in the prefix cache of customers."""
_TOLERANCE = 0.02
"""Servers batch: the same prompt gives probabilities that differ in the third digit (bf16)."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """A recorded answer and its prompt, which is the one that was sent; the model is asked through `models`.

    `question` is as it stood in the prompt.
    """

    prompt: Prompt
    passages: Sequence[Passage]
    question: str
    language: Language
    opened: Opened
    closed: Closed
    models: Models
    context: ReplayContext


async def rerun_model(rerun: Rerun) -> list[ReplayFinding]:
    """Ask the model every prompt of the answer again, and compare what it returns with the rows.

    Raises:
        ModelUnavailable, Overloaded, TooLarge: the model cannot be asked.
        IndexUnavailable: the embedder cannot be asked.
    """
    opened, closed = rerun.opened, rerun.closed
    if opened.reply:
        return [ReplayFinding("model", ReplayStanding.SAME, f"was not asked: {opened.reply}")]
    findings = [await rerun_probes(rerun)] if closed.probes else []
    if not closed.said and closed.repair:
        return [*findings, *await rerun_quotes(rerun)]
    if not closed.said:
        return [*findings, ReplayFinding("model", ReplayStanding.SAME, "was not asked for an answer, or had none")]
    try:
        sampling = msgspec.json.decode(opened.sampling, type=Sampling)
    except msgspec.MsgspecError:
        return [*findings, ReplayFinding("model", ReplayStanding.UNKNOWN, "the row is older than sampling parameters")]
    ranked = await rank_again(rerun)
    text, checks = await rerun_answer(rerun, sampling, ranked[:1])
    quoted = quoted_again(rerun, ranked) if checks.withheld_whole else NO_QUOTES
    texts = [shown.text for shown in (quoted, *quoted.each())] if quoted.citations else [checks.text]
    findings += answer_findings(rerun, text, texts)
    return [*findings, await rerun_repair(rerun, quoted)] if closed.repair else findings


async def rerun_probes(rerun: Rerun) -> ReplayFinding:
    """Ask the probes again that were asked, and compare the probabilities of "yes"."""
    then, now = rerun.closed.probes, list[float]()
    for probe in rerun.prompt.probes[: len(then)]:
        yes, _ = await rerun.models.choice_probabilities(
            probe,
            YES_OR_NO,
            conversation_id=rerun.opened.conversation_id,
            cache_salt=_CACHE_SALT,
        )
        now.append(round(yes, 4))
    return compare_probabilities("probes", then, now)


async def rank_again(rerun: Rerun) -> tuple[Quote, ...]:
    """Return the sentences that may state the answer, ranked as for the answer.

    Raises:
        IndexUnavailable: the embedder cannot be asked.
    """
    passages = rerun.passages[: rerun.prompt.passages]
    try:
        return await rank_quotes(rerun.question, passages, rerun.context.index.similarities)
    except IndexFailed as exc:
        raise IndexUnavailable from exc


def quoted_again(rerun: Rerun, ranked: Sequence[Quote]) -> QuotedAnswer:
    """Return the answer that consists of the passages' own sentences."""
    return quoted_answer(rerun.question, ranked, rerun.passages, language=rerun.language)


async def rerun_quotes(rerun: Rerun) -> list[ReplayFinding]:
    """Find the quotes again of an answer that was to consist of them, and ask the model again which states it."""
    quoted = quoted_again(rerun, await rank_again(rerun))
    shown = shown_finding(rerun, [answer.text for answer in (quoted, *quoted.each())])
    return [
        ReplayFinding("model", ReplayStanding.SAME, "was asked to choose a quote"),
        shown,
        await rerun_repair(rerun, quoted),
    ]


async def rerun_repair(rerun: Rerun, quoted: QuotedAnswer) -> ReplayFinding:
    """Ask again which quote states the answer, where the quotes are those of then, and compare the probabilities."""
    closed, context = rerun.closed, rerun.context
    prompt = context.prompts.repair(
        rerun.question,
        before=rerun.prompt.before,
        excerpts=quoted.excerpts(rerun.passages),
        language=rerun.language,
    )
    if context.audit.keys.prompt_hash(closed.tenant, [messages_json(prompt)]) != closed.repair_hash:
        return ReplayFinding(
            "repair", ReplayStanding.UNKNOWN, f"{list(closed.repair)} then; what was asked cannot be rebuilt"
        )
    now = await rerun.models.choice_probabilities(
        prompt,
        number_choices(len(closed.repair)),
        conversation_id=rerun.opened.conversation_id,
        cache_salt=_CACHE_SALT,
        least_mass=LEAST_CHOICE_MASS,
    )
    return compare_probabilities("repair", closed.repair, [round(share, 4) for share in now])


def compare_probabilities(subject: Subject, then: Sequence[float], now: Sequence[float]) -> ReplayFinding:
    """Return whether the probabilities of one-token answers are the same within the tolerance."""
    difference = max((abs(a - b) for a, b in zip(then, now, strict=True)), default=0.0)
    standing = ReplayStanding.SAME if difference <= _TOLERANCE else ReplayStanding.DIFFERS
    return ReplayFinding(subject, standing, f"{list(then)} then, {list(now)} now")


async def rerun_answer(rerun: Rerun, sampling: Sampling, leading: Sequence[Quote]) -> tuple[str, GroundingStream]:
    """Return the text that the model generates now, and the checks of then that were fed with it."""
    text = ""
    checks = grounding_stream(
        rerun.question,
        rerun.passages[: rerun.prompt.passages],
        grounding=GroundingMode(rerun.opened.grounding),
        language=rerun.language,
        bank=rerun.context.banks.of(rerun.opened.tenant),
        leading=leading,
    )
    stream = rerun.models.stream(
        rerun.prompt.answer,
        sampling=sampling,
        conversation_id=rerun.opened.conversation_id,
        cache_salt=_CACHE_SALT,
    )
    async with aclosing(stream) as deltas:
        async for delta in deltas:
            if isinstance(delta, Delta):
                text += delta.text
                checks.feed(delta.text)
    checks.close()
    return text, checks


def answer_findings(rerun: Rerun, text: str, texts: Sequence[str]) -> Iterator[ReplayFinding]:
    """Compare the model's text with that of then, up to where the answer was cut, and the text that the checks show.

    `texts` are several where everything was withheld: all quotes of the passages, and each quote alone.
    """
    opened, closed, keys = rerun.opened, rerun.closed, rerun.context.audit.keys
    compared = text if closed.finish_reason in COMPLETE else text[: closed.said]
    same = keys.prompt_hash(opened.tenant, [compared]) == closed.said_hash
    models = ", ".join(closed.models) or opened.model
    detail = f"{closed.said} characters by {models} then, {len(compared)} by {rerun.models.model} now"
    yield ReplayFinding("model", ReplayStanding.SAME if same else ReplayStanding.DIFFERS, detail)
    if closed.finish_reason in COMPLETE and not closed.rung and any(text.strip() for text in texts):
        yield shown_finding(rerun, texts)


def shown_finding(rerun: Rerun, texts: Sequence[str]) -> ReplayFinding:
    """Return whether one of the texts is the one that was shown."""
    keys, closed = rerun.context.audit.keys, rerun.closed
    shown = next((text for text in texts if keys.answer_hash(closed.tenant, text) == closed.answer_hash), None)
    detail = f"{len(texts[0] if shown is None else shown)} characters after the checks"
    return ReplayFinding("shown", ReplayStanding.DIFFERS if shown is None else ReplayStanding.SAME, detail)
