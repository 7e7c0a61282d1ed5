"""Asking the model again what it was asked, with the same token ids, seed and parameters, and what it says now."""

from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from chatbot.audit import AuditKeys, Closed, Opened
from chatbot.grounding import GroundingMode, GroundingStream, QuotedAnswer, grounding_stream
from chatbot.models import LEAST_CHOICE_MASS, YES_OR_NO, Delta, Models, Sampling, number_choices
from chatbot.prompt import Prompt
from chatbot.proof.context import ReplayContext, ReplayFinding, ReplayStanding, What
from chatbot.retrieval import SearchQuery
from knowledge.passage import Passage, language_of

WHOLE = frozenset({"stop", "length"})
"""How an answer ends that nothing cut short and nothing took the place of."""
_APART = 0.02
"""Servers batch: the same prompt gives probabilities that differ in the third digit (bf16)."""


@dataclass(frozen=True, slots=True)
class Reasked:
    """What the model is asked again, and what it said."""

    prompt: Prompt
    passages: Sequence[Passage]
    question: str
    opened: Opened
    closed: Closed


async def ask_again(asked: Reasked, models: Models, archive: ReplayContext) -> list[ReplayFinding]:
    """Ask the model what it was asked, with the same token ids, seed and parameters.

    Raises:
        ModelUnavailable, Overloaded, TooLarge: it cannot be asked.
    """
    if asked.opened.reply:
        return [ReplayFinding("model", ReplayStanding.SAME, f"was not asked: {asked.opened.reply}")]
    findings = [await probes_again(asked, models, archive)] if asked.closed.probes else []
    if not asked.closed.said:
        return [*findings, ReplayFinding("model", ReplayStanding.SAME, "was not asked for an answer, or had none")]
    try:
        sampling = msgspec.json.decode(asked.opened.sampling, type=Sampling)
    except msgspec.MsgspecError:
        return [*findings, ReplayFinding("model", ReplayStanding.UNKNOWN, "the row is older than sampling parameters")]
    ids, checks = await generated(asked, sampling, models, archive)
    quoted = checks.quotes(looked_for(asked, archive))
    texts = [one.text for one in (quoted, *quoted.each())] if quoted.citations else [checks.text]
    findings += said_findings(asked, ids, texts, archive.audit.keys, models.model)
    return [*findings, await repair_again(asked, quoted, models, archive)] if asked.closed.repair else findings


def looked_for(asked: Reasked, archive: ReplayContext) -> str:
    """Return what was looked for."""
    earlier = [message.content for message in asked.prompt.before if message.role == "user"]
    return SearchQuery.of(asked.question, earlier, archive.glossary).text


async def probes_again(asked: Reasked, models: Models, archive: ReplayContext) -> ReplayFinding:
    """Return whether the model judges the passages as it did."""
    then, now = asked.closed.probes, list[float]()
    for probe in asked.prompt.probes[: len(then)]:
        yes, _ = await models.choice_probabilities(
            probe,
            YES_OR_NO,
            conversation_id=asked.opened.conversation_id,
            cache_salt=archive.cache_salt,
        )
        now.append(round(yes, 4))
    return weighed("probes", then, now)


async def repair_again(asked: Reasked, quoted: QuotedAnswer, models: Models, archive: ReplayContext) -> ReplayFinding:
    """Return whether the model chooses as it did among the quotes, where what it says now is repaired by the same."""
    closed = asked.closed
    prompt = archive.prompts.repair(
        asked.question,
        before=asked.prompt.before,
        excerpts=quoted.excerpts(asked.passages),
        language=language_of(asked.question),
    )
    if archive.audit.keys.prompt_hash(closed.tenant, [prompt.ids]) != closed.repair_hash:
        return ReplayFinding(
            "repair", ReplayStanding.UNKNOWN, f"{list(closed.repair)} then; what was asked cannot be rebuilt"
        )
    now = await models.choice_probabilities(
        prompt,
        number_choices(len(closed.repair)),
        conversation_id=asked.opened.conversation_id,
        cache_salt=archive.cache_salt,
        least_mass=LEAST_CHOICE_MASS,
    )
    return weighed("repair", closed.repair, [round(share, 4) for share in now])


def weighed(what: What, then: Sequence[float], now: Sequence[float]) -> ReplayFinding:
    """Return whether one-token answers are as likely as they were."""
    apart = max((abs(a - b) for a, b in zip(then, now, strict=True)), default=0.0)
    standing = ReplayStanding.SAME if apart <= _APART else ReplayStanding.DIFFERS
    return ReplayFinding(what, standing, f"{list(then)} then, {list(now)} now")


async def generated(
    asked: Reasked, sampling: Sampling, models: Models, archive: ReplayContext
) -> tuple[list[int], GroundingStream]:
    """Return the token ids that the model says, and the checks of then that have heard them."""
    ids: list[int] = []
    passages = asked.passages[: asked.prompt.passages]
    grounding = GroundingMode(asked.opened.grounding)
    checks = grounding_stream(asked.question, passages, grounding=grounding, contact=archive.contact)
    stream = models.stream(
        asked.prompt.answer,
        sampling=sampling,
        conversation_id=asked.opened.conversation_id,
        cache_salt=archive.cache_salt,
    )
    async with aclosing(stream) as deltas:
        async for delta in deltas:
            if isinstance(delta, Delta):
                ids += delta.token_ids
                checks.feed(delta.text)
    checks.close()
    return ids, checks


def said_findings(
    asked: Reasked, ids: Sequence[int], texts: Sequence[str], keys: AuditKeys, model: str
) -> Iterator[ReplayFinding]:
    """Compare what the model says with what it said; where it was cut short, up to there.

    `texts` are what the checks make of it: several where all was withheld, the passages' quotes and each alone.
    """
    opened, closed = asked.opened, asked.closed
    upto = ids if closed.finish_reason in WHOLE else ids[: closed.said]
    same = keys.prompt_hash(opened.tenant, [upto]) == closed.said_hash
    detail = f"{closed.said} tokens by {', '.join(closed.models) or opened.model} then, {len(upto)} by {model} now"
    yield ReplayFinding("model", ReplayStanding.SAME if same else ReplayStanding.DIFFERS, detail)
    if closed.finish_reason in WHOLE and not closed.rung and any(text.strip() for text in texts):
        shown = next((text for text in texts if keys.answer_hash(opened.tenant, text) == closed.answer_hash), None)
        after = f"{len(texts[0] if shown is None else shown)} characters after the checks"
        yield ReplayFinding("shown", ReplayStanding.DIFFERS if shown is None else ReplayStanding.SAME, after)
