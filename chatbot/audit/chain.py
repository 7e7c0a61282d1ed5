"""The chain of audit rows, without a database: how a row is signed, and how one that was touched shows (pure)."""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import msgspec

GENESIS = "0" * 64

Kind = Literal["opened", "closed"]
Fault = Literal["edited", "gap", "reordered", "truncated", "unclosed", "unopened", "anchor"]


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What a row says; its JSON is what is signed."""

    writer: str
    sequence: int
    answer_id: str
    tenant: str
    at: float


class Opened(AuditEntry, frozen=True, kw_only=True, tag="opened"):
    """Before the model was called."""

    sub: str
    conversation_id: str
    question_hash: str
    passages: tuple[tuple[str, int, int], ...]
    groups: tuple[str, ...]
    as_of: float
    model: str
    prompt_version: str
    index_version: str
    embedder: str
    sampling: str
    grounding: str
    question_id: str = ""
    parent_id: str | None = None
    history: int = 0
    brought: int = 0
    reply: str = ""
    passage_hashes: tuple[str, ...] = ()
    prompt_hash: str = ""


class Closed(AuditEntry, frozen=True, kw_only=True, tag="closed"):
    """When the answer had ended."""

    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    finish_reason: str | None
    error: str | None
    grounded: bool
    models: tuple[str, ...] = ()
    rung: str = ""
    cached_answer_id: str = ""
    answer_hash: str = ""
    said: int = 0
    said_hash: str = ""
    probes: tuple[float, ...] = ()
    repair: tuple[float, ...] = ()
    repair_hash: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """A row as it is stored: the columns that are searched, the signed text, and the link to the row before."""

    writer: str
    sequence: int
    kind: Kind
    answer_id: str
    tenant: str
    at: float
    body: str
    prev_hmac: str
    hmac: str

    def entry(self) -> Opened | Closed:
        """Return what the row says.

        Raises:
            msgspec.ValidationError, msgspec.DecodeError: the body is no entry.
        """
        return msgspec.json.decode(self.body, type=Opened | Closed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """Where a writer's chain ended when it was anchored."""

    writer: str
    sequence: int
    hmac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainProblem:
    """A row, or the place where one should be, that does not prove what it says."""

    fault: Fault
    writer: str
    sequence: int
    answer_id: str
    detail: str


class AuditKeys:
    """The uses of one secret: signing rows, and hashing what was said so that only its holder can look it up."""

    def __init__(self, secret: bytes) -> None:
        self._chain = hmac.digest(secret, b"audit chain", "sha256")
        self._question = hmac.digest(secret, b"audit question", "sha256")
        self._answer = hmac.digest(secret, b"audit answer", "sha256")
        self._tokens = hmac.digest(secret, b"audit tokens", "sha256")

    def sign(self, prev_hmac: str, body: str) -> str:
        return hmac.new(self._chain, f"{prev_hmac}\n{body}".encode(), hashlib.sha256).hexdigest()

    def signed(self, row: "AuditRow") -> bool:
        """Return whether the row's text and link are what its writer signed."""
        return hmac.compare_digest(self.sign(row.prev_hmac, row.body), row.hmac)

    def question_hash(self, tenant: str, question: str) -> str:
        """Return the same for the same question of the same tenant only."""
        return hmac.new(self._question, f"{tenant}\n{question}".encode(), hashlib.sha256).hexdigest()

    def answer_hash(self, tenant: str, text: str) -> str:
        """Return the same for the same text that was shown to a customer of the same tenant only."""
        return hmac.new(self._answer, f"{tenant}\n{text}".encode(), hashlib.sha256).hexdigest()

    def prompt_hash(self, tenant: str, prompts: Sequence[Sequence[int]]) -> str:
        """Return the same for the same token ids, cut the same way, of the same tenant only."""
        signed = msgspec.json.encode([tenant, prompts])
        return hmac.new(self._tokens, signed, hashlib.sha256).hexdigest()


def seal(entry: Opened | Closed, prev_hmac: str, keys: AuditKeys) -> AuditRow:
    """Return the row that carries `entry` behind the row with `prev_hmac`."""
    body = msgspec.json.encode(entry, order="deterministic").decode()
    return AuditRow(
        writer=entry.writer,
        sequence=entry.sequence,
        kind="opened" if isinstance(entry, Opened) else "closed",
        answer_id=entry.answer_id,
        tenant=entry.tenant,
        at=entry.at,
        body=body,
        prev_hmac=prev_hmac,
        hmac=keys.sign(prev_hmac, body),
    )


class ChainCheck:
    """Reads rows ordered by writer and sequence, and tells what is wrong with each."""

    def __init__(self, keys: AuditKeys, heads: Iterable[ChainHead] = ()) -> None:
        self._keys = keys
        self._anchored: defaultdict[tuple[str, int], list[ChainHead]] = defaultdict(list)
        for head in heads:
            self._anchored[head.writer, head.sequence].append(head)
        self._last: AuditRow | None = None

    def feed(self, row: AuditRow) -> Iterator[ChainProblem]:
        """Tell what is wrong with the next row."""
        follows = self._last is not None and self._last.writer == row.writer
        expected, prev = (self._last.sequence + 1, self._last.hmac) if self._last and follows else (1, GENESIS)
        self._last = row
        anchors = self._anchored.pop((row.writer, row.sequence), [])
        if not self._keys.signed(row):
            yield problem("edited", row, "the row is not what was signed")
            return
        if not matches(row):
            yield problem("reordered", row, "the row stands where it was not written, or under another name")
            return
        if row.sequence != expected:
            yield problem("gap", row, f"row {expected} should come here")
        elif row.prev_hmac != prev:
            yield problem("reordered", row, "the row before is not the one that it was written behind")
        if any(anchor.hmac != row.hmac for anchor in anchors):
            yield problem("edited", row, "the chain was another when its head was anchored")

    def close(self) -> Iterator[ChainProblem]:
        """Tell which anchored heads were never met."""
        for head in chain.from_iterable(self._anchored.values()):
            yield ChainProblem(
                fault="truncated",
                writer=head.writer,
                sequence=head.sequence,
                answer_id="",
                detail="the chain ended here or later when its head was anchored, and now ends earlier",
            )


def matches(row: AuditRow) -> bool:
    """Tell whether the columns say what the signed body says."""
    try:
        entry = row.entry()
    except msgspec.MsgspecError:
        return False
    columns = (row.writer, row.sequence, row.answer_id, row.tenant, row.at)
    body = (entry.writer, entry.sequence, entry.answer_id, entry.tenant, entry.at)
    return columns == body and row.kind == ("opened" if isinstance(entry, Opened) else "closed")


def problem(fault: Fault, row: AuditRow, detail: str) -> ChainProblem:
    return ChainProblem(fault=fault, writer=row.writer, sequence=row.sequence, answer_id=row.answer_id, detail=detail)
