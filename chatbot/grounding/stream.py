"""Check a model's answer while it streams; a sentence that fails is replaced by a quoted unit. No I/O.

Text is shown in whole words, the last word of a sentence only after the sentence is checked. Numbers, names and links
are held back until they are complete, and shown only if a unit states them. A complete sentence must agree with one
unit of the passages (`CheckedUnit.supports`); otherwise it is cut off and the unit is quoted. A sentence that begins
with yes or no fails too, because no passage confirms a yes. The size of the feeds changes neither text nor citations.
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
_LONGEST_SENTENCE: Final = 2_000
"""The maximum length in characters of a checked sentence: no answer needs more, and the cost grows."""
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
_JOINS: Final = re.compile(r"[\W_]*+(?:and|or|to|및|또는|내지|오전|오후|매월|매달|은행)?[\W_]*+", re.IGNORECASE)
_WORD: Final = re.compile(r"\S+")
_HELD_END: Final = 4
"""Characters held back at the end of the text, because the next token may change the last word."""
_LONGEST_TOKEN: Final = 16
"""A piece of more characters holds several tokens, and is shown in parts."""
_CLOSING_WORDS: Final = 3
"""A number is complete after this many plain words: no unit, scale or end of a range is further away."""


class GroundingStream:
    """Turns the model's text into checked text and citations; `sources` are numbered from 1.

    The `bank`'s telephone number needs no source.
    """

    def __init__(
        self, sources: Sequence[Passage], *, question: str, language: Language, bank: Bank | None = None
    ) -> None:
        self._sources = tuple(sources)
        self._units = checked_units(sources, question=question, contact=bank.telephone if bank else "")
        self._names = frozenset[str]().union(*(unit.others for unit in self._units))
        self._texts = tuple(f"{passage.heading}\n{passage.text}" for passage in sources)
        self._language = language
        self._markers, self._sentences = MarkerFilter(), SentenceSplitter()
        self._flowed = 0  # shown characters of the current sentence
        self._ends: list[int] = []  # the ends of the feeds not yet shown completely, from the sentence's start
        self._checked = 0  # characters of the current sentence without an unchecked number
        self._cut: int | None = None  # where the current sentence is cut off
        self._stating: list[CheckedUnit] = []  # the units that state all numbers of the current sentence so far
        self._quoted: list[CheckedUnit] = []
        self.text = ""
        """The answer shown so far: the concatenation of all `token` texts."""
        self.cited: tuple[int, ...] = ()
        """The numbers of the cited sources, in order of first use."""
        self.withheld = 0
        """The number of sentences that were replaced or cut off."""

    @property
    def grounded(self) -> bool:
        """Whether each shown sentence agrees with a cited unit."""
        return bool(self.cited) and self.withheld == 0

    def feed(self, text: str) -> list[Event]:
        """Add text; return the events that later text cannot change."""
        fed = self._markers.feed(text)
        self._ends.append(len(self._sentences.pending) + len(fed))
        events = [event for piece in self._sentences.feed(fed) for event in self._finish(piece)]
        pending = self._sentences.pending[: self._sentences.settled]
        safe = self._safe_length(pending, complete=False)
        whole_tokens = max((end for end in self._ends if end <= safe), default=0)
        return [*events, *self._flow(pending, safe if safe - whole_tokens > _LONGEST_TOKEN else whole_tokens)]

    def close(self) -> list[Event]:
        """Return the events of the remaining text."""
        pieces = [*self._sentences.feed(self._markers.close()), *self._sentences.close()]
        return [event for piece in pieces for event in self._finish(piece)]

    def _finish(self, piece: str) -> list[Event]:
        """Show the rest of a sentence with its citation, or cut it off and quote the nearest unit."""
        safe = self._safe_length(piece, complete=True)
        start = len(self.text) - self._flowed + len(piece) - len(piece.lstrip())
        supporting = [unit for unit in self._units if safe == len(piece) and unit.supports(piece)]
        if not any(map(str.isalnum, piece)):
            events = self._flow(piece, len(piece))
        elif supporting:
            events = self._flow(piece, safe)
            events.append(self._cite(_nearest(supporting, piece), start, len(self.text)))
        else:
            events = self._flow(piece, min(safe, _length_before_end(piece)))
            stating = self._stating if self._flowed else []
            events += self._replace(_nearest(stating or self._units, piece) if self._units else None)
        self._flowed, self._checked, self._cut, self._stating = 0, 0, None, []
        self._ends = [end - len(piece) for end in self._ends if end > len(piece)]
        return events

    def _replace(self, unit: CheckedUnit | None) -> list[Event]:
        """Cut a sentence off and quote a unit, unless that unit was quoted before."""
        self.withheld += 1
        events = self._show(ELLIPSIS) if self._flowed else []
        if self.withheld == 1:
            events.append(notice(NoticeCode.WITHHELD, self._language))
        if unit is None or unit in self._quoted:
            return events
        self._quoted.append(unit)
        events += self._show("\n\n" if self.text else "")
        start = len(self.text)
        events += self._show(unit.text)
        return [*events, self._cite(unit, start, len(self.text)), *self._show("\n\n")]

    def _cite(self, unit: CheckedUnit, start: int, end: int) -> Citation:
        passage = self._sources[unit.n - 1]
        if unit.n not in self.cited:
            self.cited += (unit.n,)
        return citation(unit.n, passage, unit.text, start, end)

    def _flow(self, sentence: str, length: int) -> list[Event]:
        """Show the next characters of the sentence up to `length`, in the pieces that the model generated."""
        ends = [*(end for end in self._ends if self._flowed < end < length), max(self._flowed, length)]
        events = [event for start, end in pairwise([self._flowed, *ends]) for event in self._show(sentence[start:end])]
        self._flowed = ends[-1]
        return events

    def _show(self, text: str) -> list[Event]:
        if not text:
            return []
        self.text += text
        return [Token(text=text)]

    def _safe_length(self, sentence: str, *, complete: bool) -> int:
        """Return how many characters of the sentence may be shown; `complete` if its end is known."""
        if says_yes_or_no(sentence) or (len(sentence) > _LONGEST_SENTENCE and not self._flowed):
            self._cut = 0
        elif not complete and may_begin_yes_or_no(sentence):
            return 0
        while self._cut is None:
            words = _WORD.finditer(sentence, self._checked)
            begin = next((word.start() for word in words if self._is_held(word.group())), None)
            if begin is None:
                return len(sentence) if complete else _length_before_end(sentence)
            end = self._complete_at(sentence, begin) or (len(sentence) if complete else None)
            if end is None:
                return min(len(sentence[:begin].rstrip()), _length_before_end(sentence))
            if not self._is_stated(sentence, end):
                self._cut = len(sentence[:begin].rstrip())
            self._checked = end
        return self._cut

    def _is_held(self, word: str) -> bool:
        """Return whether a word must be checked before it is shown."""
        return bool(_HELD.search(word) or features(word) & self._names)

    def _complete_at(self, sentence: str, begin: int) -> int | None:
        """Return the end of the number or name at `begin`, or None while it may still grow."""
        plain = 0
        for n, word in enumerate(_WORD.finditer(sentence, begin)):
            if not n and not _HELD.search(word.group()):  # a name
                return word.end() if word.end() < len(sentence) else None
            if _HELD.search(word.group()):
                plain = 0
            elif not _JOINS.fullmatch(word.group()):
                plain += 1
            if plain > _CLOSING_WORDS:  # the last of them may still grow
                return word.start()
        return None

    def _is_stated(self, sentence: str, end: int) -> bool:
        """Return whether one unit states all numbers and names up to `end`, and the passages contain all links."""
        if first_unknown_link(sentence[:end], self._texts):
            return False
        stating = [unit for unit in self._units if unit.states(sentence[:end])]
        self._stating = stating or self._stating
        return bool(stating)


def _nearest(units: Sequence[CheckedUnit], sentence: str) -> CheckedUnit:
    """Return the unit that shares the most content with a sentence."""
    return max(units, key=lambda unit: unit.share(sentence))


def _length_before_end(sentence: str) -> int:
    """Return the length before the last word, which may reverse the meaning, without splitting a number."""
    before = max(0, len(sentence) - max(len(re.split(r"\s", sentence)[-1]), _HELD_END))
    begin = before - len(re.split(r"\s", sentence[:before])[-1])
    word = _WORD.match(sentence, begin)
    return len(sentence[: begin if word and _HELD.search(word.group()) else before].rstrip())
