"""Settings whose constants (class variables) have other values for a test."""

from typing import Any, TypeVar

from pydantic import BaseModel

SettingsT = TypeVar("SettingsT", bound=BaseModel)


def settings_with(kind: type[SettingsT], **values: Any) -> SettingsT:
    """Return settings with these values of their fields and constants."""
    fields = {name: value for name, value in values.items() if name in kind.model_fields}
    return with_constants(kind(**fields), **{name: values[name] for name in values.keys() - fields.keys()})


def with_constants(settings: SettingsT, **values: object) -> SettingsT:
    """Return a copy of the settings with other values of its constants.

    Raises:
        AttributeError: a name that is not a constant.
    """
    for name in values:
        getattr(type(settings), name)
    return settings.model_copy(update=values)
