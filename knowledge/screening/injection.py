"""Recognises prompt injection: text that instructs the model instead of asking the bank, in Korean and English.

The patterns are in `knowledge.screening.injection_patterns`. Obfuscated text is also matched after deobfuscation
(`knowledge.screening.deobfuscation`).
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from knowledge.screening.deobfuscation import decoded, deobfuscated, invisible_characters, normalised
from knowledge.screening.injection_patterns import PATTERNS, Tactic


@dataclass(frozen=True, slots=True)
class ScreeningFinding:
    """A tactic of prompt injection and the excerpt that shows it.

    `blocks`: it instructs the model, openly or in disguise, as a bank's own text never does, so that no document with
    it may be approved. Other findings may stand in one: a warning names passwords, a form has placeholders.
    """

    tactic: Tactic
    excerpt: str
    blocks: bool = False


_BLOCKING: Final = frozenset({Tactic.OVERRIDE, Tactic.EXTRACTION, Tactic.ROLE_MARKER, Tactic.HIDDEN})


_HANGUL: Final = re.compile(r"[가-힣]")
# Patterns that only match Korean are skipped on text without Hangul.
_KOREAN_ONLY: Final = frozenset(
    pattern
    for _, pattern in PATTERNS
    if _HANGUL.search(pattern.pattern) and not re.search(r"[a-z]{3}", pattern.pattern)
)
# The tactics of obfuscated text; patterns of the others match by chance in text that is not obfuscated.
_OBFUSCATED_PATTERNS: Final = tuple(
    (tactic, pattern)
    for tactic, pattern in PATTERNS
    if tactic in {Tactic.OVERRIDE, Tactic.EXTRACTION, Tactic.SECRETS, Tactic.ROLE_PLAY}
)
# Every instruction worth obfuscating holds one of these stems; deobfuscated text without them is not matched.
_STEMS: Final = re.compile(
    r"ignor|disregard|forget|instruct|prompt|password|passcode|secret|pretend|jailbr|system|unrestrict|reveal|bypass"
    r"|무시|지시|지침|명령|프롬프트|비밀번호|암호|시스템|탈옥",
    re.IGNORECASE,
)
# Text whose letters were evenly spaced has no blanks between words.
_RUN_TOGETHER: Final = re.compile(
    r"(?:ignore|disregard|forget)\w{0,12}(?:previous|prior|above|earlier|all|your)\w{0,12}(?:instruct|rule|prompt|order)"
    r"|systemprompt|developermode|doanythingnow|(?:지시|지침|명령|규칙|프롬프트)\w{0,6}(?:무시|잊어|출력|보여|알려)",
    re.IGNORECASE,
)
_PIG_LATIN: Final = re.compile(r"\b[a-z]{3,}(?:w|y)?ay\b", re.IGNORECASE)
_FLOOD_REPETITIONS: Final = 15


def find_injection(text: str) -> tuple[ScreeningFinding, ...]:
    """Return the tactics in a question or a passage, each with an excerpt; none in honest text."""
    plain = normalised(text)
    unseen = invisible_characters(text)
    findings = [ScreeningFinding(Tactic.HIDDEN, unseen, blocks=True)] if unseen else []
    findings += _match(plain, PATTERNS)
    findings += _encoded(plain)
    findings += _flood(plain)
    if not any(finding.blocks for finding in findings):  # a harmless finding hides no instruction in disguise
        findings += _obfuscated(text)
    return tuple(dict.fromkeys(findings))


def _match(plain: str, patterns: tuple[tuple[Tactic, re.Pattern[str]], ...]) -> Iterator[ScreeningFinding]:
    is_korean = _HANGUL.search(plain) is not None
    for tactic, pattern in patterns:
        if not is_korean and pattern in _KOREAN_ONLY:
            continue
        if match := pattern.search(plain):
            yield ScreeningFinding(tactic, match.group()[:120], blocks=tactic in _BLOCKING)


def _obfuscated(text: str) -> Iterator[ScreeningFinding]:
    """Match the deobfuscated readings of the text that may hold an instruction."""
    for reading in deobfuscated(text):
        if not _STEMS.search(reading):
            continue
        findings = list(_match(reading, _OBFUSCATED_PATTERNS))
        if not findings and (match := _RUN_TOGETHER.search(reading)):
            findings = [ScreeningFinding(Tactic.SMUGGLING, match.group(), blocks=True)]
        for finding in findings:
            yield ScreeningFinding(Tactic.SMUGGLING, finding.excerpt, finding.blocks)


def _encoded(plain: str) -> Iterator[ScreeningFinding]:
    """Find encoded text (Base64, Base32, hexadecimal, pig Latin), which no honest question holds."""
    for token, text in decoded(plain):
        blocks = any(finding.blocks for finding in find_injection(text))
        yield ScreeningFinding(Tactic.SMUGGLING, token[:40], blocks)
    words = re.findall(r"[A-Za-z]+", plain)
    if len(words) >= 4 and len(_PIG_LATIN.findall(plain)) * 2 > len(words):
        yield ScreeningFinding(Tactic.SMUGGLING, plain[:40])


def _flood(plain: str) -> Iterator[ScreeningFinding]:
    """Find a word that is repeated so often that it displaces the instructions from the context."""
    words = plain.split()
    if len(words) < _FLOOD_REPETITIONS:
        return
    word, times = Counter(words).most_common(1)[0]
    if times >= _FLOOD_REPETITIONS and (times * 2 > len(words) or f"{word} {word} {word} {word}" in plain):
        yield ScreeningFinding(Tactic.FLOOD, word[:40])
