"""Compute the drift of questions and answers from a reference window: the population stability index. No I/O.

A reference is a small file: topic centers, the three directions in which questions differ most, and the shares of each
feature's bins in the window. It contains no question and no question's vector: a center is the mean of at least twenty.
Later questions are counted in the same bins, and the index compares the shares (docs/decisions/0012-drift.md).
Customary bounds: Siddiqi, "Credit Risk Scorecards", 2006.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from chatbot.events import FinishReason
from chatbot.records import SearchFinished
from knowledge.passage import LANGUAGES

MODERATE_SHIFT: Final = 0.1
"""A lower index means no shift."""
SIGNIFICANT_SHIFT: Final = 0.25
LEAST_QUESTIONS: Final = 200
"""The minimum number of questions of a reference; fewer would be noise."""
FLOOR: Final = 0.001
"""The minimum share of a bin; the alert's expression uses it too."""
OUTCOMES: Final = (*(reason.value for reason in FinishReason), "error")
_BINS: Final = 10
_DIRECTIONS: Final = 3
_MOST_TOPICS: Final = 12
_LEAST_IN_TOPIC: Final = 20
_KMEANS_ROUNDS: Final = 30

Feature = Literal[
    "language", "topic", "nearness", "direction_1", "direction_2", "direction_3", "meaning", "terms", "outcome"
]
Bin = tuple[Feature, str]
Matrix = npt.NDArray[np.float32]
"""One row per question or topic."""


class FeatureBins(msgspec.Struct, frozen=True):
    """The window's share of each bin of a feature, by bin name.

    Bins of a numeric feature are named by their index; `edges` are the upper edges of all bins but the last.
    """

    shares: Mapping[str, float]
    edges: tuple[float, ...] = ()


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The reference window; `made_at` is in Unix seconds."""

    made_at: float
    embedder: str
    questions: int
    centers: tuple[tuple[float, ...], ...]
    abouts: tuple[str, ...]
    """For each topic, the most frequent title of its questions' best document."""
    directions: tuple[tuple[float, ...], ...]
    features: Mapping[Feature, FeatureBins]

    @property
    def id(self) -> str:
        """Eight hexadecimal digits of a hash of the reference."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()[:8]


class TooFewQuestions(Exception):
    """The window has fewer questions than a reference needs."""


def psi(expected: Mapping[str, float], counted: Mapping[str, float]) -> float:
    """Return the population stability index of counts against expected shares; 0 without counts."""
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

    def count(self, searches: Sequence[SearchFinished]) -> Counter[Bin]:
        """Count the questions in each bin (blocking: some microseconds per question)."""
        counts: Counter[Bin] = Counter()
        if not searches:
            return counts
        vectors = _vectors(searches)
        similarities = vectors @ self._centers.T
        counts.update(("topic", str(topic)) for topic in similarities.argmax(axis=1))
        counts.update(("language", search.language) for search in searches)
        for feature, values in _numbers(searches, similarities, vectors @ self._directions.T).items():
            indices = np.searchsorted(np.array(self._features[feature].edges), values)
            counts.update((feature, str(index)) for index in indices)
        return counts


def build_reference(
    searches: Sequence[SearchFinished], outcomes: Mapping[str, int], *, embedder: str, now: float
) -> Reference:
    """Build the reference of a window (blocking: 3 s for 2,000 questions on a busy core).

    Raises:
        TooFewQuestions: the window has fewer than `LEAST_QUESTIONS`.
    """
    if len(searches) < LEAST_QUESTIONS:
        raise TooFewQuestions(
            f"{len(searches)} questions were looked for since this process started; {LEAST_QUESTIONS} make a reference"
        )
    vectors = _vectors(searches)
    centers, topics = _topics(vectors)
    _, _, directions = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    features: dict[Feature, FeatureBins] = {
        "language": FeatureBins(_shares(LANGUAGES, Counter[str](search.language for search in searches))),
        "topic": FeatureBins(_shares(_names(len(centers)), Counter(str(topic) for topic in topics))),
        "outcome": FeatureBins(_shares(OUTCOMES, outcomes)),
    }
    numbers = _numbers(searches, vectors @ centers.T, vectors @ directions[:_DIRECTIONS].T)
    features |= {feature: _quantile_bins(values) for feature, values in numbers.items()}
    return Reference(
        made_at=now,
        embedder=embedder,
        questions=len(searches),
        centers=_rounded(centers),
        abouts=tuple(_title_of(searches, topics, topic) for topic in range(len(centers))),
        directions=_rounded(directions[:_DIRECTIONS]),
        features=features,
    )


def _vectors(searches: Sequence[SearchFinished]) -> Matrix:
    joined = b"".join(search.vector.tobytes() for search in searches)
    return np.frombuffer(joined, dtype=np.float32).reshape(len(searches), -1)


def _numbers(
    searches: Sequence[SearchFinished], similarities: Matrix, projections: Matrix
) -> dict[Feature, npt.NDArray[np.floating]]:
    """Return the numeric features, with one value per question."""
    return {
        "nearness": similarities.max(axis=1),
        "direction_1": projections[:, 0],
        "direction_2": projections[:, 1],
        "direction_3": projections[:, 2],
        "meaning": np.array([search.meaning for search in searches]),
        "terms": np.array([search.terms for search in searches]),
    }


def _quantile_bins(values: npt.NDArray[np.floating]) -> FeatureBins:
    """Return ten bins of about equal size, or fewer if many values are equal."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1]).round(5))
    indices = np.searchsorted(edges, values)
    shares = _shares(_names(len(edges) + 1), Counter(str(index) for index in indices))
    return FeatureBins(shares, tuple(float(edge) for edge in edges))


def _names(count: int) -> list[str]:
    return [str(n) for n in range(count)]


def _shares(names: Sequence[str], counts: Mapping[str, int]) -> dict[str, float]:
    """Return each name's share of the counts."""
    total = max(1, sum(counts.values()))
    return {name: round(counts.get(name, 0) / total, 5) for name in names}


def _topics(vectors: Matrix) -> tuple[Matrix, npt.NDArray[np.intp]]:
    """Return the centers of topics with at least twenty questions, and each question's topic.

    Spherical k-means (Dhillon and Modha, 2001), implemented here because importing scikit-learn takes a second.
    """
    rng = np.random.default_rng(0)
    count = min(_MOST_TOPICS, len(vectors) // (2 * _LEAST_IN_TOPIC))
    centers = vectors[rng.choice(len(vectors), count, replace=False)]
    for _ in range(_KMEANS_ROUNDS):
        topics = (vectors @ centers.T).argmax(axis=1)
        sizes = np.bincount(topics, minlength=len(centers))
        kept_topics = [topic for topic in range(len(centers)) if sizes[topic] >= _LEAST_IN_TOPIC]
        means = np.stack([vectors[topics == topic].mean(axis=0) for topic in kept_topics])
        centers = means / np.linalg.norm(means, axis=1, keepdims=True)
    return centers, (vectors @ centers.T).argmax(axis=1)


def _title_of(searches: Sequence[SearchFinished], topics: npt.NDArray[np.intp], topic: int) -> str:
    """Return the most frequent title of a topic's best documents, or ""."""
    titles = Counter(search.about for search, n in zip(searches, topics, strict=True) if n == topic and search.about)
    return titles.most_common(1)[0][0] if titles else ""


def _rounded(rows: Matrix) -> tuple[tuple[float, ...], ...]:
    """Round the rows to four decimal places, which keeps the file small."""
    return tuple(tuple(round(float(value), 4) for value in row) for row in rows)
