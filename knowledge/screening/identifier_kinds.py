"""The kinds of identifiers of persons."""

from enum import StrEnum


class IdentifierKind(StrEnum):
    """The kinds of identifiers; a `secret` is a PIN, password, one-time password or security code."""

    RESIDENT_NUMBER = "resident_number"
    CARD = "card"
    ACCOUNT = "account"
    PHONE = "phone"
    PASSPORT = "passport"
    DRIVER_LICENCE = "driver_licence"
    BUSINESS_NUMBER = "business_number"
    EMAIL = "email"
    SECRET = "secret"  # noqa: S105  # the name of a kind, not one
