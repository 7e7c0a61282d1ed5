"""Fit the answerability weights (chatbot/answerability.py) to recorded questions, and measure the result.

Each question is judged by weights fitted without it (ten folds), so the threshold curve predicts new questions of this
kind; only the threshold is chosen on the same questions. The current checks are applied to the model's text, so an
answer counts as the customer would read it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray

from chatbot.answerability import AnswerabilityWeights, log_odds, nearness
from chatbot.calibration import Calibration
from chatbot.prompt import load_templates
from evals.quality.record import ASKS_ALL
from evals.quality.rescore import CheckSettings, RecordedAnswerCheck
from evals.questions import (
    Dataset,
    RecordedAnswer,
    Recording,
    RecordingBroken,
    Sample,
    recording_header,
    without_documents,
)
from evals.scorers import judge_answer
from knowledge.bank import Bank
from knowledge.passage import language_of

WEIGHTS = ("bias", "first", "dense", "terms", "unknown", "english")
FEWEST_ANSWERABLE, FEWEST_UNANSWERABLE = 40, 15
"""With fewer, an interval is too wide to decide anything: 4 of 15 is between .11 and .52."""
FOLDS = 10
THRESHOLDS = tuple(round(n / 100, 2) for n in range(2, 99))

_LEAST_RIGHT = 0.5
"""Minimum share of the right answers possible at any threshold; with fewer, the product hardly answers."""
_RIDGE = 0.1
"""Regularisation towards 0; otherwise a few questions could be separated by huge weights."""
_NEAR_MISS_WEIGHT = 0.35
"""The weight of a near miss; a truly unanswerable question, about something that no document names, has weight 1."""
_NEVER_NEAR = 0.02
"""Passages count as near from the score that all but this share of the answerable questions reach."""
_COSINE_MARGIN = 0.02
"""The model is asked if the best cosine is at most this far below the smallest of an answerable question."""

Floats = NDArray[np.float64]


class NotCalibrated(Exception):
    """The questions or their recording cannot be used for a calibration; the message contains the remedy."""


class Outcome(StrEnum):
    """The customer's result if the threshold lets a question through.

    INVENTED: an unanswerable question was answered. ANSWERED: there is no known answer to compare with. UNASKED:
    refused during the recording, so the model's answer is unknown; counts as not right.
    """

    RIGHT = "right"
    WRONG = "wrong"
    BESIDE = "beside"
    INVENTED = "invented"
    ANSWERED = "answered"
    REFUSED = "refused"
    UNASKED = "unasked"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded question; `features` are in the order of WEIGHTS, empty if no threshold lets it through.

    `has_document`: whether the passages include a document that answers it; None if unknown.
    """

    sample: Sample
    unanswerable: bool
    near_miss: bool
    features: tuple[float, ...]
    dense: float
    outcome: Outcome
    shown_text: str = ""
    titles: tuple[str, ...] = ()
    has_document: bool | None = None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The results at a threshold: counts of `answerable` and `unanswerable` questions.

    `right`, `wrong`, `beside` and `unasked` count answerable questions with a known answer (`judged` in total).
    """

    threshold: float
    answerable: int
    judged: int
    answered: int
    right: int
    wrong: int
    beside: int
    unasked: int
    unanswerable: int
    invented: int

    @property
    def not_right(self) -> int:
        """The number of answers that are wrong or beside the question, plus questions not asked (answer unknown)."""
        return self.wrong + self.beside + self.unasked

    @property
    def refused(self) -> int:
        """The number of answerable questions that are refused."""
        return self.answerable - self.answered


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """The bank's limits: the shares of answerable questions answered wrongly and of unanswerable questions answered."""

    not_right: float
    invented: float

    def excess(self, point: Point) -> float:
        """Return by how much a point exceeds both bars together."""
        not_right = point.not_right / max(1, point.judged)
        invented = point.invented / max(1, point.unanswerable)
        return max(0.0, not_right - self.not_right) + max(0.0, invented - self.invented)


class CalibrationResult(msgspec.Struct, frozen=True, kw_only=True):
    """A fit: weights with the chosen threshold, the curve, and the score of each case by weights fitted without it."""

    weights: AnswerabilityWeights
    chosen: Point
    reason: str
    curve: tuple[Point, ...]
    cases: tuple[Case, ...]
    scores: tuple[float, ...]
    bars: Bars


def cases_of(recording: Recording, dataset: Dataset, bank: Bank) -> list[Case]:
    """Return the recorded questions of a data set, with the answers that customers would see today."""
    settings = CheckSettings(bank=bank, weights=ASKS_ALL)
    samples = {sample.id: sample for sample in dataset.samples}
    near_misses = {without_documents(sample.id): sample for sample in dataset.samples}
    cases = []
    for recorded in recording.answers:
        if recorded.id in samples:
            sample = samples[recorded.id]
            check = RecordedAnswerCheck(sample, recorded, recording.passages_of(recorded), settings)
            cases.append(_case(sample, recorded, check, dataset, recording))
        elif recorded.id in near_misses:
            cases.append(_near_miss_case(near_misses[recorded.id], recorded))
    return cases


def _near_miss_case(sample: Sample, recorded: RecordedAnswer) -> Case:
    return Case(
        sample=sample,
        unanswerable=True,
        near_miss=True,
        features=features(sample, recorded),
        dense=max(recorded.dense),
        outcome=Outcome.INVENTED,
    )


def _case(
    sample: Sample, recorded: RecordedAnswer, check: RecordedAnswerCheck, dataset: Dataset, recording: Recording
) -> Case:
    """Return a recorded question with the outcome for the customer if the threshold lets the question through."""
    answer = check.answer()
    is_asked = bool(recorded.probes) and not check.is_never_asked()
    if not is_asked or (recorded.model_text is not None and answer.refused):
        outcome = Outcome.REFUSED
    elif recorded.model_text is None:
        outcome = Outcome.UNASKED
    elif sample.unanswerable:
        outcome = Outcome.INVENTED
    elif not sample.answers:
        outcome = Outcome.ANSWERED
    else:
        outcome = Outcome(judge_answer(answer.text, recorded.standalone or sample.text, sample.answers))
    right_documents = dataset.right_documents(sample)
    documents = {document_id for document_id, _, _ in recorded.passages}
    passages = recording.passages_of(recorded)
    return Case(
        sample=sample,
        unanswerable=sample.unanswerable,
        near_miss=False,
        features=features(sample, recorded) if is_asked else (),
        dense=max(recorded.dense, default=-1.0),
        outcome=outcome,
        shown_text=answer.text,
        titles=tuple(dict.fromkeys(passages[citation.n - 1].title for citation in answer.citations)),
        has_document=bool(right_documents & documents) if right_documents and is_asked else None,
    )


def features(sample: Sample, recorded: RecordedAnswer) -> tuple[float, ...]:
    """Return the features that chatbot/answerability.py weighs, in the order of WEIGHTS."""
    return (
        1.0,
        log_odds(recorded.probes[0]),
        nearness(max(recorded.dense)),
        math.log1p(max(recorded.terms)),
        recorded.unknown,
        float(language_of(recorded.standalone or sample.text) == "en"),
    )


def fit(cases: Sequence[Case]) -> AnswerabilityWeights:
    """Fit a logistic regression in which answerable and unanswerable questions have equal weight.

    The thresholds are .5 and .1; the `likeliest` weight is 0 (docs/decisions/0002-answerability.md).
    """
    rows, targets, shares = list[tuple[float, ...]](), list[float](), list[float]()
    for unanswerable in (False, True):
        class_cases = [case for case in cases if case.features and case.unanswerable is unanswerable]
        case_weights = [_NEAR_MISS_WEIGHT if case.near_miss else 1.0 for case in class_cases]
        rows += [case.features for case in class_cases]
        targets += [0.0 if unanswerable else 1.0] * len(class_cases)
        shares += [0.5 * weight / sum(case_weights) for weight in case_weights]
    x, y = np.array(rows), np.array(targets)
    balance = np.array(shares) * len(y)
    ridge = np.diag([0.0, *[_RIDGE] * (len(WEIGHTS) - 1)])
    weights: Floats = np.zeros(len(WEIGHTS))
    for _ in range(50):  # Newton's method; converges in about eight steps
        p = 1 / (1 + np.exp(-x @ weights))
        gradient = x.T @ (balance * (p - y)) + ridge @ weights
        curvature = (x * (balance * p * (1 - p))[:, None]).T @ x + ridge
        weights = weights - np.linalg.solve(curvature + 1e-9 * np.eye(len(WEIGHTS)), gradient)
    fitted = dict(zip(WEIGHTS, (round(float(weight), 3) + 0.0 for weight in weights), strict=True))
    cosines = [case.dense for case in cases if case.features and not case.unanswerable]
    least = round(min(cosines, default=-1.0) - _COSINE_MARGIN, 3)
    return AnswerabilityWeights(threshold=0.5, near=0.1, least_dense=least, likeliest=0.0, **fitted)


def score(case: Case, weights: AnswerabilityWeights) -> float:
    """Return the fitted probability that the passages contain the answer; 0 if no threshold admits the question."""
    if not case.features:
        return 0.0
    z = sum(getattr(weights, name) * value for name, value in zip(WEIGHTS, case.features, strict=True))
    return 1 / (1 + math.exp(-z))


def cross_validated_scores(cases: Sequence[Case]) -> list[float]:
    """Return the score of each case by weights fitted without it and its near miss."""
    order = sorted({(case.sample.unanswerable, case.sample.id) for case in cases})
    folds = {sample_id: n % FOLDS for n, (_, sample_id) in enumerate(order)}
    weights = [fit([case for case in cases if folds[case.sample.id] != n]) for n in range(FOLDS)]
    return [score(case, weights[folds[case.sample.id]]) for case in cases]


def curve_of(cases: Sequence[Case], scores: Sequence[float]) -> tuple[Point, ...]:
    """Return the results at each threshold; near misses are excluded because customers don't ask them."""
    scored = [(case, value) for case, value in zip(cases, scores, strict=True) if not case.near_miss]
    return tuple(point_at(threshold, scored) for threshold in THRESHOLDS)


def point_at(threshold: float, scored: Sequence[tuple[Case, float]]) -> Point:
    """Return the results of scored questions at a threshold."""
    answerable = [case for case, _ in scored if not case.unanswerable]
    answered = [case for case, value in scored if value >= threshold and case.outcome is not Outcome.REFUSED]
    answered_answerable = [case for case in answered if not case.unanswerable]
    outcomes = Counter(case.outcome for case in answered_answerable if case.sample.answers)
    return Point(
        threshold=threshold,
        answerable=len(answerable),
        judged=sum(bool(case.sample.answers) for case in answerable),
        answered=len(answered_answerable),
        right=outcomes[Outcome.RIGHT],
        wrong=outcomes[Outcome.WRONG],
        beside=outcomes[Outcome.BESIDE],
        unasked=outcomes[Outcome.UNASKED],
        unanswerable=len(scored) - len(answerable),
        invented=len(answered) - len(answered_answerable),
    )


def chosen_point(curve: Sequence[Point], bars: Bars) -> tuple[Point, str]:
    """Return the point with the most right answers within the bars, and the reason.

    If it has less than half of the possible right answers, return the point with the best balance: the share of right
    answers minus the shares of other answers and of answered unanswerable questions.
    """
    most_right = max(point.right for point in curve)
    points_within_bars = [point for point in curve if not bars.excess(point)]
    best = max(points_within_bars, key=lambda point: (point.right, -point.threshold), default=None)
    if best is not None and best.right >= _LEAST_RIGHT * most_right:
        return best, "of all thresholds that hold both bars, this one has the most right answers"

    def balance(point: Point) -> tuple[float, float]:
        right, not_right = point.right / max(1, point.judged), point.not_right / max(1, point.judged)
        return right - not_right - point.invented / max(1, point.unanswerable), point.threshold

    reason = (
        "no threshold holds both bars and has half of the possible right answers; this one has the best balance of "
        "right answers against other answers and answered unanswerable questions"
    )
    if best is not None:
        reason += f" (both bars hold at {best.threshold:.2f}, with {best.right} right answers)"
    return max(curve, key=balance), reason


def require_enough(samples: Sequence[Sample]) -> None:
    """Check that there are enough questions of each kind.

    Raises:
        NotCalibrated: there are too few answerable or unanswerable ones.
    """
    unanswerable = sum(sample.unanswerable for sample in samples)
    answerable = len(samples) - unanswerable
    if not unanswerable:
        raise NotCalibrated(
            "no question is unanswerable, but a fit needs both kinds: add at least "
            f'{FEWEST_UNANSWERABLE} questions that customers ask and no document answers, with "unanswerable": true'
        )
    if unanswerable < FEWEST_UNANSWERABLE or answerable < FEWEST_ANSWERABLE:
        raise NotCalibrated(
            f"{answerable} answerable and {unanswerable} unanswerable questions are too few to fit: at least "
            f"{FEWEST_ANSWERABLE} and {FEWEST_UNANSWERABLE}, better 70 and 30, so that a share is known within a tenth"
        )
    if not any(sample.answers for sample in samples if not sample.unanswerable):
        raise NotCalibrated("no question has `answers`, so none can be judged right or wrong")


def require_current(recording: Recording, dataset: Dataset, path: Path) -> None:
    """Check that a recording matches the current data set and prompts.

    Raises:
        RecordingBroken: its documents or prompts differ, or it lacks questions.
    """
    current = recording_header(dataset, model=recording.header.model, profile=recording.header.profile)
    recorded = {answer.id for answer in recording.answers}
    missing = sum(sample.id not in recorded for sample in dataset.samples if sample.as_of is None)
    differences = []
    if recording.header.prompt_version != current.prompt_version:
        differences.append("its prompts are of another version")
    if recording.header.documents != current.documents:
        differences.append(f"the documents of {dataset.name} have changed")
    if missing:
        differences.append(f"{missing} of {len(dataset.samples)} questions are not in it")
    if differences:
        raise RecordingBroken(f"{path} does not fit: {', '.join(differences)}. Run without --recording to ask again")


def calibrate(cases: Sequence[Case], bars: Bars) -> CalibrationResult:
    """Return the fit to a bank's own questions.

    Raises:
        NotCalibrated: there are too few questions of a kind.
    """
    require_enough([case.sample for case in cases if not case.near_miss])
    scores = cross_validated_scores(cases)
    curve = curve_of(cases, scores)
    chosen, reason = chosen_point(curve, bars)
    answerable = [value for case, value in zip(cases, scores, strict=True) if case.features and not case.unanswerable]
    near = min(chosen.threshold, round(float(np.quantile(answerable, _NEVER_NEAR)), 3))
    weights = fit(cases).model_copy(update={"threshold": chosen.threshold, "near": near})
    return CalibrationResult(
        weights=weights, chosen=chosen, reason=reason, curve=curve, cases=tuple(cases), scores=tuple(scores), bars=bars
    )


def calibration_of(weights: AnswerabilityWeights, *, embedder: str, model: str) -> Calibration:
    """Return a calibration for the embedder, served model and probe that were used."""
    return Calibration(embedder=embedder, models=(model,), probe=load_templates().probe_version, answerability=weights)


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a CALIBRATION_FILE."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(calibration.model_dump(mode="json"), sort_keys=False), "utf-8")
