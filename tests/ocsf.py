"""The schema of security events as its authors publish it (ocsf-json-schema), and events that are held against it."""

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
    """Return what the schema of its class says against an event: attributes missing, unknown, or of another type."""
    if event["metadata"]["version"] != VERSION:
        return [f"it says that it is of OCSF {event['metadata']['version']}"]
    return [f"{error.json_path}: {error.message}" for error in _validator(event["class_uid"]).iter_errors(event)]


def security_events(logs: Iterable[MutableMapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the security events among log lines; each is what its class asks for."""
    return [valid_event(json.dumps(line["ocsf"])) for line in logs if line["event"] == "security_event"]


def valid_event(line: str) -> dict[str, Any]:
    """Return the event of a line; it is what its class asks for."""
    event: dict[str, Any] = json.loads(line)
    assert problems_of(event) == [], line
    return event
