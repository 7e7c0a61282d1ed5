"""Masks personal identifiers, before any part of a question is stored, logged or sent (pure)."""

from dataclasses import dataclass
from typing import Final

from knowledge.passage import Language, language_of
from knowledge.screening.identifiers import find_identifiers
from knowledge.screening.patterns import IdentifierKind

LABELS: Final[dict[IdentifierKind, dict[Language, str]]] = {
    IdentifierKind.RESIDENT_NUMBER: {"ko": "[주민등록번호]", "en": "[resident number]"},
    IdentifierKind.CARD: {"ko": "[카드번호]", "en": "[card number]"},
    IdentifierKind.ACCOUNT: {"ko": "[계좌번호]", "en": "[account number]"},
    IdentifierKind.PHONE: {"ko": "[전화번호]", "en": "[phone number]"},
    IdentifierKind.PASSPORT: {"ko": "[여권번호]", "en": "[passport number]"},
    IdentifierKind.DRIVER_LICENCE: {"ko": "[운전면허번호]", "en": "[driver licence number]"},
    IdentifierKind.BUSINESS_NUMBER: {"ko": "[사업자등록번호]", "en": "[business number]"},
    IdentifierKind.EMAIL: {"ko": "[이메일]", "en": "[e-mail]"},
    IdentifierKind.SECRET: {"ko": "[비밀번호]", "en": "[secret code]"},
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
    language = language or language_of("".join(plain_parts))
    masked = plain_parts[0]
    for identifier, after in zip(identifiers, plain_parts[1:], strict=True):
        masked += LABELS[identifier.kind][language] + after
    return Masked(masked, tuple(dict.fromkeys(identifier.kind for identifier in identifiers)))
