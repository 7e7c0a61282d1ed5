"""Check a model's answer while it streams; a sentence that fails is replaced by a quoted unit. No I/O.

Text is shown in whole words, the last word of a sentence only after the sentence is checked. Numbers, names and links
are held back until they are complete, and shown only if a unit states them. A complete sentence must agree with one
unit of the passages (`CheckedUnit.supports`); otherwise it is cut off and the nearest unit is quoted. A sentence that
begins with yes or no fails too: no passage confirms a yes. The size of the feeds changes neither text nor citations.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from chatbot.events import Citation, Event, NoticeCode, Token
from chatbot.grounding.links import first_unknown_link
from chatbot.grounding.markers import MarkerFilter
from chatbot.grounding.negation import may_begin_yes_or_no, says_yes_or_no
from chatbot.grounding.sentences import SentenceSplitter
from chatbot.grounding.support import CheckedUnit, checked_units
from chatbot.notices import notice
from chatbot.quotes import citation, features
from knowledge.bank import Bank
from knowledge.passage import Language, Passage

ELLIPSIS: Final = "…"
_LONGEST_SENTENCE: Final = 2_000  # characters: no answer needs more, and a check's cost grows with the length
# Text is held back after a word that has a digit or belongs to a number, because the number may still grow.
_HELD: Final = re.compile(
    r"\d|[０-９]|^[\W_]{0,20}(?:[한두세네](?:$|번|가지|개|명|분|달|시|살|곳|군데|건|장|배|종|단계|주|사람|자리)"
    r"|[석넉](?:$|달|장)|반(?:$|년|달|개월|시간)|다섯|여섯|일곱|여덟|아홉|열|스물|스무|서른|마흔|쉰|예순|일흔|여든|아흔|하루|이틀|사흘"
    r"|나흘|닷새|엿새|이레|여드레|아흐레|열흘|보름|일주일|정오|자정|[일이삼사오육칠팔구](?:$|퍼센트|개월|영업일)"
    r"|[영일이삼사오육칠팔구십백천만억조점]{2,}|[천백만십](?:$|(?=\s?원))|half|dozen|zero|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand|million|billion|trillion"
    r"|noon|midnight|krw|usd|eur|won|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)|[$₩￦€¥£¼½¾@]|://|www|\w\.\w",
    re.IGNORECASE,
)
# A word between two numbers of one range, list or date.
_JOINS: Final = re.compile(r"[\W_]*+(?:and|or|to|및|또는|내지|오전|오후|매월|매달|은행)?[\W_]*+", re.IGNORECASE)
_WORD: Final = re.compile(r"\S+")
_HELD_END: Final = 4  # characters held back at the end of the text: the next token may change the last word
_LONGEST_TOKEN: Final = 16  # characters: a longer feed contains several tokens, and is shown in parts
_CLOSING_WORDS: Final = 3  # plain words after a number: its unit, scale and end of a range are not further away


class GroundingStream:
    """Turns the model's text into checked text and citations; the telephone number of `bank` needs no source."""

    def __init__(
        self, sources: Sequence[Passage], *, question: str, language: Language, bank: Bank | None = None
    ) -> None:
        self._sources = tuple(sources)
        self._units = checked_units(sources, question=question, contact=bank.telephone if bank else "")
        self._names = frozenset[str]().union(*(unit.other_names for unit in self._units))
        self._texts = tuple(f"{passage.heading}\n{passage.text}" for passage in sources)
        self._language = language
        self._markers, self._sentences = MarkerFilter(), SentenceSplitter()
        # Of the current sentence, with offsets from its start:
        self._shown_length = 0
        self._checked_length = 0  # up to here, a unit states the numbers and names
        self._cut_at: int | None = None  # where it is cut off
        self._feed_ends: list[int] = []  # of the feeds that are not shown completely
        self._stating_units: list[CheckedUnit] = []  # they state all its checked numbers
        self._quoted_units: list[CheckedUnit] = []  # of the whole answer
        self.text = ""  # the shown answer: the concatenation of all `token` texts
        self.cited: tuple[int, ...] = ()  # the numbers of the cited sources (from 1), in order of first use
        self.withheld = 0  # the number of sentences that were replaced or cut off

    @property
    def grounded(self) -> bool:
        """Whether each shown sentence agrees with a cited unit."""
        return bool(self.cited) and self.withheld == 0

    def feed(self, text: str) -> list[Event]:
        """Add text; return the events that later text cannot change."""
        text = self._markers.feed(text)
        self._feed_ends.append(len(self._sentences.pending) + len(text))
        events = [event for sentence in self._sentences.feed(text) for event in self._finish(sentence)]
        pending = self._sentences.pending[: self._sentences.settled]
        safe = self._safe_length(pending, complete=False)
        whole_feeds = max((end for end in self._feed_ends if end <= safe), default=0)
        shown_length = safe if safe - whole_feeds > _LONGEST_TOKEN else whole_feeds
        return [*events, *self._show_up_to(pending, shown_length)]

    def close(self) -> list[Event]:
        """Return the events of the remaining text."""
        sentences = [*self._sentences.feed(self._markers.close()), *self._sentences.close()]
        return [event for sentence in sentences for event in self._finish(sentence)]

    def _finish(self, sentence: str) -> list[Event]:
        """Show the rest of a sentence with its citation, or cut the sentence off and quote the nearest unit."""
        length, safe = len(sentence), self._safe_length(sentence, complete=True)
        start = len(self.text) - self._shown_length + length - len(sentence.lstrip())
        supporting = [unit for unit in self._units if safe == length and unit.supports(sentence)]
        if not any(map(str.isalnum, sentence)):
            events = self._show_up_to(sentence, length)
        elif supporting:
            events = self._show_up_to(sentence, safe)
            events.append(self._cite(_nearest(supporting, sentence), start, len(self.text)))
        else:
            end = min(safe, _length_before_end(sentence))
            while end > self._shown_length and not self._is_stated(sentence, end):  # "14 years" of "14 years old"
                end = len(sentence[: end - _length_of_last_word(sentence[:end])].rstrip())
            events = self._show_up_to(sentence, end)
            stating_units = self._stating_units if self._shown_length else []
            candidates = stating_units or self._units
            events += self._replace(_nearest(candidates, sentence) if candidates else None)
        self._shown_length, self._checked_length, self._cut_at, self._stating_units = 0, 0, None, []
        self._feed_ends = [end - length for end in self._feed_ends if end > length]
        return events

    def _replace(self, unit: CheckedUnit | None) -> list[Event]:
        """Cut a sentence off and quote a unit, unless that unit was quoted before."""
        self.withheld += 1
        events = self._show(ELLIPSIS) if self._shown_length else []
        if self.withheld == 1:
            events.append(notice(NoticeCode.WITHHELD, self._language))
        if unit is None or unit in self._quoted_units:
            return events
        self._quoted_units.append(unit)
        events += self._show("\n\n" if self.text else "")
        start = len(self.text)
        events += self._show(unit.text)
        return [*events, self._cite(unit, start, len(self.text)), *self._show("\n\n")]

    def _cite(self, unit: CheckedUnit, start: int, end: int) -> Citation:
        if unit.n not in self.cited:
            self.cited += (unit.n,)
        return citation(unit.n, self._sources[unit.n - 1], unit.text, start, end)

    def _show_up_to(self, sentence: str, length: int) -> list[Event]:
        """Show the next characters of the sentence up to `length`, divided as they were fed."""
        shown, length = self._shown_length, max(self._shown_length, length)
        ends = [shown, *(end for end in self._feed_ends if shown < end < length), length]
        self._shown_length = length
        return [event for start, end in pairwise(ends) for event in self._show(sentence[start:end])]

    def _show(self, text: str) -> list[Event]:
        self.text += text
        return [Token(text=text)] if text else []

    def _safe_length(self, sentence: str, *, complete: bool) -> int:
        """Return how many characters of the sentence may be shown; `complete` if its end is known."""
        is_too_long = len(sentence) > _LONGEST_SENTENCE and not self._shown_length
        if is_too_long or says_yes_or_no(sentence):
            self._cut_at = 0
        elif not complete and may_begin_yes_or_no(sentence):
            return 0
        while self._cut_at is None:
            words = _WORD.finditer(sentence, self._checked_length)
            held_from = next((word.start() for word in words if self._is_held(word.group())), None)
            if held_from is None:
                return len(sentence) if complete else _length_before_end(sentence)
            held_to = self._end_of_number_or_name(sentence, held_from) or (len(sentence) if complete else None)
            length_before = len(sentence[:held_from].rstrip())
            if held_to is None:
                return min(length_before, _length_before_end(sentence))
            if not self._is_stated(sentence, held_to):
                self._cut_at = length_before
            self._checked_length = held_to
        return self._cut_at

    def _is_held(self, word: str) -> bool:
        """Return whether a word must be checked before it is shown."""
        return bool(_HELD.search(word) or features(word) & self._names)

    def _end_of_number_or_name(self, sentence: str, start: int) -> int | None:
        """Return the end of the number or name at `start`, or None while it may still grow."""
        plain_words = 0
        for word in _WORD.finditer(sentence, start):
            is_in_number = _HELD.search(word.group()) is not None
            if word.start() == start and not is_in_number:  # a name
                return word.end() if word.end() < len(sentence) else None
            if is_in_number:
                plain_words = 0
            elif not _JOINS.fullmatch(word.group()):
                plain_words += 1
            if plain_words > _CLOSING_WORDS:
                return word.start()
        return None

    def _is_stated(self, sentence: str, end: int) -> bool:
        """Return whether one unit states all numbers and names up to `end`, and the passages contain all links."""
        if first_unknown_link(sentence[:end], self._texts):
            return False
        stating_units = [unit for unit in self._units if unit.states(sentence[:end])]
        self._stating_units = stating_units or self._stating_units
        return bool(stating_units)


def _nearest(units: Sequence[CheckedUnit], sentence: str) -> CheckedUnit:
    """Return the unit that shares the most content with a sentence."""
    return max(units, key=lambda unit: unit.share(sentence))


def _length_before_end(sentence: str) -> int:
    """Return the length before the last word, which may reverse the sentence's meaning; do not split a number."""
    end = max(0, len(sentence) - max(_length_of_last_word(sentence), _HELD_END))
    word_start = end - _length_of_last_word(sentence[:end])
    word = _WORD.match(sentence, word_start)
    is_number = word is not None and _HELD.search(word.group()) is not None
    return len(sentence[: word_start if is_number else end].rstrip())


def _length_of_last_word(text: str) -> int:
    return len(re.split(r"\s", text)[-1])
