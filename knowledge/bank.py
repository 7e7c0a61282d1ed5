"""The bank's branding: names, telephone, logo, colours, texts, helplines, glossary (`BANK_FILE`, docs/bank.md).

The file describes one bank. If an installation serves several, each tenant's entry overrides whole top-level keys.
"""

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Generic, Literal, NamedTuple, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError

from knowledge.glossary import Glossary
from knowledge.passage import Language

T = TypeVar("T")

MOST_LOGO_BYTES: Final = 256 * 1024
LOGO_TYPES: Final[Mapping[str, str]] = {".svg": "image/svg+xml", ".png": "image/png"}
MOST_QUESTIONS: Final = 6

# {name}, or a brace that belongs to no placeholder.
_PLACEHOLDER: Final = re.compile(r"\{(\w*)\}|[{}]")

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Short = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
Colour = Annotated[str, StringConstraints(pattern=r"^#[0-9a-f]{6}$", to_lower=True)]
ReplyName = Literal[
    "greeting", "thanks", "identity", "person", "injection", "out_of_scope", "distress", "other_bank", "own_account",
    "forecast", "advice", "cannot_verify", "unavailable", "emergency",
]  # fmt: skip


class BankRefused(Exception):
    """The bank file is invalid; the message names the file, the key and the remedy."""


class _Part(BaseModel, frozen=True, extra="forbid"):
    pass


def _only(*names: str) -> AfterValidator:
    """Return a validator that rejects every placeholder except `names`."""

    def checked(text: str) -> str:
        for placeholder in _PLACEHOLDER.finditer(text):
            if placeholder[1] not in names:
                allowed = ", ".join(f"{{{name}}}" for name in names)
                raise ValueError(f"{placeholder[0]} is not a placeholder here: write {allowed}, or no braces")
        return text

    return AfterValidator(checked)


class Both(_Part, Generic[T]):
    """A value in Korean and in English."""

    ko: T
    en: T


Names = Both[Short]
Words = Both[Text]
Opening = Both[Annotated[Text, _only("bank")]]
"""The greeting at the top of the customers' page."""
Reply = Both[Annotated[Text, _only("bank", "crisis", "emergency", "debt")]]
"""A canned reply in place of an answer; the sentence about how to reach a person follows it."""
Questions = Both[Annotated[tuple[Text, ...], Field(max_length=MOST_QUESTIONS)]]
"""Sample questions on the customers' page."""


class Helplines(_Part):
    """The helplines for customers in distress."""

    crisis: Words
    emergency: Short
    debt: Words


class Palette(_Part):
    """The brand's colours for one colour scheme, light or dark."""

    brand: Colour
    brand_strong: Colour
    on_brand: Colour
    accent: Colour

    def css(self) -> str:
        """Return the colours as CSS custom properties."""
        return "".join(f"--{name.replace('_', '-')}:{value};" for name, value in self)


class Colours(_Part):
    """The colours of both pages; the defaults are neutral."""

    light: Palette = Palette(brand="#2f4858", brand_strong="#1d2f3a", on_brand="#ffffff", accent="#d9b44a")
    dark: Palette = Palette(brand="#9fc3d6", brand_strong="#c3dcea", on_brand="#0b1a22", accent="#d9b44a")


class Bank(_Part):
    """A bank as customers and staff see it."""

    names: Names
    telephone: Annotated[Short, StringConstraints(pattern=r"^\+?[0-9][0-9 ()-]{1,30}$")]
    helplines: Helplines
    logo: Path | None = None
    colours: Colours = Field(default_factory=Colours)
    opening: Opening | None = None
    questions: Questions = Questions(ko=(), en=())
    refusals: Mapping[ReplyName, Reply] = {}
    glossary: tuple[tuple[Short, ...], ...] = ()
    hosts: tuple[Short, ...] = ()
    """The host names that serve this bank's pages."""

    @property
    def own_names(self) -> tuple[str, ...]:
        """The bank's names, which count neither as a topic of a question nor as another bank."""
        return (self.names.ko, self.names.en)

    @cached_property
    def synonyms(self) -> Glossary:
        """The glossary, compiled for searches."""
        return Glossary(self.glossary)

    @cached_property
    def logo_file(self) -> "Logo | None":
        """The logo; None to use the page's neutral default."""
        return None if self.logo is None else Logo(self.logo.read_bytes(), LOGO_TYPES[self.logo.suffix.lower()])

    def name(self, language: Language) -> str:
        """Return the bank's name in a language."""
        return self.names.ko if language == "ko" else self.names.en

    def fill_in(self, text: str, language: Language) -> str:
        """Return the text with its placeholders replaced by the bank's name, telephone and helplines."""
        helplines = self.helplines
        return text.format(
            bank=self.name(language),
            crisis=getattr(helplines.crisis, language),
            emergency=helplines.emergency,
            debt=getattr(helplines.debt, language),
            contact=self.telephone,
        )


class Logo(NamedTuple):
    """A picture's bytes and media type."""

    content: bytes
    media_type: str


class Banks:
    """Maps tenants and hosts to banks; unlisted tenants and hosts get the first bank."""

    def __init__(self, first: Bank, tenants: Mapping[str, Bank] = {}) -> None:
        self.first = first
        self._tenants = dict(tenants)
        self._hosts = {host.lower(): bank for bank in (first, *self._tenants.values()) for host in bank.hosts}

    @property
    def all(self) -> tuple[Bank, ...]:
        """Every bank."""
        return (self.first, *self._tenants.values())

    def of(self, tenant: str) -> Bank:
        """Return the bank of a tenant."""
        return self._tenants.get(tenant, self.first)

    def by_tenant(self, make: Callable[[Bank], T]) -> Callable[[str], T]:
        """Call `make` once per bank, and return a lookup of the results by tenant."""
        of_first = make(self.first)
        of_tenants = {tenant: make(bank) for tenant, bank in self._tenants.items()}
        return lambda tenant: of_tenants.get(tenant, of_first)

    def may_sign_in(self, tenant: str, host: str) -> bool:
        """Return whether a tenant's people may sign in at a host; False if the host shows another bank's pages."""
        return self._hosts.get(host.lower(), self.of(tenant)) is self.of(tenant)

    def of_host(self, host: str) -> Bank:
        """Return the bank whose pages a host serves; `host` has no port."""
        return self._hosts.get(host.lower(), self.first)


def read_banks(path: Path) -> Banks:
    """Read a `BANK_FILE`.

    Raises:
        BankRefused: the file cannot be read or is invalid.
    """
    try:
        fields = yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise BankRefused(f"{path} cannot be read as YAML: {exc}") from exc
    if not isinstance(fields, dict):
        raise BankRefused(f"{path}: begin with `names:` (docs/bank.md has an example)")
    tenants = fields.pop("tenants", None) or {}
    if not isinstance(tenants, dict) or not all(isinstance(entry, dict) for entry in tenants.values()):
        raise BankRefused(f"{path}: tenants: write below each tenant the keys that differ from the first bank's")
    first = _validated_bank(path, fields)
    # A host shows one bank, so tenants don't inherit the first bank's hosts.
    shared = {key: value for key, value in fields.items() if key != "hosts"}
    banks = {str(name): _validated_bank(path, shared | entry, f"tenants.{name}.") for name, entry in tenants.items()}
    hosts = [host.lower() for bank in (first, *banks.values()) for host in bank.hosts]
    if len(set(hosts)) < len(hosts):
        raise BankRefused(f"{path}: hosts: a host is listed twice; a host shows the pages of one bank")
    return Banks(first, banks)


def _checked_bank_file(path: Path) -> Path:
    try:
        read_banks(path)
    except BankRefused as exc:
        raise ValueError(str(exc)) from exc
    return path


BankFile = Annotated[Path, AfterValidator(_checked_bank_file)]
"""A setting with the path of a `BANK_FILE`; validation reads the file, so that errors show before anything starts."""


def _validated_bank(path: Path, fields: Mapping[str, Any], where: str = "") -> Bank:
    """Return the validated bank, its logo's path resolved in the file's folder; `where` precedes the keys in errors."""
    try:
        bank = Bank.model_validate(fields)
        if bank.logo is not None:
            logo = path.parent / bank.logo
            _check_logo(logo)
            bank = bank.model_copy(update={"logo": logo})
    except ValidationError as exc:
        errors = (
            f"{where}{'.'.join(map(str, error['loc']))}: {error['msg'].removeprefix('Value error, ')}"
            for error in exc.errors()
        )
        raise BankRefused(f"{path}: {'; '.join(errors)} (docs/bank.md describes every key)") from exc
    except (OSError, ValueError) as exc:
        raise BankRefused(f"{path}: {where}logo: {exc}") from exc
    return bank


def _check_logo(path: Path) -> None:
    """Check the logo's file type and size.

    Raises:
        OSError, ValueError: the file is missing, is not a picture, or is too large.
    """
    if path.suffix.lower() not in LOGO_TYPES:
        raise ValueError(f"{path.name} is neither .svg nor .png: save it as one of them")
    if (size := path.stat().st_size) > MOST_LOGO_BYTES:
        raise ValueError(f"{path.name} has {size} bytes: make it smaller than {MOST_LOGO_BYTES}")
