"""Ties each sentence of an answer to the passages that say it, while the answer streams; unsupported ones are withheld.

The model is not trusted: its own markers are removed, and a sentence is cited because comparison finds it in a passage
and every number of it stands there too. Three modes, one per tenant:

- strict: a sentence is held back until it is complete and shown only when the passages support it, and contain every
  link in it. Where its number stands among others of its kind, or it only says yes or no to the question's own words,
  the passage's own sentence or table is shown instead: which number is asked for is left to the reader.
- numbers: text flows; from the first number on it is held until the number is complete and some source contains it,
  otherwise the rest of the sentence is withheld. Sentences are cited once they are complete.
- off: everything flows and is cited afterwards where comparison supports it.

Greetings, "please call us" and "the documents do not say" claim nothing and pass without a citation. A refusal may
repeat the numbers of the question; in any other sentence a number that only the question states is unsupported.
No I/O: text in, events out. The same text gives the same answer and citations whatever the size of the feeds.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import itemgetter
from typing import Final

import msgspec

from chatbot.events import Citation, Event, Notice, NoticeCode, Token
from chatbot.grounding.evidence import Comparison, Quote
from chatbot.grounding.links import first_unknown_link
from chatbot.grounding.markers import MarkerFilter
from chatbot.grounding.numbers import quantities
from chatbot.grounding.sentences import SentenceSplitter
from knowledge.passage import Language, Passage, language_of


class GroundingMode(StrEnum):
    STRICT = "strict"
    NUMBERS = "numbers"
    OFF = "off"


WITHHELD: Final[dict[Language, str]] = {
    "ko": "문서에서 확인되지 않은 내용은 표시하지 않았습니다.",
    "en": "Statements that our documents do not confirm were left out.",
}
ELLIPSIS: Final = "…"


class GroundingStream:
    """Takes the model's text and returns what the customer may see, with citations; `sources` are numbered from 1.

    `question`: a refusal may repeat its numbers. `contact` is the bank's own telephone number, which "please call us"
    may name.
    """

    def __init__(
        self,
        sources: Sequence[Passage],
        *,
        grounding: GroundingMode,
        language: Language,
        question: str = "",
        contact: str = "",
    ) -> None:
        self._sources = tuple(sources)
        self._texts = tuple(f"{passage.heading}\n{passage.text}" for passage in sources)
        self._comparison = Comparison(sources, question=question, contact=contact)
        self._question = question
        self._language = language
        self._mode = grounding
        self._markers = MarkerFilter()
        self._sentences = SentenceSplitter()
        self._numbers = _NumberCheck(self._comparison)
        self._shown: list[str] = []
        self._length = 0  # of the shown text
        self._start = 0  # of the present sentence in the shown text
        self._flowed = 0  # how many characters of the present sentence are shown
        self._yes_or_no = ""
        self._cited: list[int] = []
        self._quoted: list[Quote] = []
        self._claims = 0
        self._unsupported = 0
        self._attempt: list[str] = []
        self.withheld = 0
        """How many sentences were withheld, whole or in part."""

    @property
    def text(self) -> str:
        """The answer as shown so far: the concatenation of all `token` texts."""
        return "".join(self._shown)

    @property
    def grounded(self) -> bool:
        """Whether at least one claim is cited and nothing was shown that the passages do not support."""
        return self._claims > 0 and self._unsupported == 0

    @property
    def cited(self) -> tuple[int, ...]:
        """The numbers of the sources cited so far, in order of first use."""
        return tuple(self._cited)

    def quotes(self, query: str) -> "QuotedAnswer":
        """Return the passages' own sentences to show for an answer that was withheld whole; none for any other."""
        if self.text.strip() or not self.withheld:
            return QuotedAnswer(())
        return quote_passages(
            self._question, self._sources, self._language, query=query, attempt=" ".join(self._attempt)
        )

    def feed(self, text: str) -> list[Event]:
        """Return the events that are certain now."""
        return self._advance(self._sentences.feed(self._markers.feed(text)))

    def close(self) -> list[Event]:
        """Return the events of what was held back."""
        pieces = self._sentences.feed(self._markers.close())
        events = self._advance([*pieces, *self._sentences.close()])
        # A yes or no at the end belongs to no claim.
        return [*events, *self._withhold()] if self._yes_or_no else events

    def _advance(self, complete: Sequence[str]) -> list[Event]:
        events: list[Event] = []
        for piece in complete:
            events += self._finish(piece)
        if self._mode is GroundingMode.OFF:
            events += self._flow(self._sentences.pending, self._sentences.settled)
        elif self._mode is GroundingMode.NUMBERS:
            pending = self._sentences.pending[: self._sentences.settled]
            events += self._flow(pending, self._numbers.safe_length(pending, complete=False))
        return events

    def _finish(self, piece: str) -> list[Event]:
        if self._mode is GroundingMode.STRICT:
            return self._finish_strictly(piece)
        events: list[Event] = []
        if self._mode is GroundingMode.NUMBERS:
            safe = self._numbers.safe_length(piece, complete=True)
            events += self._flow(piece, safe)
            events += self._withhold(after=piece[:safe]) if safe < len(piece) else []
            self._numbers = _NumberCheck(self._comparison)
            piece = piece[:safe]
        else:
            events += self._flow(piece, len(piece))
        events += self._cite_shown(piece)
        self._begin_sentence()
        return events

    def _finish_strictly(self, piece: str) -> list[Event]:
        judgement = self._comparison.judge(piece)
        if judgement.waits:
            self._yes_or_no += piece
            return []
        yes_or_no, self._yes_or_no = self._yes_or_no, ""
        if not judgement.supported or first_unknown_link(piece, self._texts):
            self._attempt.append(piece)
            return self._withhold()
        if judgement.verbatim and not piece.lstrip().startswith("|"):  # a row says itself which number is whose
            return self._quote(judgement.verbatim)
        events = self._show(yes_or_no)
        self._start = self._length
        events += self._flow(piece, len(piece))
        events += self._cite(judgement.quotes)
        self._claims += judgement.claims
        self._begin_sentence()
        return events

    def _begin_sentence(self) -> None:
        self._flowed = 0
        self._start = self._length

    def _quote(self, quotes: Sequence[Quote]) -> list[Event]:
        """Show sentences or tables of the passages in place of the model's sentence; each once."""
        events: list[Event] = []
        for quote in quotes:
            self._claims += 1
            if quote in self._quoted:
                continue
            self._quoted.append(quote)
            events += self._show("\n\n" if self._length else "")
            self._start = self._length
            events += self._show(quote.text)
            events += self._cite([quote])
            events += self._show("\n\n" if quote.text.startswith("|") else "")
        self._begin_sentence()
        return events

    def _cite_shown(self, piece: str) -> list[Event]:
        """Cite a sentence that is already shown, or count it as unsupported."""
        if not piece.strip():
            return []
        judgement = self._comparison.judge(piece)
        self._claims += judgement.claims and judgement.supported
        self._unsupported += not judgement.supported
        return self._cite(judgement.quotes) if judgement.supported else []

    def _flow(self, sentence: str, length: int) -> list[Event]:
        """Show the first `length` characters of the sentence, as far as they are not shown yet."""
        fresh = sentence[self._flowed : length]
        self._flowed = max(self._flowed, length)
        return self._show(fresh)

    def _show(self, text: str) -> list[Event]:
        """Show a text; an answer does not begin with white space."""
        if self._length == 0:
            text = text.lstrip()
        if not text:
            return []
        self._shown.append(text)
        self._length += len(text)
        return [Token(text=text)]

    def _withhold(self, *, after: str = "") -> list[Event]:
        self.withheld += 1
        events = self._show(ELLIPSIS) if after.strip() else []
        if self.withheld == 1:
            events.append(Notice(code=NoticeCode.WITHHELD, text=WITHHELD[self._language]))
        return events

    def _cite(self, quotes: Sequence[Quote]) -> list[Event]:
        shown = self.text[self._start :]
        start = self._start + len(shown) - len(shown.lstrip())
        end = self._start + len(shown.rstrip())
        for quote in quotes:
            if quote.n not in self._cited:
                self._cited.append(quote.n)
        return [_citation(self._sources, quote, start, end) for quote in quotes]


def grounding_stream(
    question: str, sources: Sequence[Passage], *, grounding: GroundingMode, contact: str = ""
) -> GroundingStream:
    """Return the stream that checks the answer to a screened question."""
    return GroundingStream(
        sources,
        grounding=grounding,
        language=language_of(question),
        question=question,
        contact=contact,
    )


def _citation(sources: Sequence[Passage], quote: Quote, start: int, end: int) -> Citation:
    passage = sources[quote.n - 1]
    return Citation(
        n=quote.n,
        start=start,
        end=end,
        document_id=passage.document_id,
        version=passage.version,
        page=passage.page,
        quote=quote.text,
    )


# After a word with a digit, or one that states or joins numbers, text is held back: the number may still grow.
_NUMERIC_WORD: Final = re.compile(
    r"\d|[０-９]|^[\W_]{0,20}(?:[한두세네](?:$|번|가지|개|명|분|달|시|살|곳|군데|건|장|배|종|단계|주|사람|자리)|다섯|여섯|일곱|여덟|아홉|열|스무|하루|이틀|사흘|나흘|열흘|보름|일주일|정오|자정"
    r"|[일이삼사오육칠팔구십백천만억조]{2,}|[천백만십](?=\s?원)|zero|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|trillion"
    r"|noon|midnight|krw|usd|eur|won|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|[$₩￦€¥£]",
    re.IGNORECASE,
)
_JOINING_WORD: Final = re.compile(r"[\W_]*+(?:and|or|to|및|또는|내지|오전|오후|매월|매달|은행)?[\W_]*+", re.IGNORECASE)
_WORDS: Final = re.compile(r"(?<!\S)\S++(?=\s)")
_WORDS_OR_LAST: Final = re.compile(r"\S+")
# After this many plain words a number is complete: no unit, scale or second half of a range is further away.
_CLOSING_WORDS: Final = 3


class _NumberCheck:
    """How much of one sentence may be shown: up to the first number that is incomplete or stands in no source."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._checked = 0
        self._cut: int | None = None

    def safe_length(self, sentence: str, *, complete: bool) -> int:
        """Return how many characters of the sentence, or of its beginning so far, may be shown."""
        while self._cut is None:
            begin = self._number_after(sentence, self._checked, complete=complete)
            if begin is None:
                return len(sentence) if complete else _length_of_whole_words(sentence)
            end = self._end_of_number(sentence, begin) or (len(sentence) if complete else None)
            if end is None or not self._check(sentence, begin, end, complete=complete):
                return len(sentence[:begin].rstrip())
        return self._cut

    def _check(self, sentence: str, begin: int, end: int, *, complete: bool) -> bool:
        """Check the numbers up to `end`; False when only the whole sentence can tell, since it may be a refusal."""
        claimed = [quantity for quantity in quantities(sentence[:end]) if quantity.end > begin]
        unknown = self._comparison.unknown(claimed)
        if unknown and not complete and self._comparison.in_question(unknown):
            return False
        is_refusal = complete and self._comparison.in_question(unknown) and not self._comparison.judge(sentence).claims
        if unknown and not is_refusal:
            # Not before `begin`: what precedes the number (오후 of 오후 9시) was shown where the text came in pieces.
            self._cut = len(sentence[: max(begin, unknown[0].start)].rstrip())
        self._checked = end
        return True

    def _number_after(self, sentence: str, start: int, *, complete: bool) -> int | None:
        """Return the offset of the next word that may begin a number."""
        pattern = _WORDS_OR_LAST if complete else _WORDS
        numeric = (word for word in pattern.finditer(sentence, start) if _NUMERIC_WORD.search(word.group()))
        return next((word.start() for word in numeric), None)

    def _end_of_number(self, sentence: str, begin: int) -> int | None:
        """Return the offset from which on the number that begins at `begin` cannot grow; None before that."""
        plain_words = 0
        for word in _WORDS.finditer(sentence, begin):
            if _NUMERIC_WORD.search(word.group()):
                plain_words = 0
            elif not _JOINING_WORD.fullmatch(word.group()):
                plain_words += 1
            if plain_words == _CLOSING_WORDS:
                return word.end()
        return None


def _length_of_whole_words(sentence: str) -> int:
    """Return the offset at which the last, perhaps incomplete word and the white space before it begin."""
    return len(sentence[: len(sentence) - len(re.split(r"\s", sentence)[-1])].rstrip())


@dataclass(frozen=True, slots=True)
class QuotedAnswer:
    """An answer that consists of verbatim sentences of the passages, so it is grounded by construction."""

    citations: tuple[Citation, ...]
    text: str = ""

    @classmethod
    def of(cls, introduction: str, citations: Iterable[Citation]) -> "QuotedAnswer":
        """Return the answer that quotes these citations, in this order."""
        text, placed = introduction, list[Citation]()
        for citation in citations:
            text += "\n\n" if citation.quote.startswith(("|", "-", "*")) else "\n\n> "
            end = len(text) + len(citation.quote)
            placed.append(msgspec.structs.replace(citation, start=len(text), end=end))
            text += citation.quote
        return cls(tuple(placed), text if placed else "")

    @property
    def events(self) -> list[Event]:
        """The events of the answer; none where nothing is quoted."""
        return [Token(text=self.text), *self.citations] if self.text else []

    def each(self) -> "tuple[QuotedAnswer, ...]":
        """Return, for each of its quotes, the answer that quotes it alone."""
        introduction = self.text.partition("\n\n")[0]
        return tuple(QuotedAnswer.of(introduction, [citation]) for citation in self.citations)

    def most_probable(self, probabilities: Sequence[float], certainty: float) -> "QuotedAnswer":
        """Return the most probable quote alone, or all quotes where the model is not more certain than `certainty`.

        Certainty is 0 where all quotes are equally probable, however many there are, and 1 where one has all.
        """
        probability, alone = max(zip(probabilities, self.each(), strict=False), key=itemgetter(0), default=(0.0, self))
        even = 1 / max(1, len(probabilities))
        return alone if probability - even > certainty * (1 - even) else self

    def excerpts(self, sources: Sequence[Passage]) -> tuple[Passage, ...]:
        """Return the passages that it quotes, each cut to its quote."""
        return tuple(replace(sources[citation.n - 1], text=citation.quote) for citation in self.citations)


_INTRODUCTION: Final[dict[Language, str]] = {
    "ko": "관련 문서의 내용을 그대로 안내해 드립니다.",
    "en": "Here is what our documents say, word for word.",
}
_MOST_QUOTES: Final = 3
# Share of the best sentence's score that a quote must have.
_NEAR_ENOUGH: Final = 0.6
_SHORTEST_QUOTE: Final = 8


def nearest_quote(question: str, passage: Passage, *, query: str) -> str:
    """Return the sentence or table row of a passage that is nearest to the question; "" where no word is shared.

    `query` is what was searched for: the question with the one before it and synonyms.
    """
    nearest = Comparison([passage], question=question).nearest(query)
    return next((quote.text for score, quote in nearest if score and len(quote.text) >= _SHORTEST_QUOTE), "")


def quote_passages(
    question: str, sources: Sequence[Passage], language: Language, *, query: str = "", attempt: str = ""
) -> QuotedAnswer:
    """Return the at most three sentences or tables nearest to the question, for when no model can answer it.

    `query` is what was searched for: the question with the one before it and synonyms. `attempt` is the model's text
    that the checks withheld: a number in it that the passages contain shows which sentences are meant.
    """
    nearest = Comparison(sources, question=question).nearest(query or question, attempt)
    best = nearest[0][0] if nearest else 0.0
    chosen: list[Quote] = []
    for score, quote in nearest:
        if len(chosen) == _MOST_QUOTES or score < best * _NEAR_ENOUGH or score == 0.0:
            break
        if len(quote.text) >= _SHORTEST_QUOTE and quote not in chosen:
            chosen.append(quote)
    return QuotedAnswer.of(_INTRODUCTION[language], [_citation(sources, quote, 0, 0) for quote in chosen])
