"""Access of a search: tenant, groups and instant, which `knowledge.index` turns into its filter."""

from dataclasses import dataclass

EVERY_CUSTOMER = "customers"
"""The group that every customer belongs to: the default `readers` of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A tenant, the caller's groups and an instant in Unix seconds; without groups nothing can be read."""

    tenant: str
    groups: frozenset[str]
    as_of: float
