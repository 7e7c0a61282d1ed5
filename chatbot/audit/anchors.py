"""The heads of the audit's chains, anchored once a day in a store that the owner of the database cannot write.

With the audit's key and the database one can write another chain that verifies; it does not hold the heads that were
anchored. An anchor is a small JSON file named for its day (UTC) that holds the SHA-256 of the anchor before, so that
none can be removed or changed in the middle either. Files are written once: a folder mounted so, or a bucket with
Object Lock, enforces it (docs/decisions/0011-anchors.md).

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

LOOK_EVERY = 900.0
"""Seconds between two checks for today's anchor."""
_DEADLINE_SECONDS = 30.0
_NEVER = 1.0
"""Unix seconds in the metric while no anchor is known: 0 stands for a process without anchors."""


class AnchorsUnavailable(Exception):
    """The store cannot be written or read now."""


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """The anchor of one day: every head that no earlier anchor holds; `at` is Unix seconds."""

    at: float
    previous: str
    """The SHA-256 of the anchor before, in hexadecimal; empty in the first."""
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
        """Write a whole file; return False, and change nothing, if the name is taken (blocking)."""
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
            (self._folder / name).hardlink_to(unfinished)  # unlike a rename it never takes another's place
        except FileExistsError:
            return False
        finally:
            unfinished.unlink(missing_ok=True)
        return True


class S3Anchors:
    """A bucket, or a prefix of one; S3 itself refuses a second file of the same name."""

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
            # s3fs raises FileExistsError only where the store names the condition that failed.
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
    """Anchors the heads of an audit trail, and verifies it against what was anchored."""

    def __init__(self, audit: Audit, store: AnchorStore, *, now: Callable[[], float]) -> None:
        self._audit = audit
        self._store = store
        self._now = now

    async def anchor(self) -> str | None:
        """Write today's anchor unless it is there; return its name if this call has written it.

        Raises:
            AnchorsUnavailable: the store cannot be written.
            AuditUnavailable: the heads cannot be read.
        """
        now = self._now()
        name = f"{datetime.fromtimestamp(now, UTC).date().isoformat()}.json"
        before = await self.read()
        if before.names and before.names[-1] >= name:
            return None
        heads = tuple(head for head in await self._audit.heads() if head not in before.known)
        data = msgspec.json.encode(Anchor(at=now, previous=before.digest, heads=heads))
        written = await _in_time(partial(self._store.write_once, name, data))
        return name if written else None

    async def read(self) -> "Anchored":
        """Return everything that was anchored.

        Raises:
            AnchorsUnavailable: the store cannot be read.
        """
        names = await _in_time(self._store.names)
        anchored = Anchored(names=tuple(names))
        for name in names:
            anchored.add(name, await _in_time(partial(self._store.read, name)))
        return anchored

    async def prune(self, *, before: float) -> int:
        """Remove the chains whose last row and last anchor are older (Unix seconds); return how many rows.

        Raises:
            AnchorsUnavailable, AuditUnavailable: one of them cannot be used.
        """
        kept_writers = {head.writer for head in (await self.read()).heads_since(before)}
        return await self._audit.prune(before=before, keep=kept_writers)

    async def verify(self, *, unclosed_before: float, since: float = 0.0) -> list[ChainProblem]:
        """Return the problems of the anchors, and of the rows, by themselves and against the anchors.

        What was anchored before `since` (Unix seconds) may be gone by `prune`, and is not asked for.

        Raises:
            AnchorsUnavailable, AuditUnavailable: one of them cannot be read.
        """
        anchored = await self.read()
        heads = anchored.heads_since(since)
        rows = await self._audit.verify(unclosed_before=unclosed_before, heads=heads, since=since)
        return [*anchored.problems, *rows]

    async def anchor_daily(self, on_anchored: Callable[[float], None]) -> None:
        """Anchor every day until cancelled; report the time of the last anchor (Unix seconds, 1 if none is known)."""
        on_anchored(_NEVER)
        while True:
            try:
                name = await self.anchor()
                on_anchored((await self.read()).at or _NEVER)
            except (AnchorsUnavailable, AuditUnavailable) as exc:
                log.warning("audit_anchoring_failed", error=str(exc))
            else:
                if name is not None:
                    log.info("audit_anchored", anchor=name)
            await anyio.sleep(LOOK_EVERY)


@dataclass(slots=True, kw_only=True)
class Anchored:
    """The contents of all anchors, in the order of days, and the problems of the files themselves."""

    names: tuple[str, ...]
    at: float = 0.0
    digest: str = ""
    heads: list[tuple[float, ChainHead]] = field(default_factory=list)
    """Each with when it was anchored."""
    known: set[ChainHead] = field(default_factory=set)
    problems: list[ChainProblem] = field(default_factory=list)

    def add(self, name: str, data: bytes) -> None:
        """Add the next file."""
        try:
            anchor = msgspec.json.decode(data, type=Anchor)
        except msgspec.MsgspecError:
            self._wrong(name, "the file is not a valid anchor")
        else:
            if anchor.previous != self.digest:
                self._wrong(name, "it does not follow the anchor before it: one was changed or taken away")
            self.at = anchor.at
            self.heads += [(anchor.at, head) for head in anchor.heads]
            self.known.update(anchor.heads)
        self.digest = hashlib.sha256(data).hexdigest()

    def heads_since(self, since: float) -> list[ChainHead]:
        """Return what was anchored from an instant on."""
        return [head for at, head in self.heads if at >= since]

    def _wrong(self, name: str, detail: str) -> None:
        self.problems.append(ChainProblem(fault="anchor", writer=name, sequence=0, answer_id="", detail=detail))


async def _in_time(call: Callable[[], T]) -> T:
    """Run a blocking call in a thread.

    Raises:
        AnchorsUnavailable: it failed, or took longer than the deadline.
    """
    try:
        with anyio.fail_after(_DEADLINE_SECONDS):
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    except (OSError, BotoCoreError, ClientError, FSTimeoutError) as exc:
        raise AnchorsUnavailable(f"the anchors cannot be reached: {type(exc).__name__}: {exc}") from exc
