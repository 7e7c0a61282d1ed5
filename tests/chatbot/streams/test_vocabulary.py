"""Two releases over one log: each reads what the other writes, whichever of them is the newer."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chatbot.events import EVENTS, Event, Unknown, from_json, to_json
from tests.golden.contracts import events

FORMER = {
    row["event"]: row["data"]
    for row in map(json.loads, (Path(__file__).parent / "former_wire" / "events.jsonl").read_text("utf-8").splitlines())
}
PRESENT = {row["event"]: row["data"] for row in map(json.loads, events().splitlines())}


def least(schema: dict[str, Any]) -> Any:
    """Return the least value that a schema of the fixture allows: what a release with fewer fields would write."""
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return None
    match schema.get("type"):
        case "object":
            return {name: least(schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return [least(schema["items"])] if "items" in schema else []
        case "string":
            return "2026-01-01" if schema.get("format") == "date" else "x"
        case "boolean":
            return True
        case _:
            return 1


def objects(schema: Any) -> list[dict[str, Any]]:
    """Return the objects in a schema, from the outside in, in a fixed order."""
    if isinstance(schema, list):
        return [found for part in schema for found in objects(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema] if "properties" in schema else []
    return own + [found for _, part in sorted(schema.items()) for found in objects(part)]


@pytest.mark.parametrize("name", sorted(FORMER))
def test_what_the_former_release_writes_is_read(name: str) -> None:
    event = from_json(name, json.dumps(least(FORMER[name])).encode())
    assert type(event) is EVENTS[name]


@pytest.mark.parametrize("name", sorted(FORMER))
def test_the_former_release_finds_every_field_that_it_needs(name: str) -> None:
    for former, present in zip(objects(FORMER[name]), objects(PRESENT[name]), strict=True):
        for field in former.get("required", ()):
            assert field in present.get("required", ()), f"{name}.{field} is needed by readers of the former release"
            assert set(former["properties"][field].get("enum", ())) <= set(present["properties"][field].get("enum", ()))
            for kind in ("type", "format"):
                assert present["properties"][field].get(kind) == former["properties"][field].get(kind), field


@pytest.mark.parametrize("name", sorted(FORMER))
def test_a_field_and_a_value_of_a_later_release_end_no_reading(name: str) -> None:
    written = least(FORMER[name])
    fuller = [{**item, "since": 2} for item in written] if isinstance(written, list) else {**written, "since": 2}
    assert from_json(name, json.dumps(fuller).encode()) == from_json(name, json.dumps(written).encode())
    other = (
        [{**item, "n": "one"} for item in written] if isinstance(written, list) else {field: [] for field in written}
    )
    data = json.dumps(other).encode()
    assert from_json(name, data) == Unknown(name=name, data=data)


def test_an_event_of_a_later_release_is_passed_on_as_it_was_written() -> None:
    data = b'{"documents":[1,2]}'
    event: Event = from_json("later", data)
    assert isinstance(event, Unknown)
    assert to_json(event) == data
    assert msgspec.json.decode(to_json(event)) == {"documents": [1, 2]}
