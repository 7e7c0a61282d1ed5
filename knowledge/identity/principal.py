"""The principal of a verified token: subject, tenant, roles and groups."""

from dataclasses import dataclass
from typing import Literal, get_args

Role = Literal["customer", "staff", "approver", "admin", "platform", "service", "evals"]
"""`admin` administers its own tenant, `platform` what all tenants share. `evals`, beside another role, marks a caller
that measures: its questions queue behind all others.
"""
ROLES: frozenset[str] = frozenset(get_args(Role))


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The bearer of a valid token; one with any known role belongs to the group of every customer."""

    tenant: str
    sub: str
    roles: frozenset[str]
    groups: frozenset[str]
