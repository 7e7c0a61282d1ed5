"""Ties each sentence of an answer to the passages that say it, while the answer streams; unsupported ones are withheld.

The model is not trusted: its own markers are removed, and a sentence is cited because comparison finds it in a passage
and every number of it stands there too. Three modes:

- strict: a sentence is held back until it is complete and shown only when the passages support it, and contain every
  link in it. The passage's own sentence, list or table is shown instead where it says more or less than a whole
  sentence (`departures`), where its number stands among others of its kind (which one is asked for is left to the
  reader), where it only says yes or no to the question's own words and, in an answer that has begun, where it is near
  to a sentence that does not support it. What differs from another sentence of the passages by its amounts alone is
  shown under the headings that tell them apart, or after the sentence before it (`sources`), and a heading only before
  a claim that stands under it. A yes or no before a claim and courtesies are left out, and a refusal is said
  in words of ours: comparison cannot tell what claim hides in them. An answer begins with a supported claim that can be
  read by itself, rests on a sentence that leads the ranking by nearness to the question (`quotes`) and, where an amount
  is asked for, states one: what comes before it waits, and is withheld where none comes.
- numbers: text flows; from the first number on it is held until the number is complete and some source contains it,
  otherwise the rest of the sentence is withheld. Sentences are cited once they are complete.
- off: everything flows and is cited afterwards where comparison supports it.

In the two other modes greetings, "please call us" and "the documents do not say" pass without a citation. A refusal may
repeat the numbers of the question; in any other sentence a number that only the question states is unsupported.
No I/O: text in, events out. The same text gives the same answer and citations whatever the size of the feeds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chatbot.events import Event, NoticeCode, Token
from chatbot.grounding.asked import asks_for_amount, depends_on_another, states_amount
from chatbot.grounding.evidence import LONGEST_SENTENCE, MOST_NUMBERS, Comparison, Judgement, Quote
from chatbot.grounding.links import first_unknown_link
from chatbot.grounding.markers import MarkerFilter
from chatbot.grounding.negation import without_yes_or_no
from chatbot.grounding.numbers import quantities
from chatbot.grounding.quotes import citation_of
from chatbot.grounding.sentences import SentenceSplitter
from chatbot.notices import notice
from knowledge.bank import Bank
from knowledge.passage import Language, Passage, language_of

CHECKS_VERSION: Final = 8
"""Raised where the checks show another text of the same answer: what was kept by others is not shown again."""


class GroundingMode(StrEnum):
    STRICT = "strict"
    NUMBERS = "numbers"
    OFF = "off"


ELLIPSIS: Final = "…"
_REFUSAL: Final[dict[Language, str]] = {
    "ko": "문의하신 내용은 제공된 문서에서 확인할 수 없습니다.",
    "en": "Our documents do not answer this.",
}


class GroundingStream:
    """Takes the model's text and returns what the customer may see, with citations; `sources` are numbered from 1.

    `question`: a refusal may repeat its numbers. "Please call us" may name the telephone number of the `bank`, whose
    own words claim nothing. Strictly checked, an answer begins with what the `leading` sentences say, if there are any:
    one that never comes to them is withheld, since it is beside the question more often than not (docs/decisions/0029).
    """

    def __init__(
        self,
        sources: Sequence[Passage],
        *,
        grounding: GroundingMode,
        language: Language,
        question: str = "",
        bank: Bank | None = None,
        leading: Sequence[Quote] = (),
    ) -> None:
        self._leading = tuple(leading)
        self._sources = tuple(sources)
        self._texts = tuple(f"{passage.heading}\n{passage.text}" for passage in sources)
        self._comparison = Comparison(sources, question=question, bank=bank)
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
        self._yes_or_no = False  # one stands before the next claim
        self._refused = False
        self._asks_for_amount = asks_for_amount(question)
        self._waiting: list[_SupportedSentence] = []
        self._heading: _SupportedSentence | None = None  # one that no claim has followed yet
        self._place = _PlaceOfReader()
        self._last: Quote | None = None  # what the text shown last says
        self._cited: list[int] = []
        self._quoted: list[Quote] = []
        self._claims = 0
        self._unsupported = 0
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

    @property
    def withheld_whole(self) -> bool:
        """Whether there was an answer and nothing of it is shown."""
        return self.withheld > 0 and not self.text.strip()

    def feed(self, text: str) -> list[Event]:
        """Return the events that are certain now."""
        events: list[Event] = []
        for piece in self._sentences.feed(self._markers.feed(text)):
            events += self._finish(piece)
        if self._mode is GroundingMode.OFF:
            events += self._flow(self._sentences.pending, self._sentences.settled)
        elif self._mode is GroundingMode.NUMBERS:
            pending = self._sentences.pending[: self._sentences.settled]
            events += self._flow(pending, self._numbers.safe_length(pending, complete=False))
        return events

    def close(self) -> list[Event]:
        """Return the events of what was held back."""
        pieces = [*self._sentences.feed(self._markers.close()), *self._sentences.close()]
        events = [event for piece in pieces for event in self._finish(piece)]
        events += self._end_waiting()
        # A yes or no that no claim follows was an answer, and so was a heading alone.
        is_answer = self._yes_or_no or (self._heading is not None and not self._length)
        return [*events, *(self._withhold() if is_answer else [])]

    def _end_waiting(self) -> list[Event]:
        """Withhold the claims that still wait: they answer nothing. A greeting stays where nothing was withheld."""
        waiting, self._waiting = self._waiting, []
        claims = [sentence for sentence in waiting if sentence.judgement.claims]
        if claims or self.withheld:
            return [event for _ in claims for event in self._withhold()]
        return [event for sentence in waiting for event in self._show_supported(sentence)]

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
        said, piece = piece, without_yes_or_no(piece)
        self._yes_or_no |= said != piece
        judgement = self._comparison.judge(piece)
        if judgement.is_courtesy:
            return []
        self._yes_or_no = False
        if not (judgement.supported or judgement.verbatim) or first_unknown_link(piece, self._texts):
            return self._withhold()
        if judgement.is_refusal:
            if self._refused:
                return []
            self._refused, piece = True, piece[: -len(piece.lstrip())] + _REFUSAL[self._language]
        sentence = _SupportedSentence(piece, judgement, self._heading)
        self._heading = sentence if judgement.headings else None
        if judgement.headings:
            return []
        if not self._claims and not self._may_begin(sentence):
            self._waiting.append(sentence)
            return []
        waited, self._waiting = self._waiting, []
        begins_none = [depends_on_another(each.shown) or not each.judgement.supported for each in waited]
        before = [each for each, follows in zip(waited, begins_none, strict=True) if not follows]
        after = [each for each, follows in zip(waited, begins_none, strict=True) if follows]
        return [event for each in [*before, sentence, *after] for event in self._show_supported(each)]

    def _may_begin(self, sentence: "_SupportedSentence") -> bool:
        """Whether an answer may begin with this: a claim, read by itself, with the amount that is asked for."""
        text = sentence.shown
        return (
            sentence.judgement.claims
            and sentence.judgement.supported
            and not depends_on_another(text)
            and (not self._asks_for_amount or states_amount(text))
            and self._is_leading(sentence.judgement)
        )

    def _is_leading(self, judgement: Judgement) -> bool:
        """Whether a claim rests on one of the leading sentences, or on the list or table that it stands in."""
        return not self._leading or any(
            leading.n == quote.n and (leading.text in quote.text or quote.text in leading.text)
            for quote in (judgement.verbatim or judgement.quotes)
            for leading in self._leading
        )

    def _show_supported(self, sentence: "_SupportedSentence") -> list[Event]:
        events = self._show_heading(sentence)
        if sentence.judgement.verbatim:
            return [*events, *self._quote(sentence.judgement.verbatim)]
        if self._is_quoted(sentence.judgement.quotes):
            self._claims += sentence.judgement.claims
            return events
        label = [event for quote in sentence.judgement.quotes for event in self._show_label(quote, sentence.text)]
        text = sentence.text.lstrip() if label else sentence.text
        self._start = self._length
        events += [*label, *self._flow(text, len(text))]
        events += self._cite(sentence.judgement.quotes)
        self._claims += sentence.judgement.claims
        self._last = next(iter(sentence.judgement.quotes), None)
        self._begin_sentence()
        return events

    def _show_heading(self, sentence: "_SupportedSentence") -> list[Event]:
        """Show the heading before a claim that stands under it in its passage."""
        quotes = sentence.judgement.verbatim or sentence.judgement.quotes
        if sentence.heading is None or not quotes:
            return []
        headings = sentence.heading.judgement.headings
        if headings.isdisjoint(quotes[0].place):
            return []
        self._place.head(quotes[0], headings)
        return self._show(sentence.heading.text)

    def _show_label(self, quote: Quote, text: str) -> list[Event]:
        """Show what a text stands under where a reader cannot know it."""
        label = self._place.read(quote, text)
        return self._show(f"\n\n**{' > '.join(label)}**\n\n") if label else []

    def _is_quoted(self, quotes: Sequence[Quote]) -> bool:
        """Whether what is shown already holds each of the quotes, as a row of a table or an item of a list."""
        return bool(quotes) and all(any(shown.holds(quote) for shown in self._quoted) for quote in quotes)

    def _begin_sentence(self) -> None:
        self._flowed = 0
        self._start = self._length

    def _quote(self, quotes: Sequence[Quote]) -> list[Event]:
        """Show sentences or tables of the passages in place of the model's sentence; each once."""
        events: list[Event] = []
        for quote in quotes:
            self._claims += 1
            # A sentence is read with those before it: the ones that the reader has just read are not said twice.
            read = quote.length_after(self._last) if self._last else 0
            if read == len(quote.text) or quote in self._quoted or self._is_quoted([quote]):
                continue
            self._quoted.append(quote)
            self._last = quote
            events += self._show_label(quote, quote.text) or self._show("\n\n" if self._length and not read else "")
            self._start = self._length
            events += self._show(quote.text[read:])
            events += self._cite([quote])
            events += self._show("\n\n" if quote.text.rpartition("\n")[2].startswith("|") else "")
        self._begin_sentence()
        return events

    def _cite_shown(self, piece: str) -> list[Event]:
        """Cite a sentence that is already shown, or count it as unsupported."""
        if not piece.strip():
            return []
        judgement = self._comparison.judge(without_yes_or_no(piece))
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
            events.append(notice(NoticeCode.WITHHELD, self._language))
        return events

    def _cite(self, quotes: Sequence[Quote]) -> list[Event]:
        shown = self.text[self._start :]
        start = self._start + len(shown) - len(shown.lstrip())
        end = self._start + len(shown.rstrip())
        for quote in quotes:
            if quote.n not in self._cited:
                self._cited.append(quote.n)
        return [citation_of(self._sources, quote, start, end) for quote in quotes]


@dataclass(frozen=True, slots=True)
class _SupportedSentence:
    """A sentence that the passages support."""

    text: str
    judgement: Judgement
    heading: "_SupportedSentence | None" = None
    """The heading of a passage before it."""

    @property
    def shown(self) -> str:
        return " ".join(quote.text for quote in self.judgement.verbatim) or self.text


class _PlaceOfReader:
    """Which headings a reader takes the next sentence to stand under: those of the one before, if they were said."""

    def __init__(self) -> None:
        self._here: tuple[int, tuple[str, ...]] | None = None
        self._said = ""
        self._headings: frozenset[str] = frozenset()

    def head(self, quote: Quote, headings: frozenset[str]) -> None:
        """Take note of a heading that is shown before a quote."""
        self._here, self._said, self._headings = (quote.n, quote.place), "\n".join(headings), headings

    def read(self, quote: Quote, text: str) -> tuple[str, ...]:
        """Return the headings that have to be shown before a text that rests on a quote, and take note of it."""
        here = (quote.n, quote.place)
        label = quote.label
        if here != self._here:
            self._here, self._said = here, ""
            if self._headings and self._headings.isdisjoint(quote.place):
                label, self._headings = label or quote.place[-1:], frozenset()
        self._said += "\n" + text
        if all(_without_blanks(part) in _without_blanks(self._said) for part in label):
            return ()
        self._said += "\n".join(label)
        return label


def _without_blanks(text: str) -> str:
    return "".join(text.split()).casefold()


def grounding_stream(
    question: str,
    sources: Sequence[Passage],
    *,
    grounding: GroundingMode,
    language: Language | None = None,
    bank: Bank | None = None,
    leading: Sequence[Quote] = (),
) -> GroundingStream:
    """Return the stream that checks the answer to a screened question; its own language where none is given."""
    return GroundingStream(
        sources,
        grounding=grounding,
        language=language or language_of(question),
        question=question,
        bank=bank,
        leading=leading,
    )


# After a word with a digit, or one that states or joins numbers, text is held back: the number may still grow.
_NUMERIC_WORD: Final = re.compile(
    r"\d|[０-９]|^[\W_]{0,20}(?:[한두세네](?:$|번|가지|개|명|분|달|시|살|곳|군데|건|장|배|종|단계|주|사람|자리)"
    r"|[석넉](?:$|달|장)|반(?:$|년|달|개월|시간)|다섯|여섯|일곱|여덟|아홉|열|스물|스무|서른|마흔|쉰|예순|일흔|여든|아흔|하루|이틀|사흘"
    r"|나흘|닷새|엿새|이레|여드레|아흐레|열흘|보름|일주일|정오|자정|[일이삼사오육칠팔구](?:$|퍼센트|개월|영업일)"
    r"|[영일이삼사오육칠팔구십백천만억조점]{2,}|[천백만십](?:$|(?=\s?원))|half|dozen|zero|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|trillion"
    r"|noon|midnight|krw|usd|eur|won|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|[$₩￦€¥£¼½¾]",
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
        self._numbers = 0
        self._cut: int | None = None

    def safe_length(self, sentence: str, *, complete: bool) -> int:
        """Return how many characters of the sentence, or of its beginning so far, may be shown."""
        is_long = len(sentence) > LONGEST_SENTENCE
        length = self._safe_length(sentence[:LONGEST_SENTENCE], complete=complete and not is_long)
        self._cut = length if is_long else self._cut
        return length

    def _safe_length(self, sentence: str, *, complete: bool) -> int:
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
        if self._numbers + len(claimed) > MOST_NUMBERS:
            self._cut = len(sentence[:begin].rstrip())
            return True
        unknown = self._comparison.unknown(claimed)
        if unknown and not complete and self._comparison.in_question(unknown):
            return False
        is_refusal = complete and self._comparison.in_question(unknown) and not self._comparison.judge(sentence).claims
        if unknown and not is_refusal:
            # Not before `begin`: what precedes the number (오후 of 오후 9시) was shown where the text came in pieces.
            self._cut = len(sentence[: max(begin, unknown[0].start)].rstrip())
        self._checked = end
        self._numbers += len(claimed)
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
