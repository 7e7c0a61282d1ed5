"""Synthetic searches of a time window, drawn from topics, for tests of drift."""

from array import array

import numpy as np

from chatbot.records import SearchFinished

DIMENSIONS = 64
TOPICS = np.linalg.qr(np.random.default_rng(1).normal(size=(DIMENSIONS, 8)))[0].T.astype(np.float32)
ENDED = {"stop": 880, "refused": 100, "handoff": 20}
"""Answers by finish reason."""


def window(
    seed: int,
    questions: int,
    *,
    weights: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1),
    english: float = 0.2,
    better: float = 0.0,
) -> list[SearchFinished]:
    """Return searches drawn from topics with these weights; `better` raises the scores of the best passages."""
    rng = np.random.default_rng(seed)
    drawn: list[SearchFinished] = []
    for topic in rng.choice(len(weights), questions, p=weights):
        vector = TOPICS[topic] + rng.normal(scale=0.08, size=DIMENSIONS).astype(np.float32)
        drawn.append(
            SearchFinished(
                vector=array("f", vector / np.linalg.norm(vector)),
                language="en" if rng.random() < english else "ko",
                meaning=float(rng.normal(0.85 + better, 0.03)),
                terms=float(max(0.0, rng.normal(1.5 + 10 * better, 0.5))),
                about=f"document {topic}",
            )
        )
    return drawn
