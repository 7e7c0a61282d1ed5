"""Builds requests to every route of an application by inspecting it, so that new routes are covered automatically.

Every part that a caller can choose contains canaries: the path, the query, headers, and all texts of the body.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx2
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from tests.adversarial_text import samples

WORD = "hong_gildong_canary"
TEXT = f"{WORD} 880101-1234567 카드 4916 1234 5678 9012: 샘물 정기예금을 만기 전에 해지하면 금리가 어떻게 되나요?"
CANARIES = (WORD, "880101-1234567", "4916 1234 5678 9012")
NO_ID = "0" * 32
_WRONG: tuple[object, ...] = (0, {}, "")
MOST_ITEMS = 16_000
"""The most items of a few bytes each in a list of the largest accepted body."""
_MOST_IN_QUERY = 2000
HEADERS = {
    "user-agent": f"{WORD} 880101-1234567",
    "accept-language": f"ko, {WORD}",
    "x-forwarded-for": WORD,
    "x-request-id": WORD,
    "referer": f"https://bank.example/?q={WORD}",
    "cookie": f"name={WORD}",
    "tracestate": f"bank={WORD}",
    "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
    "last-event-id": WORD,
    "idempotency-key": WORD,
}


UNWANTED = (
    *("conversation_id", "parent_id", "tenant", "tools", "functions", "stop", "logprobs", "audio", "n", "modalities"),
    *("web_search_options", "response_format", "tool_calls", "function_call"),
)
WELL_FORMED: Mapping[str, Any] = dict.fromkeys(UNWANTED) | {"model": "scripted", "role": "user"}
"""Fields to omit because they conflict with others, and fields with required values, so that requests are valid."""


def leaked(text: str) -> list[str]:
    """Return the lines with a canary; security events may name their actor."""
    return [line for line in text.splitlines() if any(canary in _without_actor(line) for canary in CANARIES)]


def _without_actor(line: str) -> str:
    if '"event": "security_event"' not in line:
        return line
    logged = json.loads(line)
    return json.dumps({**logged, "ocsf": {**logged["ocsf"], "actor": None}}, ensure_ascii=False)


@dataclass(frozen=True, kw_only=True)
class Address:
    """A method and a path of an application, with its OpenAPI operation."""

    method: str
    path: str
    operation: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def addresses(app: FastAPI) -> list[Address]:
    """Return every address of an application, including those that are missing from OpenAPI."""
    described = app.openapi()["paths"]
    return [
        Address(method=method, path=path, operation=described.get(path, {}).get(method.lower(), {}))
        for context in iter_route_contexts(app.routes)
        for method, path in (
            [(method, str(context.path)) for method in sorted(context.methods)]
            if context.methods
            else [("GET", f"{context.path}/{{file}}")]
        )
    ]


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Builds an address's request; `given` has required values by parameter name."""

    app: FastAPI
    given: dict[str, Any] = field(default_factory=dict)

    def of(self, address: Address, *, headers: Mapping[str, str]) -> dict[str, Any]:
        """Return the arguments of `httpx2.AsyncClient.request`."""
        parameters = {one["name"]: one for one in address.operation.get("parameters", ())}
        query = {name: self._value(name, one["schema"]) for name, one in parameters.items() if one["in"] == "query"}
        content = address.operation.get("requestBody", {}).get("content", {})
        made: dict[str, Any] = {}
        if "application/json" in content:
            made["json"] = self._example(content["application/json"]["schema"])
        if "multipart/form-data" in content:
            fields = self._example(content["multipart/form-data"]["schema"])
            fields.pop("file")
            made |= {"data": fields, "files": {"file": (f"{WORD}.md", f"# {WORD}\n\n{TEXT}\n".encode())}}
        return {
            "method": address.method,
            "url": re.sub(r"\{(\w+)(?::path)?\}", lambda name: self._in_path(name[1], parameters), address.path),
            "params": {name: value for name, value in query.items() if value is not None} | {"canary": TEXT},
            "headers": HEADERS | dict(headers),
            **made,
        }

    def _in_path(self, name: str, parameters: Mapping[str, Any]) -> str:
        schema = parameters.get(name, {}).get("schema", {"type": "string"})
        return quote(str(self.given.get(name) or self._example(schema)), safe="")

    def _value(self, name: str, schema: Mapping[str, Any]) -> Any:
        given = self.given.get(name)
        left_out = name in self.given and given is None
        return given if left_out or (given is not None and schema.get("type") != "array") else self._example(schema)

    def _example(self, schema: Mapping[str, Any]) -> Any:
        """Return a valid value for a schema, with canaries wherever possible."""
        if "$ref" in schema:
            return self._example(self.app.openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        for one in schema.get("anyOf", ()):
            if one.get("type") != "null":
                return self._example(one)
        if "enum" in schema or "const" in schema:
            return schema.get("const", schema.get("enum", (None,))[0])
        return self._of_type(schema)

    def _of_type(self, schema: Mapping[str, Any]) -> Any:
        match schema.get("type"):
            case "object":
                named = {name: self._value(name, one) for name, one in schema.get("properties", {}).items()}
                return {name: value for name, value in named.items() if value is not None} | {WORD: TEXT}
            case "array":
                return [self._example(schema.get("items", {}))]
            case "integer" | "number":
                return schema.get("minimum", 1)
            case "boolean":
                return False
        return _text(schema)

    def floods(self, address: Address) -> Iterator[dict[str, Any]]:
        """Yield the address's request once for each list in body or query, filled with invalid items."""
        made = self.of(address, headers={})
        content = address.operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            for body in self._flooded(content["application/json"]["schema"]):
                yield made | {"json": body}
        for one in address.operation.get("parameters", ()):
            for values in self._flooded(one["schema"]) if one["in"] == "query" else ():
                yield made | {"params": made["params"] | {one["name"]: values[:_MOST_IN_QUERY]}}

    def _flooded(self, schema: Mapping[str, Any]) -> Iterator[Any]:
        if "$ref" in schema:
            schema = self.app.openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for one in schema.get("anyOf", ()):
            yield from self._flooded(one)
        for name, one in schema.get("properties", {}).items():
            yield from (self._example(schema) | {name: value} for value in self._flooded(one))
        if "items" in schema:
            for wrong in _WRONG:
                yield [wrong] * MOST_ITEMS
            yield from ([value] for value in self._flooded(schema["items"]))


def _text(schema: Mapping[str, Any]) -> str:
    match schema.get("format"):
        case "date":
            return "2026-05-01"
        case "date-time":
            return "2026-05-01T00:00:00Z"
    pattern = schema.get("pattern", "")
    longest = schema.get("maxLength", len(TEXT))
    fitting = (text for text in _texts(pattern) if len(text) <= longest and re.search(pattern, text))
    return next(fitting)


def _texts(pattern: str) -> Iterator[str]:
    yield from (TEXT, WORD, NO_ID)
    yield from samples(re.compile(pattern))


async def send(http: httpx2.AsyncClient, requests: Requests, **headers: str) -> list[tuple[Address, httpx2.Response]]:
    """Send the request of every address; return the complete replies."""
    return [
        (address, await http.request(**requests.of(address, headers=headers))) for address in addresses(requests.app)
    ]
