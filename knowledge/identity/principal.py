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


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The bearer of a valid token; one with any known role belongs to the group of every customer."""

    tenant: str
    sub: str
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @property
    def customer_id(self) -> tuple[str, str]:
        """The tenant and subject, by which stores and counters know the caller."""
        return self.tenant, self.sub

    @property
    def is_machine(self) -> bool:
        """Whether a service key stands for it."""
        return self.sub.startswith(MACHINE)
