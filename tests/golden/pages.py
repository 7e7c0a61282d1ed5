"""The reference pages of `docs`, made from the code that they describe: `python -m tests.golden.pages` writes them.

What no code says in words (guarantees of a stream, the values of a label) stands here and in the docstrings.
"""

import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from chatbot.deferred import WriteKind
from chatbot.events import FinishReason
from chatbot.limits import Limit
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.notices import DegradationLevel
from chatbot.settings import Settings as ChatSettings
from ingest.catalogue import Stage
from ingest.metrics import Metrics as StaffMetrics
from ingest.settings import Settings as StaffSettings
from knowledge.passage import LANGUAGES
from tests.golden.contracts import described_instruments

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = "make pages"

UNITS = frozenset(
    [
        "answers",
        "bytes",
        "connections",
        "conversations",
        "copies",
        "documents",
        "files",
        "messages",
        "ms",
        "passages",
        "port",
        "processes",
        "questions",
        "ratio",
        "replicas",
        "requests",
        "searches",
        "seconds",
        "shards",
        "tokens",
        "weight",
        "writes",
    ]
)
"""What a number of a setting counts or measures; its description begins with one of these and a colon."""


def unit_and_meaning(description: str) -> tuple[str, str]:
    """Return the unit that a description begins with, empty where it has none, and the rest."""
    unit, colon, meaning = description.partition(": ")
    return (unit, meaning) if colon and unit in UNITS else ("", description)


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells).replace("  ", " ") + " |"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    return "\n".join([row(names), "|" + "---|" * len(names), *(row(cells) for cells in rows)])


def code(values: Iterable[str]) -> str:
    return ", ".join(f"`{value}`" for value in values)


# --- settings --------------------------------------------------------------------------------------------------------

SETTINGS = """# Settings

Every setting of the two services, from their settings models (`{command}` writes this page).
They are read from the environment once, at the start; a value that cannot be is refused there, by the variable's name.
Two underscores lead into a part: `TURN__GROUNDING`. JSON stands where a value has entries.
`make run` needs none of them. It sets what is required itself, and `ADMISSION__SLOTS=4`,
`ADMISSION__FIRST_TOKEN_TARGET=60` and, with the model of the `cpu` profile, `TURN__REPAIR_CERTAINTY=1`
where they are not set.

## Settings of chatbot

{chatbot}

## Settings of ingest

{ingest}

## Settings of other programs

| variable | meaning |
|---|---|
| `LLM_PYTHON` | the interpreter that has vLLM; `.venv-llm` by default |
| `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` \
| the store of `s3://` addresses (`BLOB_URL`, `AUDIT_ANCHORS`), as every AWS client reads them |
"""
HAS_NO_ONE_DEFAULT = {"PARSER__PROCESSES"}
"""Settings whose default depends on the machine; their description says how."""


def settings_page() -> str:
    """Return `docs/settings.md`."""
    head = ("variable", "type", "unit", "default", "meaning")
    return SETTINGS.format(
        command=COMMAND,
        chatbot=table(head, map(setting_row, settings(ChatSettings))),
        ingest=table(head, map(setting_row, settings(StaffSettings))),
    )


def settings(
    model: type[BaseModel], default: BaseModel | None = None, prefix: str = ""
) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Yield each environment variable with its field and its default, `...` where it must be set."""
    for name, field in model.model_fields.items():
        variable = f"{prefix}{name.upper()}"
        value = getattr(default, name) if default is not None else field.get_default(call_default_factory=True)
        kinds = [kind for kind in (field.annotation, *get_args(field.annotation)) if inspect.isclass(kind)]
        part = next((kind for kind in kinds if issubclass(kind, BaseModel)), None)
        if part is not None and not isinstance(value, dict):
            yield from settings(part, value if isinstance(value, BaseModel) else None, f"{variable}__")
        else:
            yield variable, field, ... if default is None and field.is_required() else value


def setting_row(setting: tuple[str, FieldInfo, Any]) -> tuple[str, ...]:
    variable, field, default = setting
    unit, meaning = unit_and_meaning(field.description or "")
    return f"`{variable}`", kind_of(field), unit, default_of(variable, default), meaning


def kind_of(field: FieldInfo) -> str:
    """Return what a value may be, in words, with its bounds."""
    kinds = [kind for kind in (get_args(field.annotation) or (field.annotation,)) if kind is not type(None)]
    bounds = [
        f"{sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(rule, name)
    ]
    if all(isinstance(kind, str) for kind in kinds):
        return code(str(kind) for kind in kinds)
    if getattr(field.annotation, "__origin__", None) is dict:
        return "JSON"
    kind = kinds[0]
    if inspect.isclass(kind) and issubclass(kind, StrEnum):
        return code(kind)
    named = {bool: "true, false", int: "whole number", float: "number", Path: "path", SecretStr: "secret"}
    return " ".join([named.get(getattr(kind, "__origin__", kind), "text"), ", ".join(bounds)]).strip()


def default_of(variable: str, value: object) -> str:
    if value is ...:
        return "required"
    if variable in HAS_NO_ONE_DEFAULT or value is None:
        return ""
    if isinstance(value, dict | bool):
        return f"`{json.dumps(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


# --- metrics ---------------------------------------------------------------------------------------------------------

METRICS = """# Metrics

Every instrument that this product's processes emit, from the code that makes them (`{command}` writes this page).
vLLM's own are in its documentation; those that we read are listed last.
Labels are closed sets: no customer, question or document ever becomes a label.

## chatbot (`:8000/metrics`)

{chatbot}

## ingest (`:8001/metrics`)

{ingest}

## vLLM (its own `/metrics`)

| name | what we read from it |
|---|---|
| `vllm:num_requests_running`, `vllm:num_requests_waiting` \
| how many answers the endpoints can take (every second, by each replica); \
whether a customer who left has freed the model |
| `vllm:kv_cache_usage_perc` | above 0.95 no more answers start |
| `vllm:prefix_cache_hits_total`, `vllm:prefix_cache_queries_total` | whether the stable order of the prompt pays |
| `vllm:time_to_first_token_seconds`, `vllm:inter_token_latency_seconds` | the model's own speed |
"""
LABEL_VALUES: Mapping[str, str] = {
    "bin": "as the reference names them",
    "chatbot_answers_total outcome": f"{code(FinishReason)}, `error_<code>`",
    "chatbot_ladder_total rung": code(DegradationLevel),
    "chatbot_lost_writes_total kind": code(get_args(WriteKind)),
    "chatbot_model_calls_total outcome": "`ok`, `left`, or what went wrong",
    "chatbot_takeovers_total why": "`reader`, `cancel`, `orphan`",
    "chatbot_tokens_total kind": "`prompt`, `cached`, `answer`",
    "chatbot_turned_away_total why": "`late`, `full`, `share`",
    "code": "of [the errors](api.md)",
    "dimension": code(Limit.model_fields),
    "feature": "`language`, `topic`, `nearness`, `direction_1` to `direction_3`, `meaning`, `terms`, `outcome`",
    "group": "`primary`, `canary`, `fallback`, `shadow`",
    "grounded": "`true`, `false`",
    "ingest_documents_total outcome": "`indexed`, `approved`, `dead`, the file's reasons",
    "kind": "`answer`, `probability`, `ping`",
    "language": code(LANGUAGES),
    "priority": "0 and those of `ADMISSION__PRIORITIES`",
    "rating": "`up`, `down`",
    "reference": "its id",
    "scope": "`tenant`, `user`, `model`",
    "stage": code(Stage),
    "task": "[which](runbooks/targets-down.md)",
    "verdict": "`grounded`, `withheld`, `uncited`, `failed`",
    "wall": "`network`, `tcp`, `writes`, `bytes`",
}
"""What a label may be: of one metric, else of every metric that has the label."""
RUNBOOKS: Mapping[str, str] = {
    "chatbot_audit_anchored_timestamp_seconds": "runbooks/audit.md",
    "chatbot_drift_questions_total": "runbooks/drift.md",
    "chatbot_ladder_total": "runbooks/models-down.md",
    "chatbot_plans_outdated": "runbooks/limits.md",
    "chatbot_turned_away_total": "runbooks/overload.md",
    "ingest_dead_jobs": "runbooks/documents.md",
    "ingest_parser_walls": "formats.md",
}


def metrics_page() -> str:
    """Return `docs/metrics.md`."""
    head = ("name", "type", "labels", "unit", "what")
    return METRICS.format(
        command=COMMAND,
        chatbot=table(head, metric_rows(ChatMetrics())),
        ingest=table(head, metric_rows(StaffMetrics())),
    )


def metric_rows(instruments: ChatMetrics | StaffMetrics) -> Iterator[tuple[str, ...]]:
    for instrument in described_instruments(instruments):
        name = instrument["samples"][0].removesuffix("_bucket")
        labels = ", ".join(f"`{label}` ({label_values(name, label)})" for label in instrument["labels"])
        unit = next((unit for unit in ("tokens per second", "seconds", "tokens") if unit.replace(" ", "_") in name), "")
        more = f" ([more]({RUNBOOKS[name]}))" if name in RUNBOOKS else ""
        yield f"`{name}`", instrument["type"], labels, unit, lowered(instrument["what"]) + more


def label_values(metric: str, label: str) -> str:
    return LABEL_VALUES.get(f"{metric} {label}") or LABEL_VALUES[label]


def lowered(text: str) -> str:
    """Return a text that begins as a part of a sentence."""
    return text[:1].lower() + text[1:]


PAGES = {"settings.md": settings_page, "metrics.md": metrics_page}


def write() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    sys.exit(write())
