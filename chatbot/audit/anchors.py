"""Anchor the heads of the audit's chains once a day in a store that the owner of the database cannot write.

An attacker with the audit's key and the database can write other chains that verify, but these lack the anchored heads.
An anchor is a small JSON file named for its day (UTC). It holds the SHA-256 of the previous anchor, so that no anchor
can be removed or changed between two others. Files are written once, which a folder mounted write-once or a bucket with
Object Lock enforces (docs/decisions/0011-anchors.md).

AnchorsUnavailable    the store cannot be written or read now
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import unquote
from uuid import uuid4

import anyio
import msgspec
import structlog
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.exceptions import FSTimeoutError

from chatbot.audit.chain import ChainHead, ChainProblem
from chatbot.audit.trail import Audit
from chatbot.errors import AuditUnavailable
from knowledge.storage import open_s3
from knowledge.tls import SYSTEM_TLS, TlsSettings

log = structlog.get_logger(__name__)

T = TypeVar("T")

CHECK_EVERY_SECONDS = 900.0
"""The interval of the checks for today's anchor."""
_DEADLINE_SECONDS = 30.0
_NO_ANCHOR = 1.0
"""The metric's value before the first anchor; 0 means that this process does not anchor."""


class AnchorsUnavailable(Exception):
    """The store cannot be written or read now."""


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The anchor of one day: every head that no earlier anchor holds; `at` is in Unix seconds."""

    at: float
    previous: str
    """The SHA-256 of the previous anchor in hexadecimal; empty in the first one."""
    heads: tuple[ChainHead, ...]


class AnchorStore(Protocol):
    """Files that are written once."""

    def names(self) -> list[str]:
        """Return the names, the earliest first (blocking)."""
        ...

    def read(self, name: str) -> bytes:
        """Return a file (blocking)."""
        ...

    def write_once(self, name: str, data: bytes) -> bool:
        """Write a whole file; return False, and change nothing, if the name exists (blocking)."""
        ...


class FolderAnchors:
    """A folder of anchors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("*.json"))

    def read(self, name: str) -> bytes:
        return (self._folder / name).read_bytes()

    def write_once(self, name: str, data: bytes) -> bool:
        self._folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._folder / f".{uuid4().hex}"
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.chmod(0o444)
            (self._folder / name).hardlink_to(unfinished)  # unlike a rename, it never replaces a file
        except FileExistsError:
            return False
        finally:
            unfinished.unlink(missing_ok=True)
        return True


class S3Anchors:
    """A bucket, or a prefix in a bucket; S3 itself rejects a second file of the same name."""

    def __init__(self, url: str, tls: TlsSettings) -> None:
        self._root = url.removeprefix("s3://").rstrip("/")
        self._s3 = open_s3(_DEADLINE_SECONDS / 3, tls, use_listings_cache=False)

    def names(self) -> list[str]:
        paths = self._s3.find(self._root, maxdepth=1)
        return sorted(path.rpartition("/")[2] for path in paths if path.endswith(".json"))

    def read(self, name: str) -> bytes:
        return bytes(self._s3.cat_file(f"{self._root}/{name}"))

    def write_once(self, name: str, data: bytes) -> bool:
        try:
            self._s3.pipe_file(f"{self._root}/{name}", data, mode="create")
        except OSError as exc:
            # s3fs raises FileExistsError only if the store's reply names the failed condition.
            if isinstance(exc, FileExistsError) or "PreconditionFailed" in str(exc.__cause__):
                return False
            raise
        return True


def open_anchors(url: str, tls: TlsSettings = SYSTEM_TLS) -> AnchorStore:
    """Return the store behind `file:///folder` or `s3://bucket/prefix`.

    Raises:
        ValueError: the address is neither.
    """
    if url.startswith("s3://"):
        return S3Anchors(url, tls)
    if url.startswith("file:///"):
        return FolderAnchors(Path(unquote(url.removeprefix("file://"))))
    raise ValueError(f"anchors go to file:///folder or s3://bucket/prefix, not {url}")


class Anchors:
    """Anchors the heads of an audit trail, and verifies the trail against the anchored heads.

    Every method raises `AnchorsUnavailable` or `AuditUnavailable` if the store or the database is unavailable.
    """

    def __init__(self, audit: Audit, store: AnchorStore, *, now: Callable[[], float]) -> None:
        self._audit = audit
        self._store = store
        self._now = now

    async def anchor(self) -> str | None:
        """Write today's anchor unless it exists; return its name, or None if this call has not written it."""
        now = self._now()
        name = f"{datetime.fromtimestamp(now, UTC).date().isoformat()}.json"
        anchored = await self.read()
        if anchored.names and anchored.names[-1] >= name:
            return None
        new_heads = tuple(head for head in await self._audit.chain_heads() if head not in anchored.known_heads)
        data = msgspec.json.encode(Anchor(at=now, previous=anchored.digest, heads=new_heads))
        is_written = await _in_time(partial(self._store.write_once, name, data))
        return name if is_written else None

    async def read(self) -> "Anchored":
        """Return the contents of all anchors."""
        names = await _in_time(self._store.names)
        anchored = Anchored(names=tuple(names))
        for name in names:
            anchored.add(name, await _in_time(partial(self._store.read, name)))
        return anchored

    async def prune(self, *, before: float) -> int:
        """Remove the chains whose last row and anchor are older than `before` (Unix seconds); return the row count."""
        anchored = await self.read()
        recent_writers = {head.writer for head in anchored.heads_since(before)}
        return await self._audit.prune(before=before, kept_writers=recent_writers)

    async def verify(self, *, unclosed_before: float, since: float = 0.0) -> list[ChainProblem]:
        """Return the problems of the anchors, of the rows, and of rows that contradict the anchors.

        Heads that were anchored before `since` (Unix seconds) are not required, because `prune` may have removed them.
        """
        anchored = await self.read()
        heads = anchored.heads_since(since)
        row_problems = await self._audit.verify(unclosed_before=unclosed_before, heads=heads, since=since)
        return [*anchored.problems, *row_problems]

    async def anchor_daily(self, on_anchored: Callable[[float], None]) -> None:
        """Anchor every day until cancelled; report the time of the last anchor (Unix seconds; 1 if there is none)."""
        on_anchored(_NO_ANCHOR)
        while True:
            try:
                name = await self.anchor()
                on_anchored((await self.read()).at or _NO_ANCHOR)
            except (AnchorsUnavailable, AuditUnavailable) as exc:
                log.warning("audit_anchoring_failed", error=str(exc))
            else:
                if name is not None:
                    log.info("audit_anchored", anchor=name)
            await anyio.sleep(CHECK_EVERY_SECONDS)


@dataclass(slots=True, kw_only=True)
class Anchored:
    """The contents of all anchors in the order of days, and the problems of the files themselves."""

    names: tuple[str, ...]
    at: float = 0.0
    """The time of the last anchor in Unix seconds."""
    digest: str = ""
    """The SHA-256 of the last anchor."""
    heads: list[tuple[float, ChainHead]] = field(default_factory=list)
    """Each head with the time of its anchor."""
    known_heads: set[ChainHead] = field(default_factory=set)
    problems: list[ChainProblem] = field(default_factory=list)

    def add(self, name: str, data: bytes) -> None:
        """Add the next file; record a problem if it is not an anchor, or if its hash of the previous one is wrong."""
        try:
            anchor = msgspec.json.decode(data, type=Anchor)
        except msgspec.MsgspecError:
            self._add_problem(name, "the file is not a valid anchor")
        else:
            if anchor.previous != self.digest:
                self._add_problem(name, "its hash of the previous anchor is wrong: one was changed or removed")
            self.at = anchor.at
            self.heads += [(anchor.at, head) for head in anchor.heads]
            self.known_heads.update(anchor.heads)
        self.digest = hashlib.sha256(data).hexdigest()

    def heads_since(self, since: float) -> list[ChainHead]:
        """Return the heads that were anchored at or after `since` (Unix seconds)."""
        return [head for at, head in self.heads if at >= since]

    def _add_problem(self, name: str, detail: str) -> None:
        self.problems.append(ChainProblem(fault="anchor", writer=name, sequence=0, answer_id="", detail=detail))


async def _in_time(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread; raise `AnchorsUnavailable` if it fails or misses the deadline."""
    try:
        with anyio.fail_after(_DEADLINE_SECONDS):
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    except (OSError, BotoCoreError, ClientError, FSTimeoutError) as exc:
        raise AnchorsUnavailable(f"the anchors cannot be reached: {type(exc).__name__}: {exc}") from exc
