"""The OpenAPI description of an answer's stream and of the answer as one document, from `chatbot.events`.

A stream is described under `text/event-stream` as `itemSchema`, as FastAPI describes its own streams.
"""

from typing import Any

import msgspec

from chatbot.events import EVENTS, LISTS, Event


def stream_content() -> dict[str, Any]:
    """Return the `content` of a response that is an answer's stream."""
    events = [_event(name, kind) for name, kind in EVENTS.items()]
    return {"text/event-stream": {"itemSchema": {"oneOf": events}}}


def json_content(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the `content` of a response that is one JSON document."""
    return {"application/json": {"schema": without_references(msgspec.json.schema(kind))}}


def data_schema(kind: type[Event]) -> dict[str, Any]:
    """Return the JSON schema of an event's `data:`, which for some events is the list of its items."""
    data_type = kind.__annotations__["items"] if kind.name in LISTS else kind
    return without_references(msgspec.json.schema(data_type))


def _event(name: str, kind: type[Event]) -> dict[str, Any]:
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": data_schema(kind)}
    properties = {
        "id": {"type": "string", "pattern": r"^[0-9a-f]{32}\.[1-9][0-9]*$"},
        "event": {"const": name},
        "data": data,
        "retry": {"type": "integer", "minimum": 0},
    }
    return {"type": "object", "properties": properties, "required": ["id", "event", "data"]}


def without_references(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with its definitions in place of references, which would point elsewhere in OpenAPI."""
    definitions: dict[str, Any] = schema.get("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(item) for item in part]
        if not isinstance(part, dict):
            return part
        other_keys = {key: resolved(value) for key, value in part.items() if key not in {"$ref", "$defs"}}
        if "$ref" not in part:
            return other_keys
        name = part["$ref"].rpartition("/")[2]
        return resolved(definitions[name]) | other_keys

    result: dict[str, Any] = resolved(schema)
    return result
