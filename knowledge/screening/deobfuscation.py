"""Undoes the obfuscation of text: escapes, encodings, look-alike letters, spaced letters, leetspeak, reversal.

Pure. `normalised` returns the text as a model would read it; `deobfuscated` yields further readings that differ.
"""

import base64
import binascii
import codecs
import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote

_ZERO_WIDTH: Final = dict.fromkeys(
    map(
        ord,
        "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u180e\u200e\u200f",
    )
)
_BLANKS: Final = re.compile(r"[^\S\n]+")
_LINE_BREAKS: Final = re.compile(r" ?\n[ \n]*")
# Two Arabic phrases in one character each, which fold into eighteen and eight: a short text would become a long one.
_LONG_FORMS: Final = dict.fromkeys(map(ord, "\ufdfa\ufdfb"), " ")
_INVISIBLE: Final = re.compile(
    r"(?<=[^\W_])[\u200b-\u200d\u2060\ufeff\u00ad]+(?=[^\W_])|[\u202a-\u202e\u2066-\u2069]"
    r"|[\U000e0000-\U000e007f]"
)
# Letters of other scripts, and small capitals, that look like Latin ones.
_LOOKALIKES: Final = {
    ord(other): latin
    for latin, others in {
        "a": "аαᴀɑ", "b": "вʙƅ", "c": "сᴄϲ", "d": "ԁᴅ", "e": "еεᴇє", "f": "ғ", "g": "ɡɢց", "h": "һʜн", "i": "іιɪı",
        "j": "јᴊ", "k": "кκᴋ", "l": "ӏʟł", "m": "мᴍ", "n": "ոɴп", "o": "оοσᴏøօ", "p": "рρᴘ", "q": "ԛ", "r": "гʀ",
        "s": "ѕꜱ", "t": "тτᴛ", "u": "υᴜս", "v": "νᴠѵ", "w": "ԝᴡѡω", "x": "хχ", "y": "уʏү", "z": "ᴢ",
        "A": "АΑ", "B": "ВΒ", "C": "СϹ", "E": "ЕΕ", "H": "НΗ", "I": "ІΙӀ", "J": "Ј", "K": "КΚ", "M": "МΜ", "N": "Ν",
        "O": "ОΟ", "P": "РΡ", "S": "Ѕ", "T": "ТΤ", "X": "ХΧ", "Y": "УΥ", "Z": "Ζ",
    }.items()
    for other in others
}  # fmt: skip
_LEET: Final = str.maketrans("013457$@!|", "oieastsail")
_LEET_WORD: Final = re.compile(r"(?<!\S)(?=\S*[A-Za-z])(?=\S*[013457$@!|])[A-Za-z013457$@!|]{3,}(?=[\s.,?;:]|$)")
# Four or more single letters or syllables with the same separator between them.
_SPACED: Final = re.compile(r"(?<![^\W_])[^\W\d_](?:([ .\-_*/|,])[^\W\d_])(?:\1[^\W\d_]){2,}(?![^\W_])")
# A line of them, with wider gaps between its words.
_SPACED_LINE: Final = re.compile(r"(?<!\S)[^\W\d_](?:[ ]{1,4}[^\W\d_][.,!?]?){5,}(?!\S)")
_GAP: Final = re.compile(r"[ ]([ ]*)")
_TAG: Final = re.compile(r"</?[A-Za-z][^<>\n]{0,60}>")
_WITHIN_A_WORD: Final = re.compile(r"(?<=[^\W\d_])(?:-[ ]?\n|[.\-_*/|,~`·]{1,4})(?=[^\W\d_])")
_WRAPPED: Final = re.compile(r"[ ]?\n[ ]?(?=[a-z가-힣])")
_WORD: Final = re.compile(r"[^\W\d_]{2,}")
# A syllable without a final consonant, and a consonant alone: the letters of Hangul, written one by one, fold so far.
_OPEN_SYLLABLE: Final = re.compile(r"[가-힣][\u1100-\u1112]")
_FIRSTS: Final = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_FINALS: Final = " ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"
_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/=_-])[A-Za-z0-9+/_-]{16,}={0,2}(?![A-Za-z0-9+/=_-])")
_BASE32: Final = re.compile(r"(?<![A-Z2-7=])[A-Z2-7]{16,}={0,6}(?![A-Z2-7=])")
_HEX: Final = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9A-Fa-f]{2}[ :]?){10,}(?![0-9A-Fa-f])")
_UNICODE_ESCAPE: Final = re.compile(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})|\\U([0-9a-fA-F]{8})")


def normalised(text: str) -> str:
    """Return the text as a model would read it: compatibility forms folded, invisible characters gone."""
    return one_spaced(_folded(text))


def one_spaced(text: str) -> str:
    """Return the text with one blank for each run of blanks, and one line feed for each run that has one.

    Patterns are matched on such a text: between two words they allow for one blank, not for any number.
    """
    return _LINE_BREAKS.sub("\n", _BLANKS.sub(" ", text))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text.translate(_LONG_FORMS)).translate(_ZERO_WIDTH)


def invisible_characters(text: str) -> str | None:
    """Return the first invisible characters within a word or of a changed text direction, as escapes."""
    match = _INVISIBLE.search(text)
    return ascii(match.group())[:40] if match else None


def deobfuscated(text: str) -> Iterator[str]:
    """Yield the readings of a text by each kind of deobfuscation, without repetition."""
    seen = {normalised(text)}
    # Blanks are not collapsed yet: spaced letters have wider gaps between their words.
    plain = _folded(text)
    for undo in _UNDO:
        reading = one_spaced(undo(plain))
        if reading not in seen:
            seen.add(reading)
            yield reading


def decoded(plain: str) -> Iterator[tuple[str, str]]:
    """Yield each run of Base64, Base32 or hexadecimal that decodes to text, with the text."""
    for pattern, decode in ((_BASE32, _from_base32), (_HEX, bytes.fromhex), (_BASE64, _from_base64)):
        for match in pattern.finditer(plain):
            text = _readable(match.group(), decode)
            if text is not None:
                yield match.group(), text


def _unescaped(plain: str) -> str:
    text = html.unescape(plain) if "&" in plain else plain
    text = unquote(text) if "%" in text else text
    return _UNICODE_ESCAPE.sub(_character, text) if "\\" in text else text


def _character(escape: re.Match[str]) -> str:
    code = int(escape.group(1) or escape.group(2) or escape.group(3), 16)
    return chr(code) if code < 0x110000 else escape.group()


def _latin(plain: str) -> str:
    if plain.isascii():
        return plain
    stripped = "".join(c for c in unicodedata.normalize("NFD", plain) if not "\u0300" <= c <= "\u036f")
    return unicodedata.normalize("NFC", stripped).translate(_LOOKALIKES)


def _unspaced(plain: str) -> str:
    """Join single letters with a separator between them; wider gaps between words stay."""
    return _SPACED.sub(lambda letters: letters.group().replace(letters.group(1), ""), plain)


def _unleeted(plain: str) -> str:
    return _LEET_WORD.sub(lambda word: word.group().translate(_LEET), plain)


def _rot13(plain: str) -> str:
    return codecs.encode(plain, "rot13")


def _backwards(plain: str) -> str:
    return plain[::-1]


def _words_backwards(plain: str) -> str:
    return _WORD.sub(lambda word: word.group()[::-1], plain)


def _unspaced_line(plain: str) -> str:
    return _SPACED_LINE.sub(lambda line: _GAP.sub(lambda gap: gap.group(1)[:1], line.group()), plain)


def _unmarked(plain: str) -> str:
    """Join words that tags, emphasis, points or the end of a line cut in two."""
    return _WITHIN_A_WORD.sub("", _TAG.sub("", plain))


def _unwrapped(plain: str) -> str:
    return _WRAPPED.sub(" ", plain)


def _in_syllables(plain: str) -> str:
    return _OPEN_SYLLABLE.sub(lambda pair: _closed(*pair.group()), plain)


def _closed(syllable: str, consonant: str) -> str:
    final = _FINALS.find(_FIRSTS[ord(consonant) - 0x1100])
    is_open = (ord(syllable) - ord("가")) % len(_FINALS) == 0
    return chr(ord(syllable) + final) if is_open and final > 0 else syllable + consonant


_UNDO: Final = (
    _unescaped,
    _latin,
    _unspaced,
    _unspaced_line,
    _unmarked,
    _unwrapped,
    _in_syllables,
    _unleeted,
    _rot13,
    _backwards,
    _words_backwards,
)


def _from_base64(token: str) -> bytes:
    bare = token.rstrip("=").translate(str.maketrans("-_", "+/"))
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)


def _from_base32(token: str) -> bytes:
    bare = token.rstrip("=")
    return base64.b32decode(bare + "=" * (-len(bare) % 8))


def _readable(token: str, decode: Callable[[str], bytes]) -> str | None:
    try:
        text = decode(token.replace(":", " ") if decode is bytes.fromhex else token).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    readable = sum(char.isalnum() or char in " .,:;'\"?!-_\n" for char in text)
    return text if len(text) >= 8 and readable >= 0.9 * len(text) else None
