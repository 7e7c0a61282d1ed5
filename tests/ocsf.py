"""Validates security events against the published OCSF schema (ocsf-json-schema)."""

import json
from collections.abc import Iterable, MutableMapping
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

VERSION = "1.6.0"


@cache
def _schema() -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(get_ocsf_schema(VERSION))


@cache
def _validator(class_uid: int) -> Draft202012Validator:
    schema = _schema()
    return Draft202012Validator(schema.get_class_schema(schema.lookup_class_name_from_uid(class_uid)))


def problems_of(event: dict[str, Any]) -> list[str]:
    """Return an event's violations of its class's schema: missing, unknown or wrongly typed attributes."""
    if event["metadata"]["version"] != VERSION:
        return [f"it says that it is of OCSF {event['metadata']['version']}"]
    return [f"{error.json_path}: {error.message}" for error in _validator(event["class_uid"]).iter_errors(event)]


def security_events(logs: Iterable[MutableMapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the security events among log lines, after validating each."""
    return [valid_event(json.dumps(line["ocsf"])) for line in logs if line["event"] == "security_event"]


def valid_event(line: str) -> dict[str, Any]:
    """Return the event of a line, after validating it."""
    event: dict[str, Any] = json.loads(line)
    assert problems_of(event) == [], line
    return event
