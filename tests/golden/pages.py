"""The generated blocks of the reference pages in `docs`: `python -m tests.golden.pages` writes them.

What no code says in words stands in the page, in the docstrings, or here (the values of a label).
"""

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from chatbot import errors as chat_errors
from chatbot.deferred import WriteKind
from chatbot.events import (
    EVENTS,
    Accepted,
    Citation,
    Done,
    Event,
    Failed,
    FinishReason,
    Limits,
    Notice,
    NoticeCode,
    Queued,
    Related,
    RelatedPassage,
    Source,
    Sources,
    Token,
    Usage,
    to_json,
)
from chatbot.limits import Limit
from chatbot.metrics import Metrics as ChatMetrics
from chatbot.notices import DegradationLevel
from chatbot.reads import ReadDimension
from chatbot.records import QUOTED
from chatbot.settings import Settings as ChatSettings
from ingest import errors as staff_errors
from ingest.catalogue import Stage
from ingest.metrics import Metrics as StaffMetrics
from ingest.settings import Settings as StaffSettings
from knowledge.passage import LANGUAGES
from tests.golden.contracts import descendants, described_instruments

DOCS = Path(__file__).parents[2] / "docs"
COMMAND = "make pages"

UNITS = frozenset({
    "answers", "bytes", "characters", "connections", "conversations", "copies", "days", "dimensions", "documents",
    "events", "files", "messages", "ms", "passages", "port", "processes", "questions", "ratio", "readers", "reads",
    "replicas", "requests", "searches", "seconds", "shards", "threads", "tokens", "weight", "writes",
})  # fmt: skip
"""Units of numeric settings: the description of a number begins with one of these and a colon."""


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


BLOCK = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(page: str, **blocks: str) -> str:
    """Return a page of `docs` with its generated blocks; everything outside the blocks is written there by hand."""
    text = (DOCS / page).read_text("utf-8")
    assert sorted(BLOCK.findall(text)) == sorted(blocks), f"docs/{page} needs a marked place for each block"
    return BLOCK.sub(lambda found: f"<!-- {found[1]} -->\n\n{blocks[found[1]]}\n\n<!-- end -->", text)


# --- settings --------------------------------------------------------------------------------------------------------

HAS_NO_ONE_DEFAULT = {"PARSER__PROCESSES"}
"""Settings whose default depends on the machine; their description says how."""
TLS_FILES = ("CA_FILE", "CERT_FILE", "KEY_FILE")


def settings_page() -> str:
    """Return `docs/settings.md`: the required settings first, then in the order of the models."""
    rows = {model: dict.fromkeys(map(setting_row, settings(model))) for model in (ChatSettings, StaffSettings)}
    both = {cells for cells in rows[ChatSettings] if cells in rows[StaffSettings]}
    names = {name.strip("`") for cells in rows.values() for name, *_ in cells}
    prefixes = sorted(name.removesuffix("CERT_FILE") for name in names if name.endswith("CERT_FILE"))
    prefixes.remove("SERVER_TLS__")
    tls = {f"`{prefix}{file}`" for prefix in prefixes for file in TLS_FILES}

    def table_of(cells: Iterable[tuple[str, ...]]) -> str:
        required_first = sorted((row for row in cells if row[0] not in tls), key=lambda row: row[2] != "required")
        return table(("variable", "type", "default", "meaning"), required_first)

    return filled(
        "settings.md",
        both=table_of(cells for cells in rows[ChatSettings] if cells in both),
        chatbot=table_of(cells for cells in rows[ChatSettings] if cells not in both),
        ingest=table_of(cells for cells in rows[StaffSettings] if cells not in both),
        tls=code(f"{prefix}…" for prefix in prefixes),
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
    kind = f"{kind_of(field)} ({unit})" if unit else kind_of(field)
    return f"`{variable}`", kind, default_of(variable, default), meaning


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
    if {innermost(field.annotation), innermost(kinds[0])} & {dict, frozenset, tuple}:
        return "JSON"
    kind = kinds[0]
    if inspect.isclass(kind) and issubclass(kind, StrEnum):
        return code(kind)
    named = {bool: "boolean", int: "integer", float: "number", Path: "path", SecretStr: "secret"}
    return " ".join([named.get(getattr(kind, "__origin__", kind), "text"), ", ".join(bounds)]).strip()


def innermost(kind: Any) -> Any:
    """Return the class of a generic or annotated type."""
    return innermost(kind.__origin__) if hasattr(kind, "__origin__") else kind


def default_of(variable: str, value: object) -> str:
    if value is ...:
        return "required" if not variable.startswith("OIDC__") else "required to sign in"
    if variable in HAS_NO_ONE_DEFAULT or value in (None, ""):
        return ""
    if isinstance(value, dict | bool):
        return f"`{json.dumps(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


# --- metrics ---------------------------------------------------------------------------------------------------------

LABEL_VALUES: Mapping[str, str] = {
    "chatbot_answers_total outcome": f"{code([*FinishReason, QUOTED])}, `error_<code>`",
    "chatbot_degraded_answers_total rung": code(DegradationLevel),
    "chatbot_lost_writes_total kind": code(get_args(WriteKind)),
    "chatbot_model_calls_total outcome": "`ok`, `left`, or what went wrong",
    "chatbot_takeovers_total reason": "`reader`, `cancel`, `orphan`",
    "chatbot_tokens_total kind": "`prompt`, `cached`, `answer`, `thinking`, `unpaid`",
    "chatbot_rejected_questions_total reason": "`late`, `full`, `share`",
    "code": "of [the errors](api.md)",
    "dimension": code([*Limit.model_fields, *get_args(ReadDimension)]),
    "group": "`primary`, `canary`, `fallback`",
    "grounded": "`true`, `false`",
    "ingest_documents_total outcome": "`indexed`, `approved`, `dead`, `original_changed`, the file's reasons",
    "kind": "`answer`, `probability`, `ping`",
    "language": code(LANGUAGES),
    "priority": "0 and those of `ADMISSION__PRIORITIES`",
    "rating": "`up`, `down`",
    "scope": "`tenant`, `user`, `model`",
    "stage": code(Stage),
    "task": "[which](runbooks/targets-down.md)",
    "layer": "`network`, `tcp`, `writes`, `file_writes`, `reads`, `calls`",
}
"""The values of a label: of one metric, else of every metric that has the label."""
RUNBOOKS: Mapping[str, str] = {
    "chatbot_audit_anchored_timestamp_seconds": "runbooks/audit.md",
    "chatbot_degraded_answers_total": "runbooks/models-down.md",
    "chatbot_rejected_questions_total": "runbooks/overload.md",
    "ingest_dead_jobs": "runbooks/documents.md",
    "ingest_index_compared_timestamp_seconds": "runbooks/store-unavailable.md",
    "ingest_missing_passages": "runbooks/store-unavailable.md",
    "ingest_parser_sandbox_layers": "formats.md",
}


def metrics_page() -> str:
    """Return `docs/metrics.md`."""
    head = ("name", "type", "labels", "what")
    labels = ((f"`{label}`", values) for label, values in LABEL_VALUES.items() if " " not in label)
    return filled(
        "metrics.md",
        chatbot=table(head, metric_rows(ChatMetrics())),
        ingest=table(head, metric_rows(StaffMetrics())),
        labels=table(("label", "values"), labels),
    )


def metric_rows(instruments: ChatMetrics | StaffMetrics) -> Iterator[tuple[str, ...]]:
    for instrument in described_instruments(instruments):
        name = instrument["samples"][0].removesuffix("_bucket")
        labels = ", ".join(named_label(name, label) for label in instrument["labels"])
        more = f" ([more]({RUNBOOKS[name]}))" if name in RUNBOOKS else ""
        yield f"`{name}`", instrument["type"], labels, lowered(instrument["what"]) + more


def named_label(metric: str, label: str) -> str:
    """Return the label, with its values if they are of this metric alone."""
    if values := LABEL_VALUES.get(f"{metric} {label}"):
        return f"`{label}` ({values})"
    assert label in LABEL_VALUES, f"LABEL_VALUES lacks {label} of {metric}"
    return f"`{label}`"


def lowered(text: str) -> str:
    """Return a text that begins as a part of a sentence."""
    return text[:1].lower() + text[1:]


# --- events and errors -----------------------------------------------------------------------------------------------

_ANSWER = "7d0c0e6a4f0b4b7f9a5f1c2d3e4f5a6b"
EXAMPLES: Mapping[str, Event] = {
    event.name: event
    for event in (
        Accepted(
            answer_id=_ANSWER,
            conversation_id="0b8e3f5d9c1a4d7e8f6a2b1c0d9e8f7a",
            question_id="5f2d7c9e1b3a4c6d8e0f1a2b3c4d5e6f",
            model="main",
            prompt_version="3f9c1a2b",
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        Queued(position=2, estimated_wait_ms=1400),
        Sources(
            items=(
                Source(
                    n=1,
                    document_id="overseas-remittance",
                    version=1,
                    title="Overseas remittance",
                    section="Fees",
                    page=None,
                    link="https://www.hanbit.example/remittance",
                    effective_from=None,
                    score=0.91,
                ),
            )
        ),
        Token(text="A transfer of up to USD 5,000 costs KRW 10,000."),
        Citation(
            n=1,
            start=0,
            end=47,
            document_id="overseas-remittance",
            version=1,
            page=None,
            link="https://www.hanbit.example/remittance",
            quote="A transfer of up to USD 5,000 costs KRW 10,000.",
        ),
        Related(
            items=(
                RelatedPassage(
                    n=1,
                    document_id="overseas-remittance",
                    version=1,
                    title="Overseas remittance",
                    section="Fees",
                    page=None,
                    link="https://www.hanbit.example/remittance",
                    quote="A transfer of up to USD 5,000 costs KRW 10,000.",
                ),
            )
        ),
        Notice(code=NoticeCode.MASKED, text="Personal data in your question was masked before use."),
        Done(
            finish_reason=FinishReason.STOP,
            usage=Usage(prompt_tokens=812, cached_tokens=0, answer_tokens=19),
            grounded=True,
            quoted=True,
            limits=Limits(
                limit_tokens=60000,
                remaining_tokens=59169,
                reset_tokens=60.0,
                limit_requests=20,
                remaining_requests=19,
                reset_requests=60.0,
                remaining_slots=3,
                remaining_today=999169,
            ),
        ),
        Failed(
            code="model_unavailable",
            status=503,
            title="No model can answer right now",
            retryable=True,
            retry_after_ms=5000,
            trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
            handoff="Please call 1599-0000 to speak to a person.",
        ),
    )
}
"""An event of each kind, as a customer might read it."""
_ITEMS: dict[str, type[msgspec.Struct]] = {Sources.name: Source, Related.name: RelatedPassage}
"""The items of the events whose data is a bare list."""


def api_page() -> str:
    """Return `docs/api.md`."""
    return filled(
        "api.md",
        events="\n\n".join(
            event_section(n, name, _ITEMS.get(name, kind)) for n, (name, kind) in enumerate(EVENTS.items(), start=1)
        ),
        notices=table(("code", "what"), member_rows(NoticeCode)),
        reasons=table(("finish reason", "what"), member_rows(FinishReason)),
        chat_errors=error_table(chat_errors.ChatError, chat_errors.__doc__ or ""),
        staff_errors=error_table(staff_errors.IngestError, staff_errors.__doc__ or ""),
    )


def event_section(n: int, name: str, kind: type[msgspec.Struct]) -> str:
    """Return what an event is, its fields, and the lines of an example."""
    example = f"id: {_ANSWER}.{n}\nevent: {name}\ndata: {to_json(EXAMPLES[name]).decode()}"
    what = inspect.getdoc(EVENTS[name])
    fields = table(("field", "type", "what"), field_rows(kind, ""))
    return f"### `{name}`\n\n{what}\n\n{fields}\n\n```\n{example}\n```"


def field_rows(kind: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, ...]]:
    """Yield the fields of an event's data, those of a part below the part."""
    for field in msgspec.structs.fields(kind):
        name = f"{prefix}{field.encode_name}"
        metadata = [part for part in getattr(field.type, "__metadata__", ()) if isinstance(part, msgspec.Meta)]
        unit, meaning = unit_and_meaning(metadata[0].description or "" if metadata else "")
        kinds = [kind for kind in alternatives(field.type) if kind is not type(None)]
        null = ", null" if type(None) in alternatives(field.type) else ""
        yield f"`{name}`", json_type(kinds[0]) + (f" ({unit})" if unit else "") + null, meaning
        if inspect.isclass(kinds[0]) and issubclass(kinds[0], msgspec.Struct):
            yield from field_rows(kinds[0], f"{name}.")


def alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself, without annotations."""
    bare = getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint
    return get_args(bare) or (bare,)


def json_type(kind: type) -> str:
    named = {str: "text", int: "integer", float: "number", bool: "boolean", date: "date"}
    if issubclass(kind, StrEnum):
        return "code"
    return "object" if issubclass(kind, msgspec.Struct) else named[kind]


def member_rows(values: type[StrEnum]) -> Iterator[tuple[str, str]]:
    """Yield each member of an enumeration with the docstring below it."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(values))).body
    assert isinstance(body, ast.ClassDef)
    for assigned, documented in pairwise(body.body):
        if isinstance(assigned, ast.Assign):
            assert isinstance(documented, ast.Expr), f"{ast.unparse(assigned)} has no docstring"
            yield f"`{ast.literal_eval(assigned.value)}`", str(ast.literal_eval(documented.value))


def error_table(root: type[chat_errors.ChatError | staff_errors.IngestError], tree: str) -> str:
    """Return the errors by status; the tree in their module's docstring says what each is."""
    what = {code: text for _, code, text in re.findall(r"(\d{3}) (\w+) +(.+)$", tree, re.MULTILINE)}
    what["internal"] = "a bug, logged with its trace id"
    kinds = sorted({root, *descendants(root)}, key=lambda kind: (kind.status, kind.code))
    assert set(what) == {kind.code for kind in kinds}, (
        f"the tree in the docstring of {root.__module__} is not the code's"
    )
    rows = ((f"`{k.code}`", str(k.status), "yes" if k.retryable else "no", what[k.code]) for k in kinds)
    return table(("code", "status", "retry", "what"), rows)


# --- rooms -----------------------------------------------------------------------------------------------------------


def architecture_page() -> str:
    """Return `docs/architecture.md`."""
    return filled("architecture.md", rooms=room_table())


def room_table() -> str:
    """Return a line a room, from the docstrings of their doors."""
    doors = [
        (path.parent.relative_to(DOCS.parent).as_posix(), ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
        for package in ("chatbot", "ingest", "knowledge", "edge", "llm_server", "evals")
        for path in sorted((DOCS.parent / package).rglob("__init__.py"))
    ]
    return table(
        ("room", "duty"), ((f"`{room}`", docstring.partition("\n")[0]) for room, docstring in doors if docstring)
    )


PAGES = {
    "api.md": api_page,
    "settings.md": settings_page,
    "metrics.md": metrics_page,
    "architecture.md": architecture_page,
}


def write() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), "utf-8")


if __name__ == "__main__":
    write()
