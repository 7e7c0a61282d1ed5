"""How far questions and their answers have moved from those of a reference window, as population stability (pure).

A reference is a small file: centers of topics, three directions in which questions differ most, and for each feature
how the window's questions fell into bins. It holds no question, and no vector of one: a center is the mean of at least
twenty. Later questions are counted in the same bins; PSI compares the two (docs/decisions/0012-drift.md).

Customary bounds: below 0.1 nothing has moved, from 0.25 on something is another than it was.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from chatbot.events import FinishReason
from chatbot.records import SearchFinished
from knowledge.passage import LANGUAGES

MODERATE_SHIFT, SIGNIFICANT_SHIFT = 0.1, 0.25
LEAST_QUESTIONS = 200
"""A reference of fewer questions is noise."""
FLOOR = 0.001
"""The share that an empty bin counts as; also in the alert's expression."""
OUTCOMES = (*(reason.value for reason in FinishReason), "error")
_BINS = 10
_DIRECTIONS = 3
_MOST_TOPICS = 12
_LEAST_IN_TOPIC = 20
_ROUNDS = 30

Feature = Literal[
    "language", "topic", "nearness", "direction_1", "direction_2", "direction_3", "meaning", "terms", "outcome"
]
Bin = tuple[Feature, str]
Matrix = npt.NDArray[np.float32]


class FeatureBins(msgspec.Struct, frozen=True):
    """A feature's bins: their names or, of a number, the upper edges of all but the last; and the window's shares."""

    shares: Mapping[str, float]
    edges: tuple[float, ...] = ()


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The window that later questions are compared with."""

    made_at: float
    embedder: str
    questions: int
    centers: tuple[tuple[float, ...], ...]
    abouts: tuple[str, ...]
    """What each topic is mostly about: a document's title."""
    directions: tuple[tuple[float, ...], ...]
    features: Mapping[Feature, FeatureBins]

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that tell one reference from another."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:8]


class TooFewQuestions(Exception):
    """Not enough questions for a reference."""


def psi(expected: Mapping[str, float], counted: Mapping[str, float]) -> float:
    """Return the population stability index of counts against shares; 0 where nothing was counted."""
    total = sum(counted.get(name, 0.0) for name in expected)
    if not total:
        return 0.0
    then = np.array([max(share, FLOOR) for share in expected.values()])
    now = np.array([max(counted.get(name, 0.0) / total, FLOOR) for name in expected])
    return float(np.sum((now - then) * np.log(now / then)))


class BinCounter:
    """Counts questions in the bins of a reference."""

    def __init__(self, reference: Reference) -> None:
        self._features = reference.features
        self._centers = np.array(reference.centers, dtype=np.float32)
        self._directions = np.array(reference.directions, dtype=np.float32)

    def count(self, looked: Sequence[SearchFinished]) -> Counter[Bin]:
        """Return how many of the questions fall into each bin (blocking: some microseconds a question)."""
        found: Counter[Bin] = Counter()
        if not looked:
            return found
        vectors = matrix(looked)
        near = vectors @ self._centers.T
        found.update(("topic", str(n)) for n in near.argmax(axis=1))
        found.update(("language", one.language) for one in looked)
        for feature, values in numbers(looked, near, vectors @ self._directions.T).items():
            places = np.searchsorted(np.array(self._features[feature].edges), values)
            found.update((feature, str(n)) for n in places)
        return found


def build_reference(
    looked: Sequence[SearchFinished], outcomes: Mapping[str, int], *, embedder: str, now: float
) -> Reference:
    """Return the reference of a window (blocking: 3 s for 2,000 questions on a busy core).

    Raises:
        TooFew: a window of so few questions says nothing.
    """
    if len(looked) < LEAST_QUESTIONS:
        raise TooFewQuestions(
            f"{len(looked)} questions were looked for since this process started; {LEAST_QUESTIONS} make a reference"
        )
    vectors = matrix(looked)
    centers, members = topics(vectors)
    _, _, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    near = vectors @ centers.T
    features: dict[Feature, FeatureBins] = {
        "language": shares(LANGUAGES, Counter[str](one.language for one in looked)),
        "topic": shares([str(n) for n in range(len(centers))], Counter(str(n) for n in members)),
        "outcome": shares(OUTCOMES, outcomes),
    }
    for feature, values in numbers(looked, near, vectors @ directions[:_DIRECTIONS].T).items():
        features[feature] = quantiles(values)
    return Reference(
        made_at=now,
        embedder=embedder,
        questions=len(looked),
        centers=rounded(centers),
        abouts=tuple(about(looked, members, n) for n in range(len(centers))),
        directions=rounded(directions[:_DIRECTIONS]),
        features=features,
    )


def matrix(looked: Sequence[SearchFinished]) -> Matrix:
    """Return the vectors, a row a question."""
    return np.frombuffer(b"".join(one.vector.tobytes() for one in looked), dtype=np.float32).reshape(len(looked), -1)


def numbers(looked: Sequence[SearchFinished], near: Matrix, along: Matrix) -> dict[Feature, npt.NDArray[np.floating]]:
    """Return the features that are numbers, a value a question."""
    return {
        "nearness": near.max(axis=1),
        "direction_1": along[:, 0],
        "direction_2": along[:, 1],
        "direction_3": along[:, 2],
        "meaning": np.array([one.meaning for one in looked]),
        "terms": np.array([one.terms for one in looked]),
    }


def quantiles(values: npt.NDArray[np.floating]) -> FeatureBins:
    """Return ten bins of like size; fewer where many values are the same."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]).round(5))
    places = np.searchsorted(edges, values)
    names = [str(n) for n in range(len(edges) + 1)]
    return FeatureBins(shares(names, Counter(str(n) for n in places)).shares, tuple(float(edge) for edge in edges))


def shares(names: Sequence[str], counted: Mapping[str, int]) -> FeatureBins:
    """Return each name's share of what was counted."""
    total = max(1, sum(counted.values()))
    return FeatureBins({name: round(counted.get(name, 0) / total, 5) for name in names})


def topics(vectors: Matrix) -> tuple[Matrix, npt.NDArray[np.intp]]:
    """Return the centers of topics that have at least twenty questions, and each question's topic.

    Lloyd's k-means on the sphere: scikit-learn's would cost every chatbot a second of imports, for once a quarter.
    """
    chance = np.random.default_rng(0)
    count = min(_MOST_TOPICS, len(vectors) // (2 * _LEAST_IN_TOPIC))
    centers = vectors[chance.choice(len(vectors), count, replace=False)]
    for _ in range(_ROUNDS):
        members = (vectors @ centers.T).argmax(axis=1)
        sizes = np.bincount(members, minlength=len(centers))
        kept = [n for n in range(len(centers)) if sizes[n] >= _LEAST_IN_TOPIC]
        means = np.stack([vectors[members == n].mean(axis=0) for n in kept])
        centers = means / np.linalg.norm(means, axis=1, keepdims=True)
    return centers, (vectors @ centers.T).argmax(axis=1)


def about(looked: Sequence[SearchFinished], members: npt.NDArray[np.intp], topic: int) -> str:
    """Return the title that most of a topic's questions found first."""
    titles = Counter(one.about for one, n in zip(looked, members, strict=True) if n == topic and one.about)
    return titles.most_common(1)[0][0] if titles else ""


def rounded(rows: Matrix) -> tuple[tuple[float, ...], ...]:
    """Return the rows with what digits the file is worth."""
    return tuple(tuple(round(float(value), 4) for value in row) for row in rows)
