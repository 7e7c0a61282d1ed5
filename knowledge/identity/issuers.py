"""The accepted issuers of tokens: their keys, where their tokens say what, and which of our roles they may give.

`AUTH__…` is the first issuer; where customers and staff sign in at different ones, the others stand in AUTH__ISSUERS.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, model_validator

from knowledge.identity.principal import MACHINE, ROLES, Role

LONGEST_TENANT = 100
"""Characters: what the SQL tables hold."""
_LONGEST_PREFIX = 50
_PREFIX = r"^([A-Za-z0-9_.:|@/-]*[_.:|@/-])?$"
"""It ends in a sign: with `staff` no `stafford` of another issuer could sign in."""

Name = Annotated[str, StringConstraints(min_length=1)]


def _as_path(claim: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Refuse what can name no claim.

    Raises:
        ValueError: a name of the path is empty, or the text is an address, whose dots do not separate a path.
    """
    if isinstance(claim, str) and "://" in claim:
        raise ValueError(f'{claim} is one name, and text is split at its dots: write it as the list ["{claim}"]')
    if not path_of(claim) or not all(path_of(claim)):
        raise ValueError("a path of claims is names with dots between, or a list of names")
    return claim


def path_of(claim: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the names that lead to a claim, from the outermost object to the innermost."""
    return tuple(claim.split(".")) if isinstance(claim, str) else claim


ClaimPath = Annotated[str | tuple[str, ...], AfterValidator(_as_path)]
"""Names with dots between them (`realm_access.roles`); a list where a name has dots itself."""
Roles = Annotated[frozenset[Role], Field(min_length=1)]


class Issuer(BaseModel, frozen=True, extra="forbid"):
    """One issuer, with either `jwks_url` or `public_key_file` as the source of its keys."""

    issuer: str = Field(description="Tokens of this issuer (`iss`) are accepted.")
    audience: str = Field("bank-chatbot", description="Tokens must have this audience (`aud`).")
    jwks_url: str | None = Field(None, description="The issuer publishes its keys at this URL. Set it or the key file.")
    public_key_file: Path | None = Field(None, description="The issuer's public key is in this PEM file.")
    subject_claim: ClaimPath = Field(
        "sub",
        description=(
            "The subject is at this path of claims: names with dots between, or a JSON list if a name has dots."
        ),
    )
    subject_prefix: str = Field(
        "",
        max_length=_LONGEST_PREFIX,
        pattern=_PREFIX,
        description=(
            "This prefix is put before the issuer's subjects and groups to keep them apart from those of other issuers."
        ),
    )
    tenant_claim: ClaimPath = Field("tenant", description="The tenant is at this path of claims.")
    tenant: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_TENANT,
        pattern=r"^[^{]*$",
        description="All tokens of the issuer belong to this tenant if they have no claim for it.",
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

    def key_named(self, field: str) -> str:
        """Return what an operator calls a field of this issuer."""
        return f"AUTH__{field.upper()}"

    @property
    def allowed_roles(self) -> frozenset[str]:
        """The roles that its tokens may give."""
        return self.roles if self.roles is not None else ROLES

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        key = self.key_named
        if (self.jwks_url is None) == (self.public_key_file is None):
            raise ValueError(
                f"set {key('jwks_url')} or {key('public_key_file')} (one of them): whose tokens are accepted?"
            )
        if self.tenant is not None and "tenant_claim" in self.model_fields_set:
            raise ValueError(
                f"set {key('tenant')} or {key('tenant_claim')}, not both: where does the tenant come from?"
            )
        given = frozenset[str]().union(*(self.role_map or {}).values())
        if more := sorted(given - self.allowed_roles):
            raise ValueError(
                f"{key('role_map')} gives {', '.join(more)}, which {key('roles')} does not allow: correct one"
            )
        return self


class FurtherIssuer(Issuer, frozen=True):
    """One of several issuers: what is nobody's concern while there is one has no default here."""

    audience: str
    subject_prefix: str = Field(max_length=_LONGEST_PREFIX, pattern=_PREFIX)
    roles: Roles

    def key_named(self, field: str) -> str:
        return f"{field} of {self.issuer} in AUTH__ISSUERS"


class AuthSettings(Issuer, frozen=True):
    """The first issuer, the others, and what holds for all; times in seconds."""

    issuers: tuple[FurtherIssuer, ...] | None = Field(
        None,
        description=(
            "Tokens of these issuers are accepted too: a JSON list of objects with the keys above in lower case "
            "(`issuer`, `jwks_url`, `role_map`, …). `audience`, `roles` and `subject_prefix` are required."
        ),
    )
    leeway: ClassVar[float] = 60.0  # seconds: how far the issuer's clock may be from ours
    jwks_timeout: ClassVar[float] = 3.0  # seconds: the deadline of fetching the keys
    jwks_keep: ClassVar[float] = 3600.0  # seconds: after which the keys are fetched anew
    jwks_ask_again: ClassVar[float] = 30.0  # seconds: at least between two fetches for a key that is unknown
    # seconds: when keys are no longer believed, where the provider is away or answers nonsense
    jwks_most_age: ClassVar[float] = 86400.0
    longest_lifetime: float = Field(
        86400.0, description="seconds: A token's `exp` may be at most this long after its `iat`."
    )

    def every_issuer(self) -> Iterator[Issuer]:
        """Yield the accepted issuers."""
        yield self
        yield from self.issuers or ()

    @model_validator(mode="after")
    def _issuers_are_told_apart(self) -> Self:
        names = [issuer.issuer for issuer in self.every_issuer()]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"AUTH__ISSUERS has {twice[0]} again: an issuer is set once")
        prefixes = sorted({issuer.subject_prefix for issuer in self.every_issuer()} - {""})
        if any(prefix.startswith(MACHINE) for prefix in prefixes):
            raise ValueError(
                f"AUTH__SUBJECT_PREFIX, or one in AUTH__ISSUERS, begins with {MACHINE}: so do service keys"
            )
        for shorter, longer in pairwise(prefixes):
            if longer.startswith(shorter):
                raise ValueError(
                    f"AUTH__SUBJECT_PREFIX or one in AUTH__ISSUERS, {longer}, begins with another's, {shorter}: nobody "
                    "with it could sign in"
                )
        if self.issuers and self.roles is None:
            raise ValueError(
                "AUTH__ROLES must say which roles AUTH__ISSUER may give, now that AUTH__ISSUERS has others"
            )
        return self
