"""Masks personal identifiers, before any part of a question is stored, logged or sent (pure)."""

from dataclasses import dataclass
from typing import Final

from knowledge.passage import Language, language_of
from knowledge.screening.identifiers import find_identifiers
from knowledge.screening.patterns import IdentifierKind

LABELS: Final[dict[Language, dict[IdentifierKind, str]]] = {
    "ko": {
        IdentifierKind.RESIDENT_NUMBER: "[주민등록번호]",
        IdentifierKind.CARD: "[카드번호]",
        IdentifierKind.ACCOUNT: "[계좌번호]",
        IdentifierKind.PHONE: "[전화번호]",
        IdentifierKind.PASSPORT: "[여권번호]",
        IdentifierKind.DRIVER_LICENCE: "[운전면허번호]",
        IdentifierKind.BUSINESS_NUMBER: "[사업자등록번호]",
        IdentifierKind.EMAIL: "[이메일]",
        IdentifierKind.SECRET: "[비밀번호]",
    },
    "en": {
        IdentifierKind.RESIDENT_NUMBER: "[resident number]",
        IdentifierKind.CARD: "[card number]",
        IdentifierKind.ACCOUNT: "[account number]",
        IdentifierKind.PHONE: "[phone number]",
        IdentifierKind.PASSPORT: "[passport number]",
        IdentifierKind.DRIVER_LICENCE: "[driver licence number]",
        IdentifierKind.BUSINESS_NUMBER: "[business number]",
        IdentifierKind.EMAIL: "[e-mail]",
        IdentifierKind.SECRET: "[secret code]",
    },
}


@dataclass(frozen=True, slots=True)
class Masked:
    """A masked text, and the distinct kinds of its identifiers in order of appearance."""

    text: str
    kinds: tuple[IdentifierKind, ...]


def mask(text: str, language: Language | None = None) -> Masked:
    """Replace each identifier by a label in `language` (default: the text's); other text is unchanged."""
    identifiers = find_identifiers(text)
    starts = [0, *(identifier.end for identifier in identifiers)]
    ends = [*(identifier.start for identifier in identifiers), len(text)]
    plain_parts = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    # An e-mail address in Latin letters does not make a Korean sentence English.
    labels = LABELS[language or language_of("".join(plain_parts))]
    masked = plain_parts[0] + "".join(
        labels[identifier.kind] + after for identifier, after in zip(identifiers, plain_parts[1:], strict=True)
    )
    return Masked(masked, tuple(dict.fromkeys(identifier.kind for identifier in identifiers)))
