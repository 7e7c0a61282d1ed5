"""Whether a sentence says that something is so or is not: 가능합니다 and 불가합니다 share nearly all words."""

import re
from dataclasses import dataclass
from typing import Final

_DENIES: Final = re.compile(
    r"없|않|못하|못합|못한|불가|아니|아닙|금지|제외|미적용|안\s?(?:되|됩|된|돼)|면제|무료"
    r"|\b(?:not|no|never|cannot|without|except|unable|free|waived|neither|nor|unless|prohibited|excluded)\b|n't\b",
    re.IGNORECASE,
)
_ENDS_DENYING: Final = re.compile(r"(?:없|않|불가|못합|못한|아닙|금지|제외|안\s?(?:됩|돼))[가-힣\s]{0,6}[.!?)\s|*]*\Z")
_ENGLISH_DENIAL: Final = re.compile(
    r"\b(?:can|could|may|is|are|do|does|will|must|shall)(?:\s?not|n't)\b", re.IGNORECASE
)
_ENGLISH_CLAUSE: Final = 160


@dataclass(frozen=True, slots=True)
class Polarity:
    """`denies`: a negative word stands anywhere; `ends_denying`: the sentence as a whole says that it is not so."""

    denies: bool
    ends_denying: bool

    @classmethod
    def of(cls, sentence: str) -> "Polarity":
        denies = _DENIES.search(sentence) is not None
        short = len(sentence) <= _ENGLISH_CLAUSE
        main = _ENDS_DENYING.search(sentence) or (short and _ENGLISH_DENIAL.search(sentence))
        return cls(denies, denies and bool(main))

    def contradicts(self, other: "Polarity") -> bool:
        """Whether one says no as a whole and the other has no negative word at all."""
        return (self.ends_denying and not other.denies) or (other.ends_denying and not self.denies)
