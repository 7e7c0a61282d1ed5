"""Ask the model again for a recorded answer, with the same messages, seed and parameters, and compare the texts."""

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import permutations

import msgspec

from chatbot.audit import Closed, Opened
from chatbot.grounding import GroundingStream
from chatbot.models import LEAST_CHOICE_MASS, YES_OR_NO, Delta, Models, Sampling, number_choices
from chatbot.prompt import Prompt
from chatbot.proof.context import ReplayContext, ReplayFinding, ReplayStanding, Subject
from chatbot.quotes import Candidate, introduced, rank
from chatbot.turns import choice_prompts, messages_json
from knowledge.passage import Hit, Language, Passage

COMPLETE = frozenset({"stop", "length"})
"""The finish reasons of answers that the model completed."""
_CACHE_SALT = "replay"
"""Not a tenant's salt: a replay leaves nothing in the customers' prefix cache."""
_TOLERANCE = 0.02
"""Batching on the server changes the probabilities of the same prompt in the third digit (bf16)."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """A recorded answer with the exact prompt that was sent; `question` is the question in that prompt."""

    prompt: Prompt
    passages: Sequence[Passage]
    question: str
    language: Language
    opened: Opened
    closed: Closed
    models: Models
    context: ReplayContext


async def rerun_model(rerun: Rerun) -> list[ReplayFinding]:
    """Send all prompts of the answer to the model again, and compare the results with the rows.

    Raises:
        ModelUnavailable, Overloaded, TooLarge: the model cannot be asked.
    """
    opened, closed = rerun.opened, rerun.closed
    if opened.reply:
        return [ReplayFinding("model", ReplayStanding.SAME, f"was not asked: {opened.reply}")]
    findings = [await rerun_probes(rerun)] if closed.probes else []
    if not closed.said:
        return [*findings, *await rerun_quotes(rerun)]
    try:
        sampling = msgspec.json.decode(opened.sampling, type=Sampling)
    except msgspec.MsgspecError:
        return [*findings, ReplayFinding("model", ReplayStanding.UNKNOWN, "the row is older than sampling parameters")]
    text, checks = await rerun_answer(rerun, sampling)
    return [*findings, *answer_findings(rerun, text, [checks.text])]


async def rerun_probes(rerun: Rerun) -> ReplayFinding:
    """Repeat the answer's probes, and compare the probabilities of "yes"."""
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


def units(rerun: Rerun) -> tuple[Candidate, ...]:
    """Return a quotable unit of each passage, in no particular order, because the rows lack the search scores."""
    passages = rerun.passages[: rerun.prompt.passages]
    hits = [Hit(passage=passage, score=0.0, dense=0.0, terms=0.0) for passage in passages]
    return rank(rerun.question, hits, rerun.language)


def quoted_texts(rerun: Rerun) -> list[str]:
    """Return all texts that may have been shown: each unit, and each ordered pair of units."""
    candidates = units(rerun)
    choices = [*((unit,) for unit in candidates), *permutations(candidates, 2)]
    return [
        introduced(choice, rerun.passages, rerun.language, certain=certain).text
        for certain in (True, False)
        for choice in choices
    ]


async def rerun_quotes(rerun: Rerun) -> list[ReplayFinding]:
    """Find the quoted units again, and repeat the model's choice between them if it was asked for one."""
    closed = rerun.closed
    asked = "was asked to choose a unit" if closed.repair else "was not asked for an answer, or had none"
    findings = [ReplayFinding("model", ReplayStanding.SAME, asked)]
    if closed.finish_reason in COMPLETE and not closed.rung:
        findings.append(shown_finding(rerun, quoted_texts(rerun)))
    return [*findings, await rerun_choice(rerun)] if closed.repair else findings


async def rerun_choice(rerun: Rerun) -> ReplayFinding:
    """Repeat the choice of a unit if its prompt can be rebuilt, and compare the probabilities."""
    closed, keys = rerun.closed, rerun.context.audit.keys
    for ranked in permutations(units(rerun), len(closed.repair)):
        prompts = choice_prompts(
            ranked,
            rerun.context.prompts,
            question=rerun.question,
            before=rerun.prompt.before,
            passages=rerun.passages,
            language=rerun.language,
        )
        if keys.prompt_hash(closed.tenant, [messages_json(*prompts)]) != closed.repair_hash:
            continue
        now = await rerun.models.choice_probabilities(
            prompts[0],
            number_choices(len(closed.repair)),
            conversation_id=rerun.opened.conversation_id,
            cache_salt=_CACHE_SALT,
            least_mass=LEAST_CHOICE_MASS,
        )
        return compare_probabilities("repair", closed.repair, [round(share, 4) for share in now])
    return ReplayFinding("repair", ReplayStanding.UNKNOWN, f"{list(closed.repair)} then; the prompt cannot be rebuilt")


def compare_probabilities(subject: Subject, then: Sequence[float], now: Sequence[float]) -> ReplayFinding:
    """Compare the probabilities of one-token answers within the tolerance."""
    difference = max((abs(a - b) for a, b in zip(then, now, strict=True)), default=0.0)
    standing = ReplayStanding.SAME if difference <= _TOLERANCE else ReplayStanding.DIFFERS
    return ReplayFinding(subject, standing, f"{list(then)} then, {list(now)} now")


async def rerun_answer(rerun: Rerun, sampling: Sampling) -> tuple[str, GroundingStream]:
    """Generate the answer again; return its text and the checks that it was fed to."""
    text = ""
    checks = GroundingStream(
        rerun.passages[: rerun.prompt.passages],
        question=rerun.question,
        language=rerun.language,
        bank=rerun.context.banks.of(rerun.opened.tenant),
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
    """Compare the model's text (up to the length of a cut answer) and the shown text with the rows.

    `texts` are the texts that may have been shown.
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
    """Check whether one of the texts matches the hash of the shown answer."""
    keys, closed = rerun.context.audit.keys, rerun.closed
    shown_text = next((text for text in texts if keys.answer_hash(closed.tenant, text) == closed.answer_hash), None)
    detail = f"{len(texts[0] if shown_text is None else shown_text)} characters after the checks"
    return ReplayFinding("shown", ReplayStanding.DIFFERS if shown_text is None else ReplayStanding.SAME, detail)
