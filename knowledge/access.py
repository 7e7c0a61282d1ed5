"""The access scope of a search: tenant, groups and instant. `knowledge.index` turns it into a filter."""

from dataclasses import dataclass

EVERY_CUSTOMER = "customers"
"""The group that every customer belongs to: the default `readers` of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A tenant, the caller's groups and an instant in Unix seconds; without groups no passage is readable."""

    tenant: str
    groups: frozenset[str]
    as_of: float
