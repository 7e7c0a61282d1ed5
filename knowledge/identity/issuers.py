"""The accepted issuers of tokens: their keys, the claims of their tokens, and the roles that they may give.

`AUTH__…` describes the first issuer. AUTH__ISSUERS has further ones, for instance a separate one for staff.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from knowledge.identity.principal import MACHINE, ROLES, Role

LONGEST_TENANT = 100  # characters, as in the SQL tables
_LONGEST_PREFIX = 50
_PREFIX = r"^([A-Za-z0-9_.:|@/-]*[_.:|@/-])?$"
"""A prefix ends with a separator: the prefix `staff` would also claim another issuer's subject `stafford`."""

Name = Annotated[str, StringConstraints(min_length=1)]


def _checked_path(claim: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Return the path unchanged.

    Raises:
        ValueError: a name of the path is empty, or the text is a URL, whose dots do not separate names.
    """
    if isinstance(claim, str) and "://" in claim:
        raise ValueError(f'{claim} is one name, and text is split at its dots: write it as the list ["{claim}"]')
    if not path_of(claim) or not all(path_of(claim)):
        raise ValueError("a path of claims is names with dots between, or a list of names")
    return claim


def path_of(claim: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that lead to a claim, from the outermost object to the innermost."""
    return tuple(claim.split(".")) if isinstance(claim, str) else claim


ClaimPath = Annotated[str | tuple[str, ...], AfterValidator(_checked_path)]
"""Names separated by dots (`realm_access.roles`), or a list if a name contains dots."""
Roles = Annotated[frozenset[Role], Field(min_length=1)]


class Issuer(BaseModel, frozen=True, extra="forbid"):
    """One issuer, with either `jwks_url` or `public_key_file` as the source of its keys."""

    issuer: str = Field(description="Tokens of this issuer (`iss`) are accepted.")
    audience: str = Field("bank-chatbot", description="Tokens must have this audience (`aud`).")
    jwks_url: str | None = Field(None, description="The issuer publishes its keys at this URL. Set it or the key file.")
    public_key_file: Path | None = Field(None, description="The issuer's public key is in this PEM file.")
    subject_claim: ClaimPath = Field(
        "sub", description="The subject is at this path of claims: names separated by dots, or a JSON list of names."
    )
    subject_prefix: str = Field(
        "",
        max_length=_LONGEST_PREFIX,
        pattern=_PREFIX,
        description="This prefix distinguishes the issuer's subjects and groups from those of other issuers.",
    )
    tenant_claim: ClaimPath = Field("tenant", description="The tenant is at this path of claims.")
    tenant: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_TENANT,
        pattern=r"^[^{]*$",
        description="All tokens of the issuer belong to this tenant, whatever their claims say.",
    )
    roles_claim: ClaimPath = Field("roles", description="The list of roles is at this path of claims.")
    groups_claim: ClaimPath = Field("groups", description="The list of groups is at this path of claims.")
    role_map: Annotated[dict[Name, Roles], Field(min_length=1)] | None = Field(
        None,
        description=(
            'The token\'s roles and groups are mapped to ours, as JSON: `{"chat-approvers": ["staff", '
            '"approver"]}`. Names without an entry give no role. Default: names of our roles are used.'
        ),
    )
    roles: Roles | None = Field(
        None, description="The issuer may give these roles, a JSON list. Default: all. Required with AUTH__ISSUERS."
    )

    def setting_name(self, field: str) -> str:
        """Return the name of a field's setting, for error messages."""
        return f"AUTH__{field.upper()}"

    @property
    def allowed_roles(self) -> frozenset[str]:
        """The roles that the issuer's tokens may give."""
        return self.roles if self.roles is not None else ROLES

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        key = self.setting_name
        if (self.jwks_url is None) == (self.public_key_file is None):
            raise ValueError(f"set {key('jwks_url')} or {key('public_key_file')} (one of them), the source of the keys")
        if self.tenant is not None and "tenant_claim" in self.model_fields_set:
            raise ValueError(f"set {key('tenant')} or {key('tenant_claim')}, not both")
        mapped_roles = frozenset[str]().union(*(self.role_map or {}).values())
        if excess := sorted(mapped_roles - self.allowed_roles):
            raise ValueError(
                f"{key('role_map')} gives {', '.join(excess)}, which {key('roles')} does not allow: correct one"
            )
        return self


class FurtherIssuer(Issuer, frozen=True):
    """An issuer besides the first; the fields that keep issuers apart are required."""

    audience: str
    subject_prefix: str = Field(max_length=_LONGEST_PREFIX, pattern=_PREFIX)
    roles: Roles

    def setting_name(self, field: str) -> str:
        return f"{field} of {self.issuer} in AUTH__ISSUERS"


class AuthSettings(Issuer, frozen=True):
    """The first issuer, the further ones, and the limits that all share; times are in seconds."""

    issuers: tuple[FurtherIssuer, ...] | None = Field(
        None,
        description=(
            "Tokens of these issuers are accepted too: a JSON list of objects with the keys above in lower case "
            "(`issuer`, `jwks_url`, `role_map`, …). `audience`, `roles` and `subject_prefix` are required."
        ),
    )
    leeway: ClassVar[float] = 60.0  # the tolerated difference between the issuer's clock and ours
    jwks_timeout: ClassVar[float] = 3.0  # the deadline of a fetch of the keys
    jwks_refetch_after: ClassVar[float] = 3600.0  # the age at which keys are fetched again
    jwks_pause: ClassVar[float] = 30.0  # the shortest time between two fetches
    jwks_most_age: ClassVar[float] = 86400.0  # the age from which keys are not used, if every fetch has failed
    longest_lifetime: float = Field(
        86400.0, description="seconds: A token's `exp` may be at most this long after its `iat`."
    )

    def every_issuer(self) -> Iterator[Issuer]:
        """Yield the accepted issuers."""
        yield self
        yield from self.issuers or ()

    @model_validator(mode="after")
    def _issuers_are_distinct(self) -> Self:
        names = [issuer.issuer for issuer in self.every_issuer()]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"AUTH__ISSUERS has {repeated[0]} again: an issuer is set once")
        prefixes = sorted({issuer.subject_prefix for issuer in self.every_issuer()} - {""})
        if any(prefix.startswith(MACHINE) for prefix in prefixes):
            raise ValueError(f"AUTH__SUBJECT_PREFIX or one in AUTH__ISSUERS begins with {MACHINE}, as service keys do")
        for shorter, longer in pairwise(prefixes):
            if longer.startswith(shorter):
                raise ValueError(
                    f"AUTH__SUBJECT_PREFIX or one in AUTH__ISSUERS, {longer}, begins with another issuer's, {shorter}: "
                    "nobody with the longer prefix could sign in"
                )
        if self.issuers and self.roles is None:
            raise ValueError(
                "AUTH__ROLES must name the roles that AUTH__ISSUER may give, now that AUTH__ISSUERS is set"
            )
        return self
