"""Profiles: files about a model on a kind of machine, read by the model's server and by its client.

Profiles in this package are selected by name, others by a path that ends with .yaml. `llm_server/profile.py` reads the
fields for vLLM, the chat API reads `deadlines` and `answer`. `hosted` and `scripted` have only the latter two, because
their models are served elsewhere.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, Field, ValidationError

PROFILES = Path(__file__).parent

__all__ = [
    "PROFILES",
    "AnswerMode",
    "Deadlines",
    "UnknownProfile",
    "first_reason",
    "profile_fields",
    "profile_path",
    "read_answer_mode",
    "read_deadlines",
]

_Positive = Annotated[float, Field(gt=0)]


class UnknownProfile(Exception):
    """The profile does not exist or is invalid; the message names the choices or the field."""


class AnswerMode(StrEnum):
    """How answers are worded: small models copy well, large ones write well (docs/decisions/0029)."""

    QUOTE = "quote"
    """quotes the bank's text; the model chooses if the best units score closely"""
    WRITTEN = "written"
    """uses the model's text if it passes the checks"""


class Deadlines(BaseModel, frozen=True, extra="forbid"):
    """The deadlines of a call, based on the endpoint's hardware speed; all but `prefill` are in seconds."""

    prefill: _Positive
    """The endpoint's prefill speed in tokens per second for one uncached prompt; err on the low side."""
    answer: _Positive
    """The deadline of a whole answer."""
    between_tokens: _Positive = 10.0
    base: _Positive = 2.0
    """The deadline of the first token for an empty prompt."""

    def first_token(self, prompt_tokens: int) -> float:
        """Return the deadline of the first token, in seconds."""
        return self.base + 3 * prompt_tokens / self.prefill


def profile_path(name: str) -> Path:
    """Return the path of a profile's file; a name that ends with .yaml is already a path.

    Raises:
        UnknownProfile: no profile has that name.
    """
    if name.endswith(".yaml"):
        return Path(name)
    profile_names = sorted(path.stem for path in PROFILES.glob("*.yaml"))
    if name not in profile_names:
        raise UnknownProfile(
            f"There is no profile {name!r}: choose from {', '.join(profile_names)}, or give the path of a .yaml file."
        )
    return PROFILES / f"{name}.yaml"


def profile_fields(path: Path) -> dict[str, object]:
    """Return the fields of a profile's file (blocking).

    Raises:
        UnknownProfile: the file cannot be read or is not a YAML mapping.
    """
    try:
        fields = yaml.load(path.read_text("utf-8"), yaml.CSafeLoader)
    except OSError as exc:
        raise UnknownProfile(f"The profile {path} cannot be read: {exc.strerror}") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: {' '.join(str(exc).split())}") from exc
    if not isinstance(fields, dict):
        raise UnknownProfile(f"The profile {path.name} is wrong: it has no fields")
    return fields


def read_deadlines(name: str) -> Deadlines:
    """Return the deadlines of a profile (blocking).

    Raises:
        UnknownProfile: the profile does not exist, or its deadlines are missing or invalid.
    """
    path = profile_path(name)
    fields = profile_fields(path)
    if "deadlines" not in fields:
        raise UnknownProfile(f"The profile {path.name} has no `deadlines`, which the chat API needs")
    try:
        return Deadlines.model_validate(fields["deadlines"])
    except ValidationError as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: deadlines.{first_reason(exc)}") from exc


def read_answer_mode(name: str) -> AnswerMode:
    """Return the `answer` mode of a profile (blocking); the default is `quote`.

    Raises:
        UnknownProfile: the profile does not exist, or its `answer` is not a valid mode.
    """
    path = profile_path(name)
    try:
        return AnswerMode(str(profile_fields(path).get("answer", AnswerMode.QUOTE)))
    except ValueError as exc:
        raise UnknownProfile(f"The profile {path.name} is wrong: answer: {exc}, only {', '.join(AnswerMode)}") from exc


def first_reason(exc: ValidationError) -> str:
    """Return the first invalid field and its error message."""
    error = exc.errors()[0]
    return f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
