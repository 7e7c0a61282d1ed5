"""Finds instructions to the model in questions and passages, in Korean and English (pure).

A dozen patterns match the usual tactics: override instructions, ask for the prompt, assign a role, forge a turn, steer
the answer's form, hide markup. They are applied to the text as a model reads it, and again without each usual disguise.
The design limits attacks that no pattern matches: prompt markers are removed from all text that is not the bank's
own, and an answer shows the text of passages (docs/threats.md).
"""

import base64
import binascii
import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from html import unescape
from typing import Final
from urllib.parse import unquote


class Tactic(StrEnum):
    """The way in which a text tries to instruct the model; `markup` alone is harmless in a guide."""

    OVERRIDE = "override"
    EXTRACTION = "extraction"
    ROLE_PLAY = "role_play"
    STEERING = "steering"
    ENCODED = "encoded"
    ROLE_MARKER = "role_marker"
    HIDDEN = "hidden"
    MARKUP = "markup"


@dataclass(frozen=True, slots=True)
class ScreeningFinding:
    """A tactic and the matching excerpt; a document with a finding that `blocks` cannot be approved."""

    tactic: Tactic
    excerpt: str
    blocks: bool = False


_BLOCKING: Final = frozenset({Tactic.OVERRIDE, Tactic.EXTRACTION, Tactic.ROLE_MARKER, Tactic.HIDDEN})
_MOST_EXCERPT: Final = 120  # characters

_EN_RULES: Final = r"(?:instructions?|prompts?|directives?|rules?|guidelines?|programming|training|restrictions?)"
_EN_BEFORE: Final = (
    r"(?:previous|prior|preceding|earlier|above|initial|original|system|safety|your|all|any|these|those)"
)
_EN_PROMPT: Final = (
    r"(?:(?:system|initial|original|hidden|secret|internal|developer|full|exact)[ -](?:prompts?|instructions?|message"
    r"|configuration|guidelines?|rules?)|your (?:\w{1,12} )?(?:prompts?|instructions|directives|configuration"
    r"|programming|guidelines|system message))"
)
_KO_RULES: Final = r"(?:지시|지침|명령|규칙|프롬프트|제약|제한|가이드라인)"
_KO_DROP: Final = r"(?:무시|잊|따르지 ?(?:마|말)|어기|벗어나|개의치)"
_KO_SHOW: Final = r"(?:보여|알려|출력|공개|말해|뭐|무엇|그대로|복사|번역|나열|요약)"
# Repetitions are bounded, so that a search is linear in the length of the text.
PATTERNS: Final[tuple[tuple[Tactic, re.Pattern[str]], ...]] = tuple(
    (tactic, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
    for tactic, pattern in (
        (Tactic.OVERRIDE, rf"\b(?:ignor\w{{0,3}}|disregard\w{{0,3}}|forget|override|bypass|set aside|stop following"
         rf"|do(?: not|n't) (?:follow|obey))\b[^.\n]{{0,25}}?\b{_EN_BEFORE}\b[^.\n]{{0,25}}?\b{_EN_RULES}\b"
         rf"|\b(?:ignore|disregard|forget) (?:the )?(?:{_EN_RULES} (?:above|before)|documents|context|passages)\b"
         r"|\b(?:disable|turn off|remove|drop) (?:your|every|all) (?:\w{1,12} )?(?:filters?|rules?|safeguards?)\b"
         r"|\b(?:ignore|disregard|forget) (?:all |about |everything ){0,3}(?:the |that |what )?(?:was |came )?"
         r"(?:above|before|you (?:were|have been) told)\b"
         rf"|(?:ignore|disregard|forget)(?:all|any|the|your|previous|prior|above){{1,4}}{_EN_RULES}"),
        (Tactic.OVERRIDE, r"\bnew (?:instructions?|directive)\s?:|\byour (?:new|real|only|next|true) (?:task"
         r"|goal|role"
         r"|purpose|instructions?) (?:is|are|will be)\b|\byou (?:don't|do not|no longer) (?:have"
         r"|need) to (?:follow|obey)"),
        (Tactic.OVERRIDE, rf"{_KO_RULES}(?:사항)?[을를은는에]?\s?(?:\S{{1,8}}\s){{0,2}}(?:모두|전부)?{_KO_DROP}"
         rf"|(?:이전|위|앞|앞서|지금까지|기존)[의에]?\s?(?:받은\s)?(?:것|내용|대화|말|글"
         rf"|문장)?[을를은는]?\s?(?:모두\s?|전부\s?|다\s?)?"
         r"(?:무시|잊어)|(?:문서|자료|문맥)[을를은는]?\s?무시하고|(?:안전\s?장치|필터|검열)[을를]\s?(?:끄|꺼"
         r"|해제)|(?:새로운|진짜|변경된)\s?(?:지시|지침|명령)(?:사항)?\s?[:：]"),
        (Tactic.EXTRACTION, r"\b(?:show|reveal|print|output|repeat|display|give|tell|write|share|leak|list|recite"
         rf"|disclose|translate|encode|summari[sz]e|copy|describe|what (?:is|are|was"
         rf"|were))\b[^.\n]{{0,30}}?\b{_EN_PROMPT}\b"
         r"(?! (?:on|for|to|in|at|of|you sent|from|regarding|about|when|if)\b)|\bsystem prompts?\b"
         r"|\b(?:instructions?|everything|what) (?:that )?you (?:were|have been) (?:given|told)\b"
         r"|\b(?:repeat|print|output|copy|translate|summari[sz]e)\b[^.\n]{0,20}\b(?:text|everything|lines?)\b"
         r"[^.\n]{0,12}\b(?:above|before)\b"),
        (Tactic.EXTRACTION, rf"시스템\s?프롬프트|(?:시스템|초기|원래|숨겨진|내부|너의|네|당신의?|챗봇의?|받은)\s?"
         rf"(?:내부\s)?(?:{_KO_RULES}|설정값)[^.\n]{{0,20}}{_KO_SHOW}"
         rf"|프롬프트[를을가는의]?\s?(?:내용|원문|전체|전부|모두|그대로)?[를을이]?\s?{_KO_SHOW}"),
        (Tactic.ROLE_PLAY, r"\byou(?: are|'re)(?: now)? dan\b|\byou(?: are|'re) now (?:an? (?:ai|bot|assistant"
         r"|model|unrestricted|evil)\b|free (?:of"
         r"|from)\b|in \w{1,12} mode\b)|\b(?:act|behave|respond|answer) as (?:if you (?:are|were)|an? (?:ai|bot|model"
         r"|assistant|unrestricted|unfiltered|evil)|dan\b)|\bpretend (?:to be|that you|you)\b|\bdo anything now\b"
         r"|\b(?:enter|switch|activate|enable)(?: you)?(?: to| into)? (?:developer|debug|god|dan|jailbreak"
         r"|unrestricted) mode\b"
         r"|\b(?:without|no|free of) (?:any )?(?:restrictions|filters|censorship"
         r"|ethical guidelines)\b[^.\n]{0,20}\byou"),
        (Tactic.ROLE_PLAY, r"(?:너는|넌|당신은)\s?(?:이제|지금부터)|(?:지금|이제)부터\s?(?:너|넌|당신)"
         r"|제한\s?없[는이]\s?(?:\S{1,6}\s)?"
         r"(?:ai|인공지능|챗봇|모드)|(?:개발자|관리자|디버그|탈옥|무제한)\s?모드[로를]\s?(?:켜|전환해|진입해"
         r"|바꿔|활성화해|들어가)\s?(?:서|줘|라|주세요|$)|(?:역할|인격|캐릭터)[을를로]\s?(?:맡아|연기해|수행해)"),
        (Tactic.STEERING, r"\b(?:append|add|include|insert|integrate|mention|recommend|put|place|end|begin"
         r"|start|modify"
         r"|enhance|encode|reverse|shift)\b[^?\n]{0,120}\b(?:your|every) (?:repl(?:y|ies)|responses?|answers?"
         r"|outputs?)\b"
         r"|\b(?:every|each) (?:answer|response|reply) (?:must|should|has to)\b"
         r"|(?:답변|대답|응답)[의에]?\s?(?:끝|마지막|처음|앞|매번|항상|반드시|마다)\S{0,3}\s(?:\S{1,12}\s){0,4}"
         r"(?:붙여|붙이|넣어|추가|포함|홍보|추천)"),
        (Tactic.ROLE_MARKER, r"<\|[^|>\n]{1,40}\|?>|\[/?INST\]|<</?SYS>>|</?(?:system|assistant|user"
         r"|instructions?|think)>"
         r"|<(?:start|end)_of_turn>|<｜[^｜\n]{1,20}｜>"
         r"|^\s{0,4}[#*\[(<]{0,4}\s?(?:system|assistant|시스템|어시스턴트)\s?(?:prompt|message|메시지"
         r"|프롬프트)?[\])>*]{0,3}\s?[:：]"),
        (Tactic.HIDDEN, r"<(?:a|img|script|svg|iframe|body|html|div|span|style|form|input|object|embed|link"
         r"|meta|base)\b"
         r"[^>\n]{0,200}>?|<[a-z][^>\n]{0,200}\b(?:hidden\b|style\s?=|on[a-z]{3,20}\s?=)|<!--[^\n]{0,200}"
         r"|!\[[^\]\n]{0,100}\]\(\s?<?(?:[a-z][a-z0-9+.-]{0,30}:|//|\\\\)|\bjavascript:"),
        # Such markup cannot fetch, run or hide anything.
        (Tactic.MARKUP, r"</[a-z][a-z0-9]{0,12}\s?>|!\[[^\]\n]{0,100}\]\(|\{\{[^}\n]{0,100}\}\}|\$\{[^}\n]{0,100}\}"),
    )
)  # fmt: skip
_PATTERNS_OF_DISGUISED: Final = tuple(pair for pair in PATTERNS if pair[0] in (Tactic.OVERRIDE, Tactic.EXTRACTION))

_BLANKS: Final = re.compile(r"[^\S\n]+")
_LINE_BREAKS: Final = re.compile(r" ?\n[ \n]*")
# Two Arabic ligatures that NFKC would expand to eighteen and eight characters.
_LONG_FORMS: Final = dict.fromkeys(map(ord, "\ufdfa\ufdfb"), " ")
# Invisible characters: format characters within a word, changes of direction, and tags.
_INVISIBLE: Final = re.compile(
    r"(?<=[^\W_])[\u200b-\u200d\u2060\ufeff\u00ad]+(?=[^\W_])|[\u202a-\u202e\u2066-\u2069]|[\U000e0000-\U000e007f]"
)
_FORMAT_CHARACTERS: Final = re.compile(
    "[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\U000e0000-\U000e007f\u0300-\u036f]"
)
# A run of hexadecimal digits, Base32 or Base64.
_ENCODED: Final = re.compile(
    r"(?<![\w+/=-])(?:[0-9a-f]{20,4000}|[A-Z2-7]{16,4000}=*|[\w+/-]{16,4000}={0,2})(?![\w+/=-])"
)
_UNICODE_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
# The separator in a word spelled with single letters: i-g-n-o-r-e.
_SINGLE_LETTERS: Final = re.compile(r"(?<=\b[^\W\d_])[ .\-_*/|,](?=[^\W\d_]\b)")
# Markup that may split a word: a tag, emphasis, a hyphen at a line's end.
_WITHIN_WORDS: Final = re.compile(r"</?[a-z]{1,10}>|[*`~]+|-\n", re.IGNORECASE)
_WORD: Final = re.compile(r"\w{2,100}")
_LEET: Final = str.maketrans("013457$@!|", "oieastsail")
_LOOKALIKES: Final = str.maketrans(
    "аеіорсхуѕһԁɡαειονρτυκɪɢɴᴏʀᴇᴀʟᴘᴠᴜᴛᴄѕᴅ", "aeiopcxyshdgaeiovptukignorealpvutcsd"
)  # Cyrillic, Greek, small capitals
_OPEN_SYLLABLE: Final = re.compile(r"([가-힣])([\u1100-\u1112])")
_FINALS: Final = dict(zip("ᄀᄁᄂᄃᄅᄆᄇᄉᄊᄋᄌᄎᄏᄐᄑᄒ", "ᆨᆩᆫᆮᆯᆷᆸᆺᆻᆼᆽᆾᆿᇀᇁᇂ", strict=True))


def normalised(text: str) -> str:
    """Return the text as a model would read it: compatibility forms folded, invisible characters removed."""
    return one_spaced(_folded(text))


def one_spaced(text: str) -> str:
    """Collapse each run of whitespace to one line feed if it contains one, else to one blank, as patterns expect it."""
    return _LINE_BREAKS.sub("\n", _BLANKS.sub(" ", text))


def find_injection(text: str) -> tuple[ScreeningFinding, ...]:
    """Return the tactics in a question or a passage, each with an excerpt."""
    folded = _folded(text)
    plain = one_spaced(folded)
    findings = [*_match(plain, PATTERNS), *_encoded(plain)]
    invisible = _INVISIBLE.search(text)
    if invisible is not None:
        findings.insert(0, ScreeningFinding(Tactic.HIDDEN, ascii(invisible.group())[:40], blocks=True))
    if not any(finding.blocks for finding in findings):
        for remove_disguise in _DISGUISES:
            undisguised = one_spaced(remove_disguise(folded))
            if undisguised != plain:
                findings += _match(undisguised, _PATTERNS_OF_DISGUISED)
    return tuple(dict.fromkeys(findings))


def _folded(text: str) -> str:
    return _FORMAT_CHARACTERS.sub("", unicodedata.normalize("NFKC", text.translate(_LONG_FORMS)))


def _match(plain: str, patterns: tuple[tuple[Tactic, re.Pattern[str]], ...]) -> Iterator[ScreeningFinding]:
    for tactic, pattern in patterns:
        if match := pattern.search(plain):
            yield ScreeningFinding(tactic, match.group()[:_MOST_EXCERPT], blocks=tactic in _BLOCKING)


def _encoded(plain: str) -> Iterator[ScreeningFinding]:
    """Find text in Base64, Base32 or hexadecimal; a finding blocks if the decoded text has a blocking finding."""
    for run in _ENCODED.finditer(plain):
        for decode in (bytes.fromhex, _from_base32, _from_base64):
            if text := _decoded(run.group(), decode):
                blocks = any(finding.blocks for finding in find_injection(text))
                yield ScreeningFinding(Tactic.ENCODED, run.group()[:40], blocks)
                break


def _decoded(run: str, decode: Callable[[str], bytes]) -> str | None:
    """Return the decoded text if it is valid UTF-8 and mostly readable characters, else None."""
    try:
        text = decode(run).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    readable = sum(char.isalnum() or char in " .,:;'\"?!-_=\n" for char in text)
    return text if len(text) >= 8 and readable >= 0.9 * len(text) else None


def _from_base32(run: str) -> bytes:
    bare = run.rstrip("=")
    return base64.b32decode(bare + "=" * (-len(bare) % 8))


def _from_base64(run: str) -> bytes:
    bare = run.rstrip("=").translate(str.maketrans("-_", "+/"))
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def _unescaped(text: str) -> str:
    return _UNICODE_ESCAPE.sub(lambda code: chr(int(code[1] or code[2], 16)), unquote(unescape(text)))


def _syllables_closed(text: str) -> str:
    """Compose Hangul that was typed as single letters; NFKC leaves a syllable's final consonant separate."""
    return _OPEN_SYLLABLE.sub(lambda pair: unicodedata.normalize("NFC", pair[1] + _FINALS.get(pair[2], pair[2])), text)


# Functions that remove one disguise each.
_DISGUISES: Final[tuple[Callable[[str], str], ...]] = (
    _unescaped,
    lambda text: text[::-1],
    lambda text: _WORD.sub(lambda word: word.group()[::-1], text),
    lambda text: _SINGLE_LETTERS.sub("", text),
    lambda text: _WITHIN_WORDS.sub("", text),
    lambda text: text.replace("\n", " "),
    lambda text: text.translate(_LEET),
    lambda text: text.translate(_LOOKALIKES),
    lambda text: codecs.encode(text, "rot13"),
    _syllables_closed,
)
