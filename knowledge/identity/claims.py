"""Turns the claims of a verified token into a `Principal`, as its issuer's settings describe the claims."""

import unicodedata
from collections.abc import Mapping

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity.errors import TokenRefused
from knowledge.identity.issuers import LONGEST_TENANT, Issuer, path_of
from knowledge.identity.principal import MACHINE, ROLES, Principal

LONGEST_SUBJECT = 200  # characters, as in the SQL tables
LONGEST_NAME = 100  # characters of a role or a group
MOST_NAMES = 200
"""The most roles, and the most groups, of a token; every search and audit row contains them."""

Claims = Mapping[str, object]


def principal_of(claims: Claims, issuer: Issuer, foreign_prefixes: tuple[str, ...] = ()) -> Principal:
    """Return the principal that an issuer's claims describe; `foreign_prefixes` belong to the other issuers.

    Roles and groups are lists of names; AD FS and WSO2 send a single name as text. A group with a foreign prefix is
    ignored. If it were a reason to refuse the token, a user who creates such a group would lock out its members.

    Raises:
        TokenRefused: the subject or tenant is missing or invalid, the roles or groups are not lists of names, or the
            subject begins with a foreign prefix or with the prefix of service keys.
    """
    sub = claim_at(claims, issuer.subject_claim)
    tenant = issuer.tenant if issuer.tenant is not None else claim_at(claims, issuer.tenant_claim)
    # A brace in a Redis key would move it to another slot of a cluster.
    if not isinstance(sub, str) or not isinstance(tenant, str) or not sub or not tenant or "{" in tenant + sub:
        raise TokenRefused("the token names no subject or no tenant")
    sub = issuer.subject_prefix + sub
    if not (_is_name(sub, LONGEST_SUBJECT) and _is_name(tenant, LONGEST_TENANT)):
        raise TokenRefused("the token's subject or tenant is too long or is not text")
    if sub.startswith((*foreign_prefixes, MACHINE)):
        raise TokenRefused("the token's subject has the prefix of another issuer or of service keys")
    token_roles = _names(claim_at(claims, issuer.roles_claim))
    token_groups = _names(claim_at(claims, issuer.groups_claim))
    roles = _our_roles(issuer, token_roles, token_groups)
    groups = {issuer.subject_prefix + name for name in token_groups}
    own_groups = frozenset(group for group in groups if not group.startswith(foreign_prefixes))
    everybody = frozenset((EVERY_CUSTOMER,)) if roles else frozenset[str]()
    return Principal(tenant=tenant, sub=sub, roles=roles, groups=own_groups | everybody)


def claim_at(claims: Claims, claim: str | tuple[str, ...]) -> object:
    """Return the value at a path of claims, or an empty list if a claim of the path is missing.

    Raises:
        TokenRefused: a claim within the path is not an object.
    """
    value: object = claims
    for name in path_of(claim):
        if not isinstance(value, Mapping):
            raise TokenRefused("the token's claims do not have the shape configured for its issuer")
        if name not in value:
            return []
        value = value[name]
    return value


def _our_roles(issuer: Issuer, token_roles: frozenset[str], token_groups: frozenset[str]) -> frozenset[str]:
    if issuer.role_map is None:
        return token_roles & ROLES & issuer.allowed_roles
    mapped_roles = frozenset[str]().union(*(issuer.role_map.get(name, ()) for name in token_roles | token_groups))
    return mapped_roles & issuer.allowed_roles


def _names(value: object) -> frozenset[str]:
    """Return the names of a claim; raise TokenRefused if it is not a list of names, or exceeds a limit."""
    names = [value] if isinstance(value, str) and value else value
    if not (isinstance(names, list) and all(isinstance(item, str) for item in names)):
        raise TokenRefused("the token's roles or groups are not lists of names")
    if len(names) > MOST_NAMES or not all(_is_name(item, LONGEST_NAME) for item in names):
        raise TokenRefused("the token's roles or groups are too many, too long or are not text")
    return frozenset(names)


def _is_name(text: str, longest: int) -> bool:
    """Return whether a name can be stored in Redis, SQL and the index, logged, and sent in a header."""
    # Control characters and lone surrogates: JSON and Python accept a surrogate, but it cannot be encoded as UTF-8.
    return len(text) <= longest and not any(unicodedata.category(char) in {"Cc", "Cs"} for char in text)
