"""Overrides constants (class variables) of settings in tests."""

from typing import Any, TypeVar

from pydantic import BaseModel

SettingsT = TypeVar("SettingsT", bound=BaseModel)


def settings_with(kind: type[SettingsT], **values: Any) -> SettingsT:
    """Return settings with these values for fields and constants."""
    fields = {name: value for name, value in values.items() if name in kind.model_fields}
    return with_constants(kind(**fields), **{name: values[name] for name in values.keys() - fields.keys()})


def with_constants(settings: SettingsT, **values: object) -> SettingsT:
    """Return a copy of the settings with these values for constants.

    Raises:
        AttributeError: the class has no such constant.
    """
    for name in values:
        getattr(type(settings), name)
    return settings.model_copy(update=values)
