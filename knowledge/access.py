"""Who is asking, and at what time: every search takes an `Access`; `knowledge.index` turns it into the one filter."""

from dataclasses import dataclass

EVERY_CUSTOMER = "customers"
"""The group that every customer belongs to: the default `readers` of a document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A tenant, the caller's groups and an instant in Unix seconds; no groups means that nothing can be read."""

    tenant: str
    groups: frozenset[str]
    as_of: float
