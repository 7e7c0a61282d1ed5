"""The chain of audit rows without a database: sign rows, and find changed ones (pure)."""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain as concatenated
from typing import Literal

import msgspec

GENESIS = "0" * 64
"""The first row of a chain has this in place of the previous row's HMAC."""

Kind = Literal["opened", "closed"]
Fault = Literal["edited", "gap", "reordered", "truncated", "unclosed", "unopened", "anchor"]
"""`gap`: rows are missing within a chain; `truncated`: at its end; `unclosed`, `unopened`: an answer lacks its closing
or opening row; `anchor`: an anchor's file is wrong."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """The signed content of a row, which is stored as JSON with its tag."""

    writer: str
    sequence: int
    answer_id: str
    tenant: str
    at: float


class Opened(AuditEntry, frozen=True, kw_only=True, tag="opened"):
    """The row that is written before the model is called; `AuditOpened` explains the fields."""

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
    history_length: int = 0
    client_message_count: int = 0
    reply: str = ""
    passage_hashes: tuple[str, ...] = ()
    prompt_hash: str = ""


class Closed(AuditEntry, frozen=True, kw_only=True, tag="closed"):
    """The row that is written after the answer has ended; `AnswerResult` explains the fields."""

    prompt_tokens: int
    cached_tokens: int
    answer_tokens: int
    finish_reason: str | None
    error: str | None
    grounded: bool
    models: tuple[str, ...] = ()
    degradation_level: str = ""
    answer_hash: str = ""
    quoted: bool = False
    probes: tuple[float, ...] = ()
    choice: tuple[float, ...] = ()
    thinking_tokens: int = 0
    unpaid_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """A stored row: the columns for searches, the signed JSON (`body`), its HMAC and the previous row's HMAC."""

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
        """Return the entry of the row.

        Raises:
            msgspec.ValidationError, msgspec.DecodeError: the body is not an entry.
        """
        return msgspec.json.decode(self.body, type=Opened | Closed)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainHead:
    """The last row of a writer's chain at the time of an anchor."""

    writer: str
    sequence: int
    hmac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainProblem:
    """A row, or a place in a chain, that does not verify."""

    fault: Fault
    writer: str
    sequence: int
    answer_id: str
    detail: str


class AuditKeys:
    """The keys derived from one secret: to sign rows, and to hash texts that only the secret's holders can compare."""

    def __init__(self, secret: bytes) -> None:
        self._chain = hmac.digest(secret, b"audit chain", "sha256")
        self._question = hmac.digest(secret, b"audit question", "sha256")
        self._answer = hmac.digest(secret, b"audit answer", "sha256")
        self._tokens = hmac.digest(secret, b"audit tokens", "sha256")

    def sign(self, prev_hmac: str, body: str) -> str:
        """Return the HMAC-SHA-256 of a row, in hexadecimal."""
        return hmac.new(self._chain, f"{prev_hmac}\n{body}".encode(), hashlib.sha256).hexdigest()

    def has_valid_hmac(self, row: AuditRow) -> bool:
        """Return whether the row's HMAC is valid for its body and the previous row's HMAC."""
        return hmac.compare_digest(self.sign(row.prev_hmac, row.body), row.hmac)

    def question_hash(self, tenant: str, question: str) -> str:
        """Return the keyed hash of a tenant's question."""
        return hmac.new(self._question, f"{tenant}\n{question}".encode(), hashlib.sha256).hexdigest()

    def answer_hash(self, tenant: str, text: str) -> str:
        """Return the keyed hash of a text that was shown to a tenant's customer."""
        return hmac.new(self._answer, f"{tenant}\n{text}".encode(), hashlib.sha256).hexdigest()

    def prompt_hash(self, tenant: str, prompts: Sequence[str]) -> str:
        """Return the keyed hash of a tenant's prompts, each of which is the JSON of its messages."""
        encoded = msgspec.json.encode([tenant, prompts])
        return hmac.new(self._tokens, encoded, hashlib.sha256).hexdigest()


def seal(entry: Opened | Closed, prev_hmac: str, keys: AuditKeys) -> AuditRow:
    """Return the signed row of an entry that follows the row with the HMAC `prev_hmac`."""
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
    """Verifies rows, which are fed in the order of writer and sequence."""

    def __init__(self, keys: AuditKeys, heads: Iterable[ChainHead] = ()) -> None:
        """`heads` are the anchored heads, which the chains must contain."""
        self._keys = keys
        self._anchored: defaultdict[tuple[str, int], list[ChainHead]] = defaultdict(list)
        for head in heads:
            self._anchored[head.writer, head.sequence].append(head)
        self._last: AuditRow | None = None

    def feed(self, row: AuditRow) -> Iterator[ChainProblem]:
        """Yield the problems of the next row."""
        expected_sequence, expected_hmac = 1, GENESIS
        if self._last is not None and self._last.writer == row.writer:
            expected_sequence, expected_hmac = self._last.sequence + 1, self._last.hmac
        self._last = row
        anchored_heads = self._anchored.pop((row.writer, row.sequence), [])
        if not self._keys.has_valid_hmac(row):
            yield problem("edited", row, "the row's HMAC does not fit its content")
            return
        if not columns_match_body(row):
            yield problem("reordered", row, "the row's columns differ from its signed content")
            return
        if row.sequence != expected_sequence:
            yield problem("gap", row, f"row {expected_sequence} should come here")
        elif row.prev_hmac != expected_hmac:
            yield problem("reordered", row, "another row preceded it when it was signed")
        if any(head.hmac != row.hmac for head in anchored_heads):
            yield problem("edited", row, "the row had another HMAC when it was anchored")

    def missing_heads(self) -> Iterator[ChainProblem]:
        """Yield a problem for each anchored head that is in no chain."""
        for head in concatenated.from_iterable(self._anchored.values()):
            yield ChainProblem(
                fault="truncated",
                writer=head.writer,
                sequence=head.sequence,
                answer_id="",
                detail="the chain ended here or later when its head was anchored, and now ends earlier",
            )


def columns_match_body(row: AuditRow) -> bool:
    """Return whether the columns of the row agree with its signed body."""
    try:
        entry = row.entry()
    except msgspec.MsgspecError:
        return False
    kind = "opened" if isinstance(entry, Opened) else "closed"
    columns = (row.writer, row.sequence, row.answer_id, row.tenant, row.at, row.kind)
    return columns == (entry.writer, entry.sequence, entry.answer_id, entry.tenant, entry.at, kind)


def problem(fault: Fault, row: AuditRow, detail: str) -> ChainProblem:
    """Return a problem at a row's place."""
    return ChainProblem(fault=fault, writer=row.writer, sequence=row.sequence, answer_id=row.answer_id, detail=detail)
