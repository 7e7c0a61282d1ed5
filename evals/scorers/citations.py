"""Score citations: whether they cite the right documents, and passages that contain the answer (pure)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from evals.questions import CustomerAnswer
from evals.scorers.answers import holds_answer


@dataclass(frozen=True, slots=True, kw_only=True)
class CitationScore:
    """The share of an answer's citations that cite a right document, and whether one of those contains the answer."""

    right: float
    holds_answer: bool


def score_citations(answer: CustomerAnswer, right_documents: Collection[str], answers: Sequence[str]) -> CitationScore:
    """Return an answer's scores; without known `answers`, citing a right document is sufficient."""
    right = [citation for citation in answer.citations if citation.document_id in right_documents]
    texts = [text for citation in right for text in (citation.quote, answer.cited.get(citation.n, ""))]
    return CitationScore(
        right=len(right) / len(answer.citations) if answer.citations else 0.0,
        holds_answer=any(holds_answer(text, answers) for text in texts) if answers else bool(right),
    )
