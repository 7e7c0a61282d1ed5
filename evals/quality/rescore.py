"""Apply the current checks to recorded answers, giving the answers that customers would see now (pure).

Numbers in each recorded answer are also altered, one at a time, to a figure that is in no passage or question; the
checks must show none of them. This tests wrong numbers in known places, not only those that a model happened to write.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from chatbot import answerability
from chatbot.answerability import AnswerabilityWeights, Evidence
from chatbot.calibration import read_calibration
from chatbot.events import Citation, Event, Notice
from chatbot.grounding import GroundingStream, plain_text, quantities, unsupported_quantities
from chatbot.questions import Verdict, excluded_topic, screen
from chatbot.quotes import close_candidates, quoting_answer, rank
from chatbot.turns import chosen_units
from evals.quality.summary import Measures, Run, summarise
from evals.questions import CustomerAnswer, Dataset, RecordedAnswer, Recording, Sample, recording_header
from knowledge.bank import Bank
from knowledge.passage import Hit, Language, Passage, language_of
from knowledge.profiles import AnswerMode

MOST_ALTERED = 3
"""Numbers altered per answer, one at a time."""
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


def rescore(recording: Recording, dataset: Dataset, *, bank: Bank, answer: AnswerMode = AnswerMode.QUOTE) -> Run:
    """Return the run of the recorded answers; two of its measures show whether the recording is up to date."""
    samples = {sample.id: sample for sample in dataset.samples}
    settings = CheckSettings(bank=bank, answer=answer)
    answers: list[CustomerAnswer] = []
    shown_alterations: list[bool] = []
    unanswerable_certain: list[bool] = []
    for recorded in recording.answers:
        sample = samples.get(recorded.id)
        if sample is None:
            continue
        check = RecordedAnswerCheck(sample, recorded, recording.passages_of(recorded), settings)
        answers.append(check.answer())
        if sample.unanswerable:
            unanswerable_certain.append(check.evidence() is Evidence.CERTAIN)
        shown_alterations += check.altered_numbers_shown()
    answered = replace(dataset, samples=tuple(samples[answer.id] for answer in answers))
    run = summarise(answered, [], answers, contact=bank.telephone)
    current = recording_header(dataset, model=recording.header.model, profile=recording.header.profile)
    checks: Measures = {
        "altered_numbers": len(shown_alterations),
        "altered_numbers_shown": sum(shown_alterations),
        "unanswerable_certain": round(sum(unanswerable_certain) / max(1, len(unanswerable_certain)), 4),
        "prompt_is_recorded": int(recording.header.prompt_version == current.prompt_version),
        "documents_are_recorded": int(recording.header.documents == current.documents),
    }
    figures: Measures = {
        name: value for name, value in run.measures.items() if value is not None and "seconds" not in name
    }
    intervals = {name: interval for name, interval in run.intervals.items() if name in figures}
    return Run(dataset=run.dataset, measures={**figures, **checks}, rows=run.rows, intervals=intervals)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """How recorded answers are checked; `weights` default to the weights of the shipped calibration."""

    bank: Bank
    answer: AnswerMode = AnswerMode.QUOTE
    weights: AnswerabilityWeights | None = None


class RecordedAnswerCheck:
    """One recorded answer, checked by screening, answerability and grounding as in a turn."""

    def __init__(
        self, sample: Sample, recorded: RecordedAnswer, passages: Sequence[Passage], settings: CheckSettings
    ) -> None:
        self._sample = sample
        self._recorded = recorded
        self._passages = passages
        self._settings = settings
        self._bank = settings.bank
        self._question = recorded.standalone or screen(sample.text).text
        self._language: Language = language_of(self._question)

    def answer(self) -> CustomerAnswer:
        """Return the answer that the customer would see."""
        evidence, text = self.evidence(), self._recorded.model_text
        if evidence is Evidence.NONE:
            return self._customer_answer("", [], finish_reason="refused")
        if self._settings.answer is AnswerMode.QUOTE or evidence is Evidence.NEAR or text is None:
            return self._quoted(is_certain=evidence is Evidence.CERTAIN)
        checks, events = self._checked(text)
        if not checks.cited:
            return self._quoted(is_certain=True)
        return self._customer_answer(checks.text, events, finish_reason="stop", grounded=checks.grounded)

    def altered_numbers_shown(self) -> Iterator[bool]:
        """Yield for each altered number whether the checks show it."""
        text = plain_text(self._recorded.model_text or "")
        for start, end, wrong in list(self._altered_numbers(text))[:MOST_ALTERED]:
            checks, _ = self._checked(text[:start] + wrong + text[end:])
            whole_number = rf"(?<![\d.,]){re.escape(wrong)}(?!\d|[.,]\d)"
            yield re.search(whole_number, checks.text) is not None

    def is_never_asked(self) -> bool:
        """Return whether screening or scope refuses the question regardless of probes."""
        is_rejected = screen(self._sample.text).verdict is not Verdict.OK
        return is_rejected or excluded_topic(self._question, self._settings.bank.own_names) is not None

    def evidence(self) -> Evidence:
        """Return the evidence that a turn would find in the passages."""
        if self.is_never_asked() or not self._passages:
            return Evidence.NONE
        weights = self._settings.weights or read_calibration(None).answerability
        hits = self._hits()
        if answerability.nothing_near(hits, weights):
            return Evidence.NONE
        probes, unknown = self._recorded.probes, self._recorded.unknown
        by_search = answerability.evidence_of_search(hits, unknown, self._language, weights)
        if by_search is not None:
            return by_search
        if not probes:
            return Evidence.NONE
        score = answerability.score(hits, probes, unknown, self._language, weights)
        return answerability.evidence_of_score(score, weights)

    def _hits(self) -> list[Hit]:
        """Return hits for the prompt's passages, each with the best cosine and term score of all hits."""
        recorded = self._recorded
        return [
            Hit(passage=passage, score=score, dense=max(recorded.dense), terms=max(recorded.terms))
            for passage, score in zip(self._passages, recorded.scores, strict=False)
        ]

    def _quoted(self, *, is_certain: bool) -> CustomerAnswer:
        """Return the quoting answer, using the model's recorded choice."""
        ranked, choices = rank(self._question, self._hits(), self._language), self._recorded.choices
        if is_certain and choices:
            ranked = ranked[: len(choices[0])]
            chosen = chosen_units(ranked, choices)
        else:
            chosen = close_candidates(ranked)
        quoted = quoting_answer(chosen, self._passages, self._language, is_certain=is_certain)
        return self._customer_answer(quoted.text, quoted.events, finish_reason="stop", grounded=True, quoted=True)

    def _checked(self, text: str) -> tuple[GroundingStream, list[Event]]:
        return checked_answer(self._question, self._passages, text, bank=self._bank)

    def _altered_numbers(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield (start, end, wrong digits) of quantities, with digits of the same form that no source states."""
        sources = list(self._sources())
        stated = {_plain(digits) for source in sources for digits in _DIGITS.findall(source)}
        for quantity in quantities(text):
            digits = _DIGITS.search(text, quantity.start, quantity.end)
            if digits is None:
                continue
            # Never 1: texts express it in words (yearly, each), so a check may rightly accept it.
            for first in "23456789".replace(digits.group()[0], ""):
                other = f"{first}{digits.group()[1:]}"
                altered_quantity = quantity.text.replace(digits.group(), other, 1)
                if _plain(other) not in stated and unsupported_quantities(altered_quantity, sources):
                    yield digits.start(), digits.end(), other
                    break

    def _sources(self) -> Iterator[str]:
        yield from (f"{passage.title} {passage.section} {passage.text}" for passage in self._passages)
        yield from (self._question, self._bank.telephone)

    def _customer_answer(
        self, text: str, events: Sequence[Event], *, finish_reason: str, grounded: bool = False, quoted: bool = False
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
    """Normalise a number, so that 1,000 equals 1000 and 2.5 equals 2.50."""
    whole, _, decimals = digits.replace(",", "").partition(".")
    return f"{whole}.{decimals.rstrip('0')}"


def checked_answer(
    question: str, passages: Sequence[Passage], text: str, *, bank: Bank | None = None
) -> tuple[GroundingStream, list[Event]]:
    """Return the grounding checks after the whole text, and the events they emitted."""
    checks = GroundingStream(passages, question=question, language=language_of(question), bank=bank)
    return checks, [*checks.feed(text), *checks.close()]
