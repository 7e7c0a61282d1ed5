"""Choose Korean particles by the preceding sound: 예금은, 카드는, OTP가, 1588-5000으로, 3%로 (pure)."""

import re
from typing import Final

# The form after a consonant, and the form after a vowel.
_FORMS: Final = (("은", "는"), ("이", "가"), ("을", "를"), ("과", "와"), ("으로", "로"), ("이라", "라"))
_RIEUL: Final = 8
_IEUNG: Final = 21
# The final consonant (its index in a Hangul syllable) of the names of digits and letters: 영 ends with ㅇ, 일 with ㄹ.
_FINAL_OF_DIGITS: Final = {"0": _IEUNG, "1": _RIEUL, "3": 16, "6": 1, "7": _RIEUL, "8": _RIEUL}
_FINAL_OF_LETTERS: Final = {"l": _RIEUL, "m": 16, "n": 4}
# The last pronounced character of a word, or a whole abbreviation.
_LAST_SOUND: Final = re.compile(r"(?P<abbreviation>(?<![A-Za-z])[A-Z]{1,20}(?=[^\w%]*\Z))|[\w%](?=[^\w%]*\Z)")


def with_particle(word: str, particle: str) -> str:
    """Append the form of a particle that fits the word's last sound; brackets and quotes are silent."""
    final = _final_consonant(word)
    after_consonant, after_vowel = next((forms for forms in _FORMS if particle in forms), (particle, particle))
    is_vowel_form = final == 0 or (final == _RIEUL and after_vowel == "로")  # 서울로
    return word + (after_vowel if is_vowel_form else after_consonant)


def _final_consonant(word: str) -> int:
    """Return the final consonant of the last pronounced syllable, 0 for none."""
    last_sound = _LAST_SOUND.search(word)
    if last_sound is None:
        return 0
    last = last_sound.group()[-1]
    if "가" <= last <= "힣":
        return (ord(last) - ord("가")) % 28
    if last_sound["abbreviation"] and last == "R":
        return _RIEUL
    if word[: last_sound.end()].lower().endswith("ng"):
        return _IEUNG
    return _FINAL_OF_DIGITS.get(last, _FINAL_OF_LETTERS.get(last.lower(), 0))
