"""Recognises text that tries to instruct the model instead of asking the bank, in Korean and English.

The patterns are in `knowledge.screening.injection_patterns`. Text in a disguise (`knowledge.screening.deobfuscation`)
is read once more without it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from knowledge.screening.deobfuscation import decoded, disguises, fold, invisible
from knowledge.screening.injection_patterns import PATTERNS, Tactic


@dataclass(frozen=True, slots=True)
class ScreeningFinding:
    """One trick and the words that show it."""

    trick: Tactic
    excerpt: str


_HANGUL: Final = re.compile(r"[가-힣]")
# A pattern that can only match Korean is not tried on text without any.
_KOREAN_ONLY: Final = frozenset(
    pattern
    for _, pattern in PATTERNS
    if _HANGUL.search(pattern.pattern) and not re.search(r"[a-z]{3}", pattern.pattern)
)
# What a disguise may hide: the rest says too little by itself in text that was never meant to be read so.
_CODED: Final = tuple(
    (trick, pattern)
    for trick, pattern in PATTERNS
    if trick in {Tactic.OVERRIDE, Tactic.EXTRACTION, Tactic.SECRETS, Tactic.ROLE_PLAY}
)
# One of these stands in every order worth hiding; text without them is not searched again.
_STEMS: Final = re.compile(
    r"ignor|disregard|forget|instruct|prompt|password|passcode|secret|pretend|jailbr|system|unrestrict|reveal|bypass"
    r"|무시|지시|지침|명령|프롬프트|비밀번호|암호|시스템|탈옥",
    re.IGNORECASE,
)
# Letters that were spaced out evenly leave no gaps between the words.
_RUN_TOGETHER: Final = re.compile(
    r"(?:ignore|disregard|forget)\w{0,12}(?:previous|prior|above|earlier|all|your)\w{0,12}(?:instruct|rule|prompt|order)"
    r"|systemprompt|developermode|doanythingnow|(?:지시|지침|명령|규칙|프롬프트)\w{0,6}(?:무시|잊어|출력|보여|알려)",
    re.IGNORECASE,
)
_PIG_LATIN: Final = re.compile(r"\b[a-z]{3,}(?:w|y)?ay\b", re.IGNORECASE)
_REPEATED: Final = 15


def find_injection(text: str) -> tuple[ScreeningFinding, ...]:
    """Return the tricks that a question or a passage plays, each with the words that show it; none in honest text."""
    plain = fold(text)
    findings = [ScreeningFinding(Tactic.HIDDEN, seen)] if (seen := invisible(text)) else []
    findings += _plainly(plain, PATTERNS)
    findings += _coded(plain)
    findings += _flooding(plain)
    if not findings:
        findings += _disguised(text)
    return tuple(findings)


def _plainly(plain: str, patterns: tuple[tuple[Tactic, re.Pattern[str]], ...]) -> Iterator[ScreeningFinding]:
    korean = _HANGUL.search(plain) is not None
    for trick, pattern in patterns:
        if not korean and pattern in _KOREAN_ONLY:
            continue
        if found := pattern.search(plain):
            yield ScreeningFinding(trick, found.group()[:120])


def _disguised(text: str) -> Iterator[ScreeningFinding]:
    """Read what the text says without its disguise, where that could be an order."""
    for other in disguises(text):
        if not _STEMS.search(other):
            continue
        hidden = list(_plainly(other, _CODED))
        if not hidden and (found := _RUN_TOGETHER.search(other)):
            hidden = [ScreeningFinding(Tactic.SMUGGLING, found.group())]
        for finding in hidden:
            yield ScreeningFinding(Tactic.SMUGGLING, finding.excerpt)


def _coded(plain: str) -> Iterator[ScreeningFinding]:
    """Notice a code that holds text: an honest question holds none."""
    for token, _ in decoded(plain):
        yield ScreeningFinding(Tactic.SMUGGLING, token[:40])
    words = re.findall(r"[A-Za-z]+", plain)
    if len(words) >= 4 and len(_PIG_LATIN.findall(plain)) * 2 > len(words):
        yield ScreeningFinding(Tactic.SMUGGLING, plain[:40])


def _flooding(plain: str) -> Iterator[ScreeningFinding]:
    """Notice a word or a line that is repeated until the instructions scroll out of sight."""
    words = plain.split()
    if len(words) < _REPEATED:
        return
    word, times = Counter(words).most_common(1)[0]
    if times >= _REPEATED and (times * 2 > len(words) or f"{word} {word} {word} {word}" in plain):
        yield ScreeningFinding(Tactic.FLOOD, word[:40])
