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
        ValueError: a name of the path is empty, or the text is an address, whose dots are no path.
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

    issuer: str = Field(description="who signs the accepted tokens (`iss`)")
    audience: str = Field("bank-chatbot", description="for whom they must be (`aud`)")
    jwks_url: str | None = Field(None, description="where the issuer publishes its keys; this or the key file")
    public_key_file: Path | None = Field(None, description="the issuer's public key, a file in PEM format")
    subject_claim: ClaimPath = Field(
        "sub", description="the claim with the subject: names with dots between, or a JSON list of names that have dots"
    )
    subject_prefix: str = Field(
        "",
        max_length=_LONGEST_PREFIX,
        pattern=_PREFIX,
        description="what its subjects and groups begin with here, so that none is another issuer's of the same name",
    )
    tenant_claim: ClaimPath = Field("tenant", description="the claim with the tenant, written as the subject's")
    tenant: str | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_TENANT,
        pattern=r"^[^{]*$",
        description="the tenant of all its tokens, where they have no claim for it",
    )
    roles_claim: ClaimPath = Field("roles", description="the claim with the list of roles, written as the subject's")
    groups_claim: ClaimPath = Field("groups", description="the claim with the list of groups, written as the subject's")
    role_map: Annotated[dict[Name, Roles], Field(min_length=1)] | None = Field(
        None,
        description=(
            'our roles by the roles and groups of the token, as JSON: `{"chat-approvers": ["staff", "approver"]}`; a '
            "name that is not in it gives none; without it roles that have our names are ours"
        ),
    )
    roles: Roles | None = Field(
        None, description="the roles that this issuer may give, as a JSON list; any, unless AUTH__ISSUERS has others"
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
            "further issuers, as a JSON list of objects with the keys above in small letters (`issuer`, `jwks_url`, "
            "`role_map`, …), of which `audience`, `roles` and `subject_prefix` are required; AUTH__ROLES then too"
        ),
    )
    leeway: ClassVar[float] = 60.0  # seconds: how far the issuer's clock may be from ours
    jwks_timeout: ClassVar[float] = 3.0  # seconds: the deadline of fetching the keys
    jwks_keep: ClassVar[float] = 3600.0  # seconds: after which the keys are fetched anew
    jwks_ask_again: ClassVar[float] = 30.0  # seconds: at least between two fetches for a key that is unknown
    # seconds: when keys are no longer believed, where the provider is away or answers nonsense
    jwks_most_age: ClassVar[float] = 86400.0
    longest_lifetime: float = Field(86400.0, description="seconds: the most between a token's `iat` and its `exp`")

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
