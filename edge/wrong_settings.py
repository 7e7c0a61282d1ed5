"""Explains invalid settings of the environment in one sentence each, with the variable's name and without secrets."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, SecretStr, ValidationError
from pydantic_settings import SettingsError


def _checked_redis_url(url: SecretStr) -> SecretStr:
    """Reject URLs that Redis clients cannot parse or would read as an unintended host."""
    try:
        parts = urlsplit(url.get_secret_value())
        is_remote = parts.scheme in ("redis", "rediss") and parts.hostname and not parts.fragment and parts.port != 0
        is_valid = is_remote or parts.scheme == "unix"
    except ValueError:  # its message contains the password
        is_valid = False
    if not is_valid:
        raise ValueError(
            "write redis://:password@host:6379/0, or rediss:// with TLS; in a password, write #, /, ?, [ and ] as %23, "
            "%2F, %3F, %5B and %5D"
        )
    return url


RedisUrl = Annotated[SecretStr, AfterValidator(_checked_redis_url)]


def reject_invalid_numbers(settings: BaseModel) -> None:
    """Reject `nan`, `inf` and negative seconds in a service's settings, nested ones included.

    Raises:
        ValueError: such values exist; the message names every variable.
    """
    if wrong := [*_invalid_numbers(settings, ())]:
        raise ValueError("; ".join(wrong))


def _invalid_numbers(settings: BaseModel, where: tuple[str, ...]) -> Iterator[str]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        variable = "__".join((*where, name)).upper()
        if isinstance(value, BaseModel):
            yield from _invalid_numbers(value, (*where, name))
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{variable} must be a number, not {value}"
        elif isinstance(value, int | float) and value < 0 and (field.description or "").startswith("seconds"):
            yield f"{variable} must be at least 0 seconds, not {value}"


def wrong_settings(
    error: ValidationError | SettingsError, kind: type[BaseModel], variables: Mapping[str, str]
) -> Iterator[str]:
    """Yield a line per invalid or missing value of `kind`.

    `variables` is the environment, needed because JSON errors lack the variable's full name.
    """
    if isinstance(error, ValidationError):
        for item in error.errors():
            if item["type"] == "missing":
                yield from _missing(kind, item["loc"])
                continue
            name = "__".join(str(part) for part in item["loc"]).upper()
            yield f"{name + ': ' if name else ''}{item['msg'].removeprefix('Value error, ')}"
        return
    cause = error.__cause__
    field = re.search(r'field "(\w+)"', str(error))
    prefix = field[1].upper() if field else ""
    if not isinstance(cause, json.JSONDecodeError):
        yield f"{prefix}: {error}"
        return
    candidates = {variable.upper() for variable, value in variables.items() if value == cause.doc}
    for name in sorted(name for name in candidates if name.startswith(prefix)) or [prefix or "a variable"]:
        yield f"{name}: must be JSON with texts in double quotes ({cause.msg}, character {cause.pos + 1})"


def _missing(kind: type[BaseModel], place: Sequence[str | int], prefix: str = "") -> Iterator[str]:
    """Yield a line for each required variable at a place of the settings that has no value."""
    name, *rest = map(str, place)
    field = kind.model_fields[name]
    variable = f"{prefix}{name.upper()}"
    parts = (field.annotation, *get_args(field.annotation))
    within = next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
    if within is not None:
        required = [key for key, inner in within.model_fields.items() if inner.is_required()]
        for place_within in [rest] if rest else [[key] for key in required]:
            yield from _missing(within, place_within, f"{variable}__")
    elif rest:  # in a value that is written as JSON
        yield f"{variable}: set {'.'.join(rest)}, which is missing"
    else:
        yield f"set {variable}: {field.description}"
