"""The heads of the audit's chains, anchored once a day where whoever writes the database cannot write.

Whoever has the audit's key and the database can write a chain that is whole and says something else; it does not end
in the heads that were anchored. An anchor is a small JSON file named for its day (UTC) and names the digest of the one
before, so that none can be taken away or changed in the middle either. Files are written once: a folder that is
mounted so, or a bucket with Object Lock, makes that more than a habit (docs/decisions/0011-anchors.md).

AnchorsUnavailable    the place cannot be written or read now
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
from s3fs import S3FileSystem

from chatbot.audit.chain import ChainHead, ChainProblem
from chatbot.audit.trail import Audit
from chatbot.errors import AuditUnavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOOK_EVERY = 900.0
"""Seconds between two looks whether today's anchor is there."""
_DEADLINE = 30.0
_NOTHING_KNOWN = 1.0


class AnchorsUnavailable(Exception):
    """The place cannot be written or read now."""


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """What is anchored in one day: every head that no earlier anchor holds."""

    at: float
    previous: str
    """The SHA-256 of the anchor before, empty in the first."""
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
        """Write a file whole; return False, and change nothing, where there is one of that name (blocking)."""
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
        draft = self._folder / f".{uuid4().hex}"
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.chmod(0o444)
            (self._folder / name).hardlink_to(draft)  # unlike a rename it never takes another's place
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True


class S3Anchors:
    """A bucket, or a part of one; the store itself refuses a second file of a name."""

    def __init__(self, url: str) -> None:
        self._root = url.removeprefix("s3://").rstrip("/")
        limits = {"connect_timeout": _DEADLINE / 3, "read_timeout": _DEADLINE / 3, "retries": {"max_attempts": 2}}
        self._s3 = S3FileSystem(config_kwargs=limits, skip_instance_cache=True, use_listings_cache=False)

    def names(self) -> list[str]:
        found = self._s3.find(self._root, maxdepth=1)
        return sorted(name.rpartition("/")[2] for name in found if name.endswith(".json"))

    def read(self, name: str) -> bytes:
        return bytes(self._s3.cat_file(f"{self._root}/{name}"))

    def write_once(self, name: str, data: bytes) -> bool:
        try:
            self._s3.pipe_file(f"{self._root}/{name}", data, mode="create")
        except OSError as exc:
            # s3fs names it only where the store says which condition failed.
            if isinstance(exc, FileExistsError) or "PreconditionFailed" in str(exc.__cause__):
                return False
            raise
        return True


def open_anchors(url: str) -> AnchorStore:
    """Return the store behind `file:///folder` or `s3://bucket/prefix`.

    Raises:
        ValueError: the address is neither.
    """
    if url.startswith("s3://"):
        return S3Anchors(url)
    if url.startswith("file:///"):
        return FolderAnchors(Path(unquote(url.removeprefix("file://"))))
    raise ValueError(f"anchors go to file:///folder or s3://bucket/prefix, not {url}")


class Anchors:
    """Anchors the heads of an audit, and tells what was anchored."""

    def __init__(self, audit: Audit, store: AnchorStore, *, now: Callable[[], float]) -> None:
        self._audit = audit
        self._store = store
        self._now = now

    async def anchor(self) -> str | None:
        """Write today's anchor unless it is there; return its name if this call has written it.

        Raises:
            AnchorsUnavailable: the place cannot be written.
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
            AnchorsUnavailable: the place cannot be read.
        """
        names = await _in_time(self._store.names)
        anchored = Anchored(names=tuple(names))
        for name in names:
            anchored.add(name, await _in_time(partial(self._store.read, name)))
        return anchored

    async def verify(self, *, unclosed_before: float) -> list[ChainProblem]:
        """Return what is wrong with the anchors, and with the rows, also against the anchors.

        Raises:
            AnchorsUnavailable, AuditUnavailable: one of them cannot be read.
        """
        anchored = await self.read()
        rows = await self._audit.verify(unclosed_before=unclosed_before, heads=anchored.heads)
        return [*anchored.problems, *rows]

    async def keep(self, told: Callable[[float], None]) -> None:
        """Anchor every day, for ever; tell when it was done last (Unix seconds, 1 where none is known)."""
        told(_NOTHING_KNOWN)
        while True:
            try:
                name = await self.anchor()
                told((await self.read()).at or _NOTHING_KNOWN)
            except (AnchorsUnavailable, AuditUnavailable) as exc:
                log.warning("audit_not_anchored", error=str(exc))
            else:
                if name is not None:
                    log.info("audit_anchored", anchor=name)
            await anyio.sleep(LOOK_EVERY)


@dataclass(slots=True, kw_only=True)
class Anchored:
    """What was anchored, in the order of days, and what is wrong with the files themselves."""

    names: tuple[str, ...]
    at: float = 0.0
    digest: str = ""
    heads: list[ChainHead] = field(default_factory=list)
    known: set[ChainHead] = field(default_factory=set)
    problems: list[ChainProblem] = field(default_factory=list)

    def add(self, name: str, data: bytes) -> None:
        """Take in the next file."""
        try:
            anchor = msgspec.json.decode(data, type=Anchor)
        except msgspec.MsgspecError:
            self._wrong(name, "the file is no anchor")
        else:
            if anchor.previous != self.digest:
                self._wrong(name, "it does not follow the anchor before it: one was changed or taken away")
            self.at = anchor.at
            self.heads += anchor.heads
            self.known.update(anchor.heads)
        self.digest = hashlib.sha256(data).hexdigest()

    def _wrong(self, name: str, detail: str) -> None:
        self.problems.append(ChainProblem(fault="anchor", writer=name, sequence=0, answer_id="", detail=detail))


async def _in_time(call: Callable[[], T]) -> T:
    """Do blocking work elsewhere.

    Raises:
        AnchorsUnavailable: it failed, or took longer than the deadline.
    """
    try:
        with anyio.fail_after(_DEADLINE):
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
    except (OSError, BotoCoreError, ClientError, FSTimeoutError) as exc:
        raise AnchorsUnavailable(f"the anchors cannot be reached: {type(exc).__name__}: {exc}") from exc
