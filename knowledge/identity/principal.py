"""The principal of a verified token: subject, tenant, roles and groups."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["customer", "staff", "approver", "admin", "platform", "service", "evals"]
"""`admin` administers its own tenant, `platform` what all tenants share. `evals`, beside another role, marks a caller
that measures: its questions queue behind all others.
"""
ROLES: frozenset[str] = frozenset(get_args(Role))
MACHINE = "service:"
"""What the subject of a service key begins with (`knowledge.service_keys`), and that of no token."""

DEMO_TENANT: Final = "demo"
"""The tenant of `make run`'s sample bank."""


@dataclass(frozen=True, slots=True)
class CustomerId:
    """Whose conversations and answers they are: all that a store needs to know of a caller."""

    tenant: str
    sub: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The bearer of a valid token; one with any known role belongs to the group of every customer."""

    tenant: str
    sub: str
    roles: frozenset[str]
    groups: frozenset[str]

    @property
    def customer_id(self) -> CustomerId:
        """The caller without roles and groups."""
        return CustomerId(self.tenant, self.sub)

    @property
    def is_machine(self) -> bool:
        """Whether a service key stands for it."""
        return self.sub.startswith(MACHINE)
