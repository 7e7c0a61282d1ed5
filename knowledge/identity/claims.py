"""Reads a verified token's claims as its issuer's map says, into a `Principal`."""

import unicodedata
from collections.abc import Mapping

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity.errors import TokenRefused
from knowledge.identity.issuers import LONGEST_TENANT, Issuer, path_of
from knowledge.identity.principal import MACHINE, ROLES, Principal

LONGEST_SUBJECT = 200
"""Characters: what the SQL tables hold."""
LONGEST_NAME = 100
MOST_NAMES = 200
"""Characters of a role or a group, and how many a token may have of each: every search and audit row carries them."""

Claims = Mapping[str, object]


def principal_of(claims: Claims, issuer: Issuer, others: tuple[str, ...] = ()) -> Principal:
    """Return the principal that an issuer's claims describe; `others` are the prefixes of other issuers' names.

    Roles and groups are lists of names; one name alone may be text, as AD FS and WSO2 write it.
    A group that begins as another issuer's groups do is left out: a user who creates one here must lock nobody out.

    Raises:
        TokenRefused: a claim is missing, or has another shape than text or a list of names, or the subject begins as
            another issuer's subjects do, or as those of service keys.
    """
    sub = claim_at(claims, issuer.subject_claim)
    tenant = issuer.tenant if issuer.tenant is not None else claim_at(claims, issuer.tenant_claim)
    if not (isinstance(sub, str) and sub and isinstance(tenant, str) and tenant and "{" not in tenant + sub):
        raise TokenRefused("the token names no subject or no tenant")
    sub = issuer.subject_prefix + sub
    if not (_is_name(sub, LONGEST_SUBJECT) and _is_name(tenant, LONGEST_TENANT)):
        raise TokenRefused("the token's subject or tenant is too long or is not text")
    if sub.startswith((*others, MACHINE)):
        raise TokenRefused("the token's subject begins as another issuer's subjects do, or as those of service keys")
    named, groups = (_names(claim_at(claims, claim)) for claim in (issuer.roles_claim, issuer.groups_claim))
    roles = _our_roles(issuer, named, groups)
    readers = frozenset(group for name in groups if not (group := issuer.subject_prefix + name).startswith(others))
    everybody = frozenset((EVERY_CUSTOMER,)) if roles else frozenset[str]()
    return Principal(tenant=tenant, sub=sub, roles=roles, groups=readers | everybody)


def claim_at(claims: Claims, claim: str | tuple[str, ...]) -> object:
    """Return what stands at a path of claims, an empty list where there is nothing.

    Raises:
        TokenRefused: the path leads through what has no names.
    """
    value: object = claims
    for name in path_of(claim):
        if not isinstance(value, Mapping):
            raise TokenRefused("the token's claims do not have the shape configured for its issuer")
        if name not in value:
            return []
        value = value[name]
    return value


def _our_roles(issuer: Issuer, named: frozenset[str], groups: frozenset[str]) -> frozenset[str]:
    if issuer.role_map is None:
        return named & ROLES & issuer.allowed_roles
    given = frozenset[str]().union(*(issuer.role_map.get(name, ()) for name in named | groups))
    return given & issuer.allowed_roles


def _names(value: object) -> frozenset[str]:
    names = [value] if isinstance(value, str) and value else value
    if not (isinstance(names, list) and all(isinstance(item, str) for item in names)):
        raise TokenRefused("the token's roles or groups are not lists of names")
    if len(names) > MOST_NAMES or not all(_is_name(item, LONGEST_NAME) for item in names):
        raise TokenRefused("the token's roles or groups are too many, too long or are not text")
    return frozenset(names)


def _is_name(text: str, longest: int) -> bool:
    """Return whether a claim can be stored and sent: Redis, SQL, the index, logs and headers all get it."""
    # A lone surrogate is a character for JSON and Python, and for nothing that encodes it.
    return len(text) <= longest and not any(unicodedata.category(char) in {"Cc", "Cs"} for char in text)
