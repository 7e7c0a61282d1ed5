"""Who calls: the subject of a token that was verified, its tenant, roles and groups."""

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["customer", "staff", "approver", "admin", "service", "evals"]
"""`evals` marks, beside another role, a caller that only measures: its questions wait behind everybody else's."""
ROLES: frozenset[str] = frozenset(get_args(Role))


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who showed a valid token; customers always belong to the group of every customer."""

    tenant: str
    sub: str
    roles: frozenset[str]
    groups: frozenset[str]
