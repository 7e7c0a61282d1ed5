"""Ties each sentence of an answer to the passages that say it, while the answer streams; what nobody says is withheld.

Nothing here trusts the model: its own markers are taken out, and a sentence is cited because comparison finds it in a
passage and every number of it stands there too. Three modes, one per tenant:

- strict: a sentence is held back until it is complete and shown only when the passages support it, and hold every link
  in it. Where its number stands among others of its kind, or it only says yes or no to the question's own words, the
  passage's own sentence or table is shown instead: which one is asked for is left to the reader, never to the model.
- numbers: text flows; from the first number on it is held until the number is complete and some source holds it,
  otherwise the rest of the sentence is withheld. Sentences are cited once they are complete.
- off: everything flows and is cited afterwards where comparison supports it.

Greetings, "please call us" and "the documents do not say" claim nothing and pass without a citation. A refusal may
repeat the numbers of the question; in any other sentence a number that stands only in the question is unsupported.
Pure: events out, no input or output. The same text gives the same answer and citations however it is cut into feeds.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import itemgetter
from typing import Final

import msgspec

from chatbot.events import Citation, Event, Notice, NoticeCode, Token
from chatbot.grounding.evidence import Comparison, ComparisonSettings, Quote
from chatbot.grounding.links import foreign_address
from chatbot.grounding.markers import Markers
from chatbot.grounding.numbers import quantities
from chatbot.grounding.sentences import Sentences
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
    """Feed the model's text in, get what the customer may see, with citations; `sources` are numbered from 1.

    `question` is the question: a refusal may repeat its numbers. `contact` is the bank's own telephone
    number, which "please call us" may name.
    """

    def __init__(
        self,
        sources: Sequence[Passage],
        *,
        grounding: GroundingMode,
        language: Language,
        question: str = "",
        contact: str = "",
        settings: ComparisonSettings | None = None,
    ) -> None:
        self._sources = tuple(sources)
        self._texts = tuple(f"{passage.heading}\n{passage.text}" for passage in sources)
        self._comparison = Comparison(sources, question=question, contact=contact, settings=settings)
        self._question = question
        self._language = language
        self._grounding = grounding
        self._markers = Markers()
        self._sentences = Sentences()
        self._checker = _NumberCheck(self._comparison)
        self._shown: list[str] = []
        self._length = 0
        self._start = 0
        self._in_sentence = 0
        self._yes_or_no = ""
        self._cited: list[int] = []
        self._quoted: list[Quote] = []
        self._claims = 0
        self._unsupported = 0
        self._attempt: list[str] = []
        self.withheld = 0

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

    def quotes(self, wording: str) -> "QuotedAnswer":
        """Return what repairs an answer that was withheld whole: the passages' own sentences; none for any other."""
        if self.text.strip() or not self.withheld:
            return QuotedAnswer(())
        return quote_passages(
            self._question, self._sources, self._language, wording=wording, attempt=" ".join(self._attempt)
        )

    def feed(self, text: str) -> list[Event]:
        """Return what is now certain."""
        return self._advance(self._sentences.feed(self._markers.feed(text)))

    def close(self) -> list[Event]:
        """Return whatever was kept back."""
        pieces = self._sentences.feed(self._markers.close())
        events = self._advance([*pieces, *self._sentences.close()])
        # A yes or no that nothing followed: there is no claim it could belong to.
        return [*events, *self._withhold()] if self._yes_or_no else events

    def _advance(self, complete: Sequence[str]) -> list[Event]:
        events: list[Event] = []
        for piece in complete:
            events += self._finish(piece)
        if self._grounding is GroundingMode.OFF:
            events += self._flow(self._sentences.pending, self._sentences.settled)
        elif self._grounding is GroundingMode.NUMBERS:
            pending = self._sentences.pending[: self._sentences.settled]
            events += self._flow(pending, self._checker.safe(pending, complete=False))
        return events

    def _finish(self, piece: str) -> list[Event]:
        if self._grounding is GroundingMode.STRICT:
            return self._finish_strictly(piece)
        events: list[Event] = []
        cut = False
        if self._grounding is GroundingMode.NUMBERS:
            safe = self._checker.safe(piece, complete=True)
            cut = safe < len(piece)
            events += self._flow(piece, safe)
            events += self._withhold(after=piece[:safe]) if cut else []
            self._checker = _NumberCheck(self._comparison)
            piece = piece[:safe]
        else:
            events += self._flow(piece, len(piece))
        events += self._mark(piece)
        self._in_sentence = 0
        self._start = self._length
        return events

    def _finish_strictly(self, piece: str) -> list[Event]:
        judgement = self._comparison.judge(piece)
        if judgement.waits:
            self._yes_or_no += piece
            return []
        waiting, self._yes_or_no = self._yes_or_no, ""
        if not judgement.supported or foreign_address(piece, self._texts):
            self._attempt.append(piece)
            return self._withhold()
        if judgement.verbatim and not piece.lstrip().startswith("|"):  # a row says itself which number is whose
            return self._quote(judgement.verbatim)
        events = self._show(waiting)
        self._start = self._length
        events += self._flow(piece, len(piece))
        events += self._cite(judgement.quotes)
        self._claims += judgement.claims
        self._in_sentence = 0
        self._start = self._length
        return events

    def _quote(self, quotes: Sequence[Quote]) -> list[Event]:
        """Show sentences or tables of the passages in place of what the model made of them; each once."""
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
        self._in_sentence = 0
        self._start = self._length
        return events

    def _mark(self, piece: str) -> list[Event]:
        """Cite a sentence that is already shown, or remember that the passages do not support it."""
        if not piece.strip():
            return []
        judgement = self._comparison.judge(piece)
        self._claims += judgement.claims and judgement.supported
        self._unsupported += not judgement.supported
        return self._cite(judgement.quotes) if judgement.supported else []

    def _flow(self, sentence: str, upto: int) -> list[Event]:
        """Show the sentence up to there, as far as it is not shown yet; an answer begins with no blank."""
        fresh = sentence[self._in_sentence : upto]
        self._in_sentence = max(self._in_sentence, upto)
        return self._show(fresh)

    def _show(self, text: str) -> list[Event]:
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
    """Return the checks that an answer to a screened question has to pass."""
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


# A word with a digit, or one that says or joins numbers, keeps what follows back: the number may still grow.
_NUMERIC_WORD: Final = re.compile(
    r"\d|[０-９]|^[\W_]*(?:[한두세네](?:$|번|가지|개|명|분|달|시|살|곳|군데|건|장|배|종|단계|주|사람|자리)|다섯|여섯|일곱|여덟|아홉|열|스무|하루|이틀|사흘|나흘|열흘|보름|일주일|정오|자정"
    r"|[일이삼사오육칠팔구십백천만억조]{2,}|[천백만십](?=\s?원)|zero|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|trillion"
    r"|noon|midnight|krw|usd|eur|won|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|[$₩￦€¥£]",
    re.IGNORECASE,
)
_JOINING_WORD: Final = re.compile(r"[\W_]*(?:and|or|to|및|또는|내지|오전|오후|매월|매달|은행)?[\W_]*", re.IGNORECASE)
_WORDS: Final = re.compile(r"\S+(?=\s)")
_WORDS_OR_LAST: Final = re.compile(r"\S+")
# This many plain words behind a number end it: no unit, scale or second half of a range is further away.
_CLOSING_WORDS: Final = 3


class _NumberCheck:
    """How much of one sentence may be shown: up to the first number that is not complete, or that no source holds."""

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison
        self._checked = 0
        self._cut: int | None = None

    def safe(self, sentence: str, *, complete: bool) -> int:
        while self._cut is None:
            begin = self._numeric_from(sentence, self._checked, complete=complete)
            if begin is None:
                return len(sentence) if complete else _whole_words(sentence)
            end = self._closed_at(sentence, begin) or (len(sentence) if complete else None)
            if end is None or not self._check(sentence, begin, end, complete=complete):
                return len(sentence[:begin].rstrip())
        return self._cut

    def _check(self, sentence: str, begin: int, end: int, *, complete: bool) -> bool:
        """Decide the numbers up to `end`; False when only the whole sentence can tell (it may be a refusal)."""
        claimed = [quantity for quantity in quantities(sentence[:end]) if quantity.end > begin]
        unknown = self._comparison.unknown(claimed)
        if unknown and not complete and self._comparison.asked(unknown):
            return False
        refusal = complete and self._comparison.asked(unknown) and not self._comparison.judge(sentence).claims
        if unknown and not refusal:
            self._cut = len(sentence[: unknown[0].start].rstrip())
        self._checked = end
        return True

    def _numeric_from(self, sentence: str, start: int, *, complete: bool) -> int | None:
        pattern = _WORDS_OR_LAST if complete else _WORDS
        found = (word for word in pattern.finditer(sentence, start) if _NUMERIC_WORD.search(word.group()))
        return next((word.start() for word in found), None)

    def _closed_at(self, sentence: str, begin: int) -> int | None:
        plain = 0
        for word in _WORDS.finditer(sentence, begin):
            if _NUMERIC_WORD.search(word.group()):
                plain = 0
            elif not _JOINING_WORD.fullmatch(word.group()):
                plain += 1
            if plain == _CLOSING_WORDS:
                return word.end()
        return None


def _whole_words(sentence: str) -> int:
    """Return where the last, perhaps unfinished word and the blanks before it begin."""
    return len(sentence[: len(sentence) - len(re.split(r"\s", sentence)[-1])].rstrip())


@dataclass(frozen=True, slots=True)
class QuotedAnswer:
    """An answer that consists of verbatim sentences of the passages, so it is grounded by construction."""

    citations: tuple[Citation, ...]
    text: str = ""

    @classmethod
    def of(cls, introduction: str, cited: Iterable[Citation]) -> "QuotedAnswer":
        """Return the answer that quotes what is cited, in this order."""
        text, citations = introduction, list[Citation]()
        for citation in cited:
            text += "\n\n" if citation.quote.startswith(("|", "-", "*")) else "\n\n> "
            end = len(text) + len(citation.quote)
            citations.append(msgspec.structs.replace(citation, start=len(text), end=end))
            text += citation.quote
        return cls(tuple(citations), text if citations else "")

    @property
    def events(self) -> list[Event]:
        """What a customer gets; nothing where nothing is quoted."""
        return [Token(text=self.text), *self.citations] if self.text else []

    def each(self) -> "tuple[QuotedAnswer, ...]":
        """Return the answers that quote one of its sentences alone."""
        introduction = self.text.partition("\n\n")[0]
        return tuple(QuotedAnswer.of(introduction, [citation]) for citation in self.citations)

    def most_probable(self, shares: Sequence[float], certainty: float) -> "QuotedAnswer":
        """Return the quote alone that a model chose, or all where it was not surer than `certainty`.

        That is 0 where every quote has an even share, however many there are, and 1 where one has all.
        """
        share, alone = max(zip(shares, self.each(), strict=False), key=itemgetter(0), default=(0.0, self))
        even = 1 / max(1, len(shares))
        return alone if share - even > certainty * (1 - even) else self

    def excerpts(self, sources: Sequence[Passage]) -> tuple[Passage, ...]:
        """Return the passages that it quotes, each cut to its quote."""
        return tuple(replace(sources[citation.n - 1], text=citation.quote) for citation in self.citations)


_INTRODUCTION: Final[dict[Language, str]] = {
    "ko": "관련 문서의 내용을 그대로 안내해 드립니다.",
    "en": "Here is what our documents say, word for word.",
}
_QUOTED: Final = 3
# Against the best sentence: one that shares little with the question is no help to a customer.
_NEAR_ENOUGH: Final = 0.6


def quote_passages(
    question: str, sources: Sequence[Passage], language: Language, *, wording: str = "", attempt: str = ""
) -> QuotedAnswer:
    """Return the at most three sentences or tables nearest to the question, for when no model can answer it.

    `wording` is what was looked for, with the question before it and other words for the same. `attempt` is what a
    model said that the checks withheld: a number of it that the passages do hold shows where.
    """
    nearest = Comparison(sources, question=question).nearest(wording or question, attempt)
    best = nearest[0][0] if nearest else 0.0
    chosen: list[Quote] = []
    for score, quote in nearest:
        if len(chosen) == _QUOTED or score < best * _NEAR_ENOUGH or score == 0.0:
            break
        if len(quote.text) >= 8 and quote not in chosen:
            chosen.append(quote)
    return QuotedAnswer.of(_INTRODUCTION[language], [_citation(sources, quote, 0, 0) for quote in chosen])
