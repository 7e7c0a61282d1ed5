"""The OpenAPI description of an answer's stream and of the answer as one document, from `chatbot.events`.

A stream stands under `text/event-stream` as `itemSchema`, in the form in which FastAPI describes its own streams.
"""

from typing import Any

import msgspec

from chatbot.events import EVENTS, LISTS, Event


def stream_content() -> dict[str, Any]:
    """Return the `content` of a response that is an answer's stream."""
    return {"text/event-stream": {"itemSchema": {"oneOf": [_event(name, kind) for name, kind in EVENTS.items()]}}}


def json_content(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the `content` of a response that is one JSON document."""
    return {"application/json": {"schema": written_out(msgspec.json.schema(kind))}}


def data_schema(kind: type[Event]) -> dict[str, Any]:
    """Return the JSON schema of an event's `data:`."""
    return written_out(msgspec.json.schema(kind.__annotations__["items"] if kind.name in LISTS else kind))


def _event(name: str, kind: type[Event]) -> dict[str, Any]:
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": data_schema(kind)}
    properties = {
        "id": {"type": "string", "pattern": r"^[0-9a-f]{32}\.[1-9][0-9]*$"},
        "event": {"const": name},
        "data": data,
        "retry": {"type": "integer", "minimum": 0},
    }
    return {"type": "object", "properties": properties, "required": ["id", "event", "data"]}


def written_out(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with its own definitions in place of references: those would lead elsewhere in OpenAPI."""
    definitions: dict[str, Any] = schema.get("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(item) for item in part]
        if not isinstance(part, dict):
            return part
        beside = {key: resolved(value) for key, value in part.items() if key not in {"$ref", "$defs"}}
        if "$ref" in part:
            return resolved(definitions[part["$ref"].rpartition("/")[2]]) | beside
        return beside

    result: dict[str, Any] = resolved(schema)
    return result
