"""Build the events of an answer that quotes the bank's documents. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chatbot.events import Citation, Event, Token
from chatbot.quotes.ranking import Candidate
from knowledge.passage import Language, Passage

_INTRODUCTION: Final[dict[Language, str]] = {
    "ko": "관련 문서의 내용을 그대로 안내해 드립니다.",
    "en": "Here is what our documents say, word for word.",
}
NOT_CERTAIN: Final[dict[Language, str]] = {
    "ko": "질문에 맞는 답인지 확실하지 않습니다. 문서에는 다음과 같이 적혀 있습니다.",
    "en": "I am not certain that this answers your question. Our documents say:",
}


@dataclass(frozen=True, slots=True)
class QuotedAnswer:
    """The events and the text of a quoting answer."""

    events: tuple[Event, ...] = ()
    text: str = ""


def quoting_answer(
    candidates: Sequence[Candidate], sources: Sequence[Passage], language: Language, *, is_certain: bool
) -> QuotedAnswer:
    """Return an answer that quotes the candidates in order; empty without candidates."""
    if not candidates:
        return QuotedAnswer()
    text = (_INTRODUCTION if is_certain else NOT_CERTAIN)[language]
    events: list[Event] = []
    for candidate in candidates:
        start = len(text) + len("\n\n")
        piece = f"\n\n{candidate.text}"
        events.append(Token(text=piece if events else text + piece))  # the first token includes the introduction
        text += piece
        events.append(citation(candidate.n, sources[candidate.n - 1], candidate.text, start, len(text)))
    return QuotedAnswer(tuple(events), text)


def citation(n: int, passage: Passage, quote: str, start: int, end: int) -> Citation:
    """Return a citation of the answer's range [start, end), which a quote from source `n` states."""
    return Citation(
        n=n,
        start=start,
        end=end,
        document_id=passage.document_id,
        version=passage.version,
        page=passage.page,
        link=passage.link,
        quote=quote,
    )
