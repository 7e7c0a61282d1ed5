"""A replica of an earlier release reads the log of a later one during a rolling update."""

import json

import pytest

from chatbot.events import Unknown, from_json, to_json
from tests.golden.pages import EXAMPLES


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_field_and_a_value_of_a_later_release_end_no_reading(name: str) -> None:
    event = EXAMPLES[name]
    written = json.loads(to_json(event))
    items = written if isinstance(written, list) else [written]
    fuller = [{**item, "since": 2} for item in items]
    other = [{field: {"since": 2} for field in item} for item in items]
    assert from_json(name, json.dumps(fuller if items is written else fuller[0]).encode()) == event
    data = json.dumps(other if items is written else other[0]).encode()
    assert from_json(name, data) == Unknown(name=name, data=data)
