"""What clients, dashboards and operators rely on, as text: one line a metric, a setting, an error and an event."""

import json
from collections.abc import Iterator, Mapping
from inspect import isclass
from types import SimpleNamespace
from typing import Annotated, Any, cast, get_args

import msgspec
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from chatbot.api import LocalSigner
from chatbot.api import create_app as create_chat_app
from chatbot.errors import ChatError
from chatbot.events import EVENTS, LISTS
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.services import Services as ChatServices
from chatbot.settings import Settings as ChatSettings
from evals.sample_bank import sample_banks
from ingest.app import create_app as create_staff_app
from ingest.errors import IngestError
from ingest.metrics import Metrics as StaffMetrics
from ingest.services import Services as StaffServices
from ingest.settings import Settings as StaffSettings

MOST_LABELS = 8


def lines(rows: Iterator[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# --- HTTP ------------------------------------------------------------------------------------------------------------


def chat_openapi() -> str:
    """Return the chat API's OpenAPI document; no route is called, so no service is needed."""
    services, signer = SimpleNamespace(banks=sample_banks(), ledger=None, models=None, sign_in=None), SimpleNamespace()
    app = create_chat_app(cast("ChatServices", services), demo=cast("LocalSigner", signer))
    return json.dumps(app.openapi(), ensure_ascii=False, indent=1) + "\n"


def staff_openapi() -> str:
    """Return the staff API's OpenAPI document."""
    services = SimpleNamespace(blobs=SimpleNamespace(most_bytes=1), sign_in=None)
    app = create_staff_app(cast("StaffServices", services), sample_banks(), demo=lambda _: ("", 0))
    return json.dumps(app.openapi(), ensure_ascii=False, indent=1) + "\n"


def error_codes(root: type[ChatError | IngestError]) -> str:
    kinds = {root, *descendants(root)}
    rows = {(kind.status, kind.code, kind.title, kind.retryable) for kind in kinds}
    return lines(dict(zip(("status", "code", "title", "retryable"), row, strict=True)) for row in sorted(rows))


def descendants(root: type[ChatError | IngestError]) -> Iterator[type[ChatError | IngestError]]:
    for child in root.__subclasses__():
        yield child
        yield from descendants(child)


def events() -> str:
    """Return the events of an answer's stream with the JSON schema of their `data:` (lists send their items)."""
    return lines(
        {
            "event": name,
            "data": named_nothing(msgspec.json.schema(kind.__annotations__["items"] if name in LISTS else kind)),
        }
        for name, kind in EVENTS.items()
    )


# --- metrics ---------------------------------------------------------------------------------------------------------


def metrics(instruments: ChatMetrics | StaffMetrics) -> str:
    return lines({key: d[key] for key in d if key != "what"} for d in described_instruments(instruments))


def described_instruments(instruments: ChatMetrics | StaffMetrics) -> Iterator[dict[str, Any]]:
    for instrument in vars(instruments).values():
        if isinstance(instrument, Counter | Gauge | Histogram):
            yield described(instrument)


def described(instrument: Counter | Gauge | Histogram) -> dict[str, Any]:
    """Return what a scrape shows of the instrument once it has a sample."""
    for count in range(1, MOST_LABELS):
        try:
            instrument.labels(*["x"] * count)
        except ValueError:  # it has another number of labels
            continue
    (family,) = instrument.collect()
    shown = [sample for sample in family.samples if not sample.name.endswith("_created")]
    labels = list(dict.fromkeys(label for sample in shown for label in sample.labels if label != "le"))
    buckets = list(dict.fromkeys(sample.labels["le"] for sample in shown if "le" in sample.labels))
    names = list(dict.fromkeys(sample.name for sample in shown))
    shape = {"name": family.name, "type": family.type, "labels": labels, "samples": names, "buckets": buckets}
    return shape | {"what": family.documentation}


# --- settings --------------------------------------------------------------------------------------------------------


def settings(model: type[ChatSettings | StaffSettings]) -> str:
    return lines(settings_of(model, None, ""))


def settings_of(model: type[BaseModel], default: BaseModel | None, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield each environment variable, the JSON schema of its value, and its default where it has one."""
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        value = getattr(default, name) if default is not None else field.get_default(call_default_factory=True)
        if (part := nested(field)) is not None:
            yield from settings_of(part, value if isinstance(value, BaseModel) else None, f"{variable}__")
            continue
        annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
        adapter = TypeAdapter[Any](annotation)
        row = {"setting": variable, "type": named_nothing(adapter.json_schema())}
        if default is not None or not field.is_required():
            row["default"] = adapter.dump_python(value, mode="json")
        yield row


def nested(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model whose fields are settings of their own."""
    choices = [kind for kind in (field.annotation, *get_args(field.annotation)) if isclass(kind)]
    return next((kind for kind in choices if issubclass(kind, BaseModel)), None)


def named_nothing(schema: Mapping[str, Any]) -> Any:
    """Return the JSON schema with its references written out and without our names of types and their docstrings."""
    definitions = schema.get("$defs", {})

    def written_out(part: Any) -> Any:
        if isinstance(part, list):
            return [written_out(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return written_out(definitions[part["$ref"].rpartition("/")[2]])
        if "properties" in part:
            part = part | {"properties": {name: written_out(value) for name, value in part["properties"].items()}}
        return {
            key: value if key == "properties" else written_out(value)
            for key, value in part.items()
            if key not in {"$defs", "title", "description"}
        }

    return written_out(schema)
