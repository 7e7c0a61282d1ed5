"""The MODELS_FILE or the LLM_ settings: the endpoints of each model and their credentials."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    HttpUrl,
    JsonValue,
    RootModel,
    SecretStr,
    ValidationError,
    model_validator,
)

from chatbot.models.endpoint import Group
from knowledge.model_connection import EndpointAccess
from knowledge.profiles import UnknownProfile, read_deadlines
from knowledge.tls import TlsFiles, TlsSettings


def _known_profile(name: str) -> str:
    try:
        read_deadlines(name)
    except UnknownProfile as exc:
        raise ValueError(str(exc)) from exc
    return name


ProfileName = Annotated[str, AfterValidator(_known_profile)]
"""The name of a profile in `knowledge/profiles`, or the path of such a file; only its `deadlines` are used here."""


class ModelsMisconfigured(Exception):
    """The settings are unusable, so the process does not start; the message says what to set."""


def _split(value: object) -> object:
    """Split a comma-separated string; return any other value unchanged."""
    if not isinstance(value, str):
        return value
    return [part.strip() for part in value.split(",") if part.strip()]


_Urls = Annotated[tuple[HttpUrl, ...], BeforeValidator(_split)]


class ModelsFileEntry(TlsSettings, frozen=True, extra="forbid"):
    """One entry of the MODELS_FILE: endpoints of one model with one profile."""

    name: str
    urls: _Urls = Field(min_length=1)
    follow_dns: bool = Field(
        default=False,
        description="Makes each address of the hosts in `urls` a separate endpoint; names are resolved every 5 s.",
    )
    group: Group = "primary"
    weight: float | None = Field(None, ge=0, lt=1, description="A canary gets this share of the conversations.")
    tokenizer: Path | None = Field(
        None, description="The model's `tokenizer.json`, or its folder, counts tokens if no vLLM server does."
    )
    profile: ProfileName = "hosted"
    model: str | None = Field(
        None, description="Requests name this model or adapter. Default: the first of `/v1/models`."
    )
    api_key_variable: str | None = Field(None, description="The endpoints' key is read from this environment variable.")
    headers: Mapping[str, str] = Field({}, description="These headers are sent with every request, besides the key.")
    extra_body: Mapping[str, JsonValue] = Field({}, description="These fields are added to every generation request.")
    chat_template_kwargs: Mapping[str, JsonValue] = Field(
        {}, description="The chat template gets these arguments, such as `enable_thinking: false`."
    )

    def access(self, api_key: str | None) -> EndpointAccess:
        """Return the headers, TLS context and fields for every request (blocking).

        `api_key` is LLM_API_KEY, which applies if the entry has no `api_key_variable`.

        Raises:
            ModelsMisconfigured: `api_key_variable` is not set, or a TLS file cannot be read.
        """
        try:
            if self.api_key_variable is not None:
                api_key = os.environ[self.api_key_variable]  # noqa: TID251  the file names the variable
            tls = self.context()
        except KeyError as exc:
            raise ModelsMisconfigured(f"{self.name} in MODELS_FILE: the api_key_variable {exc} is not set") from exc
        except OSError as exc:  # includes ssl.SSLError
            raise ModelsMisconfigured(f"the TLS files of {self.name} cannot be read: {exc}") from exc
        key = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        return EndpointAccess(headers={**self.headers, **key}, tls=tls, extra_body=self.extra_body)

    @model_validator(mode="after")
    def _check(self) -> "ModelsFileEntry":
        if "authorization" in map(str.lower, self.headers):
            raise ValueError("a key cannot be in this file: set `api_key_variable`")
        if (self.weight is not None) != (self.group == "canary"):
            raise ValueError(f"set `weight` for a canary and for no other group (this one is {self.group})")
        return self


class ModelsFile(RootModel[tuple[ModelsFileEntry, ...]], frozen=True):
    """The YAML of MODELS_FILE."""

    @model_validator(mode="after")
    def _check_groups(self) -> "ModelsFile":
        groups = [entry.group for entry in self.root]
        if "primary" not in groups:
            raise ValueError("at least one entry must be of the group `primary`")
        if groups.count("canary") > 1:
            raise ValueError("at most one entry may be of the group `canary`")
        if len(self.names) < len(self.root):
            raise ValueError("names of entries must be unique: `chatbot stop --model` selects an entry by its name")
        return self

    @property
    def names(self) -> frozenset[str]:
        """The names of the entries, as `chatbot stop --model` takes them."""
        return frozenset(entry.name for entry in self.root)

    @property
    def primary(self) -> ModelsFileEntry:
        """The first primary entry."""
        return next(entry for entry in self.root if entry.group == "primary")

    @property
    def canary_share(self) -> float:
        """The canary's share of the conversations, in [0, 1)."""
        return sum(entry.weight or 0.0 for entry in self.root)


class ModelSettings(BaseModel, frozen=True):
    """The endpoints of the models: a MODELS_FILE, or LLM_URLS for one group."""

    models_file: Path | None = None
    llm_urls: _Urls = ()
    llm_tokenizer: Path | None = None
    llm_profile: str = "hosted"
    llm_model: str | None = None
    llm_chat_template_kwargs: Mapping[str, JsonValue] = {}
    llm_api_key: SecretStr | None = None
    llm_tls: TlsSettings = TlsSettings()
    tls: TlsFiles = TlsFiles()

    @model_validator(mode="after")
    def _check_source(self) -> "ModelSettings":
        if bool(self.models_file) == bool(self.llm_urls):
            raise ValueError("set MODELS_FILE or LLM_URLS, not both")
        return self

    def read(self) -> ModelsFile:
        """Read the entries of the file, or build one entry from the LLM_ settings (blocking).

        Raises:
            ModelsMisconfigured: the file cannot be read or is not valid.
        """
        if self.models_file is None:
            fields = ("urls", "tokenizer", "profile", "model", "chat_template_kwargs")
            entry = {field: getattr(self, f"llm_{field}") for field in fields}
            return ModelsFile.model_validate([{**self.llm_tls.model_dump(), **entry, "name": "primary"}])
        try:
            file = ModelsFile.model_validate(yaml.safe_load(self.models_file.read_text("utf-8")))
            return ModelsFile(tuple(entry.with_defaults(self.tls) for entry in file.root))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
            raise ModelsMisconfigured(f"MODELS_FILE {self.models_file} cannot be read: {exc}") from exc
        except ValidationError as exc:
            errors = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in exc.errors())
            raise ModelsMisconfigured(
                f"MODELS_FILE {self.models_file}: {errors} (known groups: {', '.join(get_args(Group))})"
            ) from exc
