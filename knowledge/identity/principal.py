"""The principal of a verified token: subject, tenant, roles and groups."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Role = Literal["customer", "staff", "approver", "admin", "platform", "service", "evals"]
"""`admin` administers its tenant, `platform` what all tenants share. `evals`, beside another role, marks a measurement,
whose questions queue behind all others."""
ROLES: frozenset[str] = frozenset(get_args(Role))
MACHINE = "service:"
"""The prefix of the subjects of service keys (`knowledge.service_keys`); no token may have it."""

DEMO_TENANT: Final = "demo"
"""The tenant of `make run`'s sample bank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The bearer of a valid token; with any role, the bearer belongs to the group `EVERY_CUSTOMER`."""

    tenant: str
    sub: str
    roles: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()

    @property
    def customer_id(self) -> tuple[str, str]:
        """The tenant and subject, which identify the caller in stores and counters."""
        return self.tenant, self.sub

    @property
    def is_machine(self) -> bool:
        """Whether the bearer signed in with a service key."""
        return self.sub.startswith(MACHINE)
