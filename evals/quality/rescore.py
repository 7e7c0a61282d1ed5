"""Applies the current checks to recorded answers: what customers would read now (pure).

Numbers of each recorded answer are also altered, one at a time, to a figure that no passage and no question states; the
checks may show none of them. So wrong numbers are tested for in known places, not only where a model made one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from chatbot import answerability
from chatbot.answerability import AnswerabilityWeights
from chatbot.calibration import read_calibration
from chatbot.events import Citation, Event, Notice
from chatbot.grounding import (
    GroundingMode,
    GroundingStream,
    Quote,
    QuoteCandidates,
    QuotedAnswer,
    quantities,
    quoted_answer,
)
from chatbot.questions import Verdict, excluded_topic, screen
from chatbot.quoting import Similarities, rank_quotes
from chatbot.services import TurnSettings
from evals.quality.answer_checks import checked_answer
from evals.quality.summary import Measures, Run, summarise
from evals.questions import CustomerAnswer, Dataset, RecordedAnswer, Recording, Sample, recording_header
from knowledge.bank import Bank
from knowledge.passage import Hit, Language, Passage, language_of

MOST_ALTERED = 3
"""Numbers of one answer that are altered, each by itself."""
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


Ranks = Mapping[str, tuple[Quote, ...]]
"""By the answer's id: the sentences of its passages that may state it, the likeliest first."""


async def rank_recorded(recording: Recording, dataset: Dataset, similarities: Similarities) -> Ranks:
    """Rank the sentences for every recorded answer that a model was asked for."""
    samples = {sample.id: sample for sample in dataset.samples}
    return {
        recorded.id: await rank_quotes(
            recorded.standalone or screen(samples[recorded.id].text).text,
            recording.passages_of(recorded),
            similarities,
        )
        for recorded in recording.answers
        if recorded.said is not None and recorded.id in samples
    }


def rescore(
    recording: Recording,
    dataset: Dataset,
    *,
    ranks: Ranks,
    bank: Bank,
    grounding: GroundingMode = GroundingMode.STRICT,
) -> Run:
    """Return the run of the recorded answers; two of its measures say whether the recording is up to date."""
    answers, samples = [], {sample.id: sample for sample in dataset.samples}
    altered_count = shown_count = 0
    for recorded in recording.answers:
        if (sample := samples.get(recorded.id)) is None:
            continue
        passages = recording.passages_of(recorded)
        settings = CheckSettings(bank=bank, grounding=grounding, ranks=ranks)
        check = RecordedAnswerCheck(sample, recorded, passages, settings)
        answers.append(check.answer())
        shown = list(check.altered_numbers_shown())
        altered_count, shown_count = altered_count + len(shown), shown_count + sum(shown)
    answered = replace(dataset, samples=tuple(samples[answer.id] for answer in answers))
    run = summarise(answered, [], answers, contact=bank.telephone)
    today = recording_header(dataset, model=recording.header.model, profile=recording.header.profile)
    checks: Measures = {
        "altered_numbers": altered_count,
        "altered_numbers_shown": shown_count,
        "prompt_is_recorded": int(recording.header.prompt_version == today.prompt_version),
        "documents_are_recorded": int(recording.header.documents == today.documents),
    }
    figures: Measures = {
        name: value for name, value in run.measures.items() if value is not None and "seconds" not in name
    }
    intervals = {name: interval for name, interval in run.intervals.items() if name in figures}
    return Run(dataset=run.dataset, measures={**figures, **checks}, rows=run.rows, intervals=intervals)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """How a recorded answer is checked; `weights` are the shipped ones unless given, `bank` is whose answer it is.

    An answer that is not in `ranks` has its sentences ranked by words alone.
    """

    bank: Bank
    grounding: GroundingMode = GroundingMode.STRICT
    weights: AnswerabilityWeights | None = None
    ranks: Ranks = field(default_factory=dict)


class RecordedAnswerCheck:
    """One recorded answer, put through screening, answerability and the grounding checks as a turn does."""

    def __init__(
        self, sample: Sample, recorded: RecordedAnswer, passages: Sequence[Passage], settings: CheckSettings
    ) -> None:
        self._sample = sample
        self._recorded = recorded
        self._passages = passages
        self._settings = settings
        self._bank = settings.bank
        self._grounding = settings.grounding
        self._question = recorded.standalone or screen(sample.text).text
        self._language: Language = language_of(self._question)
        ranked = settings.ranks.get(recorded.id)
        if ranked is None:
            ranked = QuoteCandidates.of(self._question, passages).ranked()
        self._ranked = ranked

    def answer(self) -> CustomerAnswer:
        """Return the answer that the customer would see."""
        text = self._recorded.said
        if text is None or self._is_refused():
            return self._customer_answer("", [], finish_reason="refused")
        checks, events = self._checked(text)
        if checks.text.strip():
            finish_reason = "stop" if checks.cited or self._grounding is GroundingMode.OFF else "refused"
            return self._customer_answer(checks.text, events, finish_reason=finish_reason, grounded=checks.grounded)
        if checks.withheld_whole and (quoted := self._quoted()).citations:
            return self._customer_answer(
                quoted.text, quoted.citations, finish_reason="stop", grounded=True, quoted=True
            )
        return self._customer_answer("", events, finish_reason="withheld" if checks.withheld else "refused")

    def altered_numbers_shown(self) -> Iterator[bool]:
        """Yield for each altered number whether the checks show it."""
        text = self._recorded.said or ""
        for start, end, wrong in list(self._altered_numbers(text))[:MOST_ALTERED]:
            checks, _ = self._checked(text[:start] + wrong + text[end:])
            yield re.search(rf"(?<![\d.,]){re.escape(wrong)}(?!\d|[.,]\d)", checks.text) is not None

    def is_never_asked(self) -> bool:
        """Return whether screens or scope refuse the question, whatever a probe would say."""
        return screen(self._sample.text).verdict is not Verdict.OK or (
            excluded_topic(self._question, self._settings.bank.own_names) is not None
        )

    def _is_refused(self) -> bool:
        """Return whether a turn refuses before it asks for an answer."""
        if self.is_never_asked():
            return True
        weights = self._settings.weights or read_calibration(None).answerability
        hits = [
            Hit(passage=self._passages[0], score=0.0, dense=dense, terms=terms)
            for dense, terms in zip(self._recorded.dense, self._recorded.terms, strict=True)
        ]
        if answerability.nothing_near(hits, weights):
            return True
        probes, unknown = self._recorded.probes, self._recorded.unknown
        return answerability.score(hits, probes, unknown, self._language, weights) < weights.threshold

    def _quoted(self) -> QuotedAnswer:
        """Return the quotes in place of a withheld answer; a recorded choice applies to the same quotes only."""
        quoted = quoted_answer(self._question, self._ranked, self._passages)
        quotes, probabilities = [quote for quote, _ in self._recorded.repair], [p for _, p in self._recorded.repair]
        if quotes != [citation.quote for citation in quoted.citations]:
            return quoted
        return quoted.most_probable(probabilities, TurnSettings().repair_certainty)

    def _checked(self, text: str) -> tuple[GroundingStream, list[Event]]:
        return checked_answer(
            self._question,
            self._passages,
            text,
            grounding=self._grounding,
            bank=self._bank,
            leading=self._ranked[:1],
        )

    def _altered_numbers(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield the offsets of a quantity's digits, and other digits of the same form that no source states."""
        stated = {_plain(digits) for source in self._sources() for digits in _DIGITS.findall(source)}
        for quantity in quantities(text):
            digits = _DIGITS.search(text, quantity.start, quantity.end)
            if digits is None:
                continue
            # Never a one: texts state it in words (yearly, each), so a check that accepts it is not wrong.
            others = (f"{first}{digits.group()[1:]}" for first in "23456789" if first != digits.group()[0])
            if (wrong := next((other for other in others if _plain(other) not in stated), None)) is not None:
                yield digits.start(), digits.end(), wrong

    def _sources(self) -> Iterator[str]:
        yield from (f"{passage.title} {passage.section} {passage.text}" for passage in self._passages)
        yield from (self._question, self._bank.telephone)

    def _customer_answer(
        self,
        text: str,
        events: Sequence[Event],
        *,
        finish_reason: str,
        grounded: bool = False,
        quoted: bool = False,
    ) -> CustomerAnswer:
        citations = tuple(event for event in events if isinstance(event, Citation))
        return CustomerAnswer(
            id=self._sample.id,
            text=text,
            finish_reason=finish_reason,
            grounded=grounded,
            quoted=quoted,
            sources=(),
            citations=citations,
            cited={citation.n: _full_text(self._passages[citation.n - 1]) for citation in citations},
            notices=tuple(event.code for event in events if isinstance(event, Notice)),
            first_token_seconds=None,
            seconds=0.0,
            prompt_tokens=0,
            answer_tokens=0,
        )


def _full_text(passage: Passage) -> str:
    return "\n".join(filter(None, (passage.title, passage.section, passage.text)))


def _plain(digits: str) -> str:
    """Return one spelling of a number: 1,000 and 1000, 2.5 and 2.50 are equal."""
    whole, _, decimals = digits.replace(",", "").partition(".")
    return f"{whole}.{decimals.rstrip('0')}"
