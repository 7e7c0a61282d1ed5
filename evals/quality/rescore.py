"""Puts the checks of today to a recording: what customers would read now of what the model said then (pure).

Each recorded answer is also told with one of its numbers altered, to a figure that no passage and no question has; not
one of those may be shown. So a wrong number is looked for where it is known to be, not only where a model made one.
"""

import re
from collections.abc import Iterator, Sequence

from chatbot import answerability
from chatbot.events import Citation, Event, Notice
from chatbot.grounding import GroundingMode, GroundingStream, QuotedAnswer, grounding_stream, quantities
from chatbot.questions import Verdict, excluded_topic, screen
from chatbot.services import TurnSettings
from evals.quality.record import BANKS
from evals.quality.summary import Measures, Run, summarise
from evals.questions import Answered, Dataset, Recording, Sample, Spoken, made
from knowledge.passage import Hit, Language, Passage, language_of

ALTERED_OF_ONE = 3
"""Of so many numbers of one answer a wrong one is made, each by itself."""
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


def rescore(
    recording: Recording, dataset: Dataset, *, contact: str, grounding: GroundingMode = GroundingMode.STRICT
) -> Run:
    """Return the run that the recorded answers come to; a recording that is out of date says so in two measures."""
    answers, samples = [], {sample.id: sample for sample in dataset.samples}
    altered = shown = 0
    for spoken in recording.answers:
        if (sample := samples.get(spoken.id)) is None:
            continue
        checked = Checked(sample, spoken, recording.shown_to(spoken), contact=contact, grounding=grounding)
        answers.append(checked.answered())
        tried = list(checked.altered())
        altered, shown = altered + len(tried), shown + sum(tried)
    asked = Dataset(
        folder=dataset.folder,
        samples=tuple(samples[answer.id] for answer in answers),
        relevant=dataset.relevant,
    )
    run = summarise(asked, [], answers, contact=contact)
    today = made(dataset, model=recording.made.model, profile=recording.made.profile)
    more: Measures = {
        "altered_numbers": altered,
        "altered_numbers_shown": shown,
        "prompt_is_recorded": int(recording.made.prompt_version == today.prompt_version),
        "documents_are_recorded": int(recording.made.documents == today.documents),
    }
    figures: Measures = {
        name: value for name, value in run.measures.items() if value is not None and "seconds" not in name
    }
    known = {name: interval for name, interval in run.intervals.items() if name in figures}
    return Run(dataset=run.dataset, measures={**figures, **more}, rows=run.rows, intervals=known)


class Checked:
    """One recorded answer, put through screening, answerability and the citation checks as a turn does."""

    def __init__(
        self, sample: Sample, spoken: Spoken, passages: Sequence[Passage], *, contact: str, grounding: GroundingMode
    ) -> None:
        self._sample = sample
        self._spoken = spoken
        self._passages = passages
        self._contact = contact
        self._grounding = grounding
        self._question = screen(sample.text).text
        self._language: Language = language_of(self._question)

    def answered(self) -> Answered:
        """Return what the customer would see."""
        said = self._spoken.said
        if said is None or self._refused():
            return self._seen("", [], finish_reason="refused")
        checks, events = self._checked(said)
        if checks.text.strip():
            finish_reason = "stop" if checks.cited or self._grounding is GroundingMode.OFF else "refused"
            return self._seen(checks.text, events, finish_reason=finish_reason, grounded=checks.grounded)
        if (quoted := self._repaired(checks)).citations:
            return self._seen(quoted.text, quoted.citations, finish_reason="stop", grounded=True)
        return self._seen("", events, finish_reason="withheld" if checks.withheld else "refused")

    def altered(self) -> Iterator[bool]:
        """Yield for each number that was made wrong whether it would be shown."""
        said = self._spoken.said or ""
        for start, end, wrong in list(self._wrong_numbers(said))[:ALTERED_OF_ONE]:
            checks, _ = self._checked(said[:start] + wrong + said[end:])
            yield re.search(rf"(?<![\d.,]){re.escape(wrong)}(?!\d|[.,]\d)", checks.text) is not None

    def _refused(self) -> bool:
        """Whether the product would refuse before it asks for an answer."""
        if screen(self._sample.text).verdict is not Verdict.OK:
            return True
        if excluded_topic(self._question, tuple(BANKS.values())) is not None:
            return True
        settings = TurnSettings().answerability
        hits = [
            Hit(passage=self._passages[0], score=0.0, dense=dense, terms=terms)
            for dense, terms in zip(self._spoken.dense, self._spoken.terms, strict=True)
        ]
        if answerability.nothing_near(hits, settings):
            return True
        probes, unknown = self._spoken.probes, self._spoken.unknown
        return answerability.score(hits, probes, unknown, self._language, settings) < settings.threshold

    def _repaired(self, checks: GroundingStream) -> QuotedAnswer:
        """Return what is shown where all was withheld; a recorded choice counts between the same quotes only."""
        quoted = checks.quotes(self._spoken.wording)
        between, shares = [quote for quote, _ in self._spoken.repair], [share for _, share in self._spoken.repair]
        known = between == [citation.quote for citation in quoted.citations]
        return quoted.most_probable(shares, TurnSettings().repair_certainty) if known else quoted

    def _checked(self, said: str) -> tuple[GroundingStream, list[Event]]:
        checks = grounding_stream(self._question, self._passages, grounding=self._grounding, contact=self._contact)
        return checks, [*checks.feed(said), *checks.close()]

    def _wrong_numbers(self, said: str) -> Iterator[tuple[int, int, str]]:
        """Yield where a quantity's digits stand and other digits of the same form, which nothing here states."""
        known = {_plain(found) for text in self._known() for found in _DIGITS.findall(text)}
        for quantity in quantities(said):
            digits = _DIGITS.search(said, quantity.start, quantity.end)
            if digits is None:
                continue
            # Never a one: texts say that in words (yearly, each), and a check that knows them is not wrong.
            others = (f"{first}{digits.group()[1:]}" for first in "23456789" if first != digits.group()[0])
            if (wrong := next((other for other in others if _plain(other) not in known), None)) is not None:
                yield digits.start(), digits.end(), wrong

    def _known(self) -> Iterator[str]:
        yield from (f"{passage.title} {passage.section} {passage.text}" for passage in self._passages)
        yield from (self._question, self._contact)

    def _seen(self, text: str, events: Sequence[Event], *, finish_reason: str, grounded: bool = False) -> Answered:
        citations = tuple(event for event in events if isinstance(event, Citation))
        return Answered(
            id=self._sample.id,
            text=text,
            finish_reason=finish_reason,
            grounded=grounded,
            sources=(),
            citations=citations,
            cited={one.n: _whole(self._passages[one.n - 1]) for one in citations},
            notices=tuple(event.code for event in events if isinstance(event, Notice)),
            first_token_seconds=None,
            seconds=0.0,
            prompt_tokens=0,
            answer_tokens=0,
        )


def _whole(passage: Passage) -> str:
    return "\n".join(filter(None, (passage.title, passage.section, passage.text)))


def _plain(digits: str) -> str:
    """Return one spelling of a number: 1,000 and 1000, 2.5 and 2.50 are the same."""
    whole, _, decimals = digits.replace(",", "").partition(".")
    return f"{whole}.{decimals.rstrip('0')}"
