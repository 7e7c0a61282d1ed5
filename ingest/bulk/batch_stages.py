"""The stages that run in Ray's processes: reading on CPU workers, embedding in actors.

Each row is a passage. An unreadable document is a single row with the reason instead of a passage.
"""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ingest.catalogue import Version
from ingest.errors import OriginalChanged, StorageUnavailable
from ingest.parsing import Chunking, Parser, ParserSettings, Unreadable
from ingest.pipeline import passages_of
from ingest.uploads import BlobSettings, open_blobs
from knowledge.embedding import EmbedderSettings, open_embedder
from knowledge.index import indexed_text
from knowledge.passage import Passage

Row = dict[str, Any]
"""Ray's row type; the keys are the fields of `PassageRow`."""
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageRow:
    """A passage (JSON) of document number `document`, which has `of` passages; or the reason why the file failed.

    `left_out` (JSON) applies to the whole document.
    """

    document: int
    of: int
    passage: bytes = b""
    format: str = ""
    left_out: bytes = b"{}"
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """The settings of Ray's processes: the store of originals, the parser, the chunking, and the embedder."""

    blobs: BlobSettings
    parser: ParserSettings
    chunking: Chunking
    embedder: EmbedderSettings


class Read:
    """Parse and chunk documents; each Ray worker has its own parser process."""

    def __init__(self, settings: StageSettings) -> None:
        self._blobs = open_blobs(settings.blobs)
        self._chunking = settings.chunking
        self._parser = Parser(settings.parser)
        self._loop = asyncio.Runner()

    def __call__(self, row: Row) -> Iterator[Row]:
        """Yield one row per passage of a document."""
        number = int(row["document"])
        for passage_row in self._loop.run(self._rows(number, msgspec.json.decode(row["version"], type=Version))):
            yield {name: getattr(passage_row, name) for name in PassageRow.__dataclass_fields__}

    async def _rows(self, number: int, version: Version) -> list[PassageRow]:
        try:
            async with self._blobs.on_disk(version.sha256) as path:
                document = await self._parser.chunk(path, self._chunking)
        except Unreadable as exc:
            return [PassageRow(document=number, of=0, reason=exc.reason.value, detail=exc.detail)]
        except (OriginalChanged, StorageUnavailable) as exc:
            return [PassageRow(document=number, of=0, reason=exc.code, detail=exc.detail)]
        passages = passages_of(version, document)
        encode = msgspec.json.encode
        left_out = encode(document.left_out)
        return [
            PassageRow(
                document=number, of=len(passages), passage=encode(passage), format=document.format, left_out=left_out
            )
            for passage in passages
        ]


class Embed:
    """Add dense vectors to batches of passages; the model stays loaded between batches."""

    def __init__(self, settings: EmbedderSettings) -> None:
        self._loop = asyncio.Runner()
        # Stays open for the actor's lifetime; Ray ends the process together with the model's thread.
        self._stack = AsyncExitStack()
        self._embedder = self._loop.run(self._stack.enter_async_context(open_embedder(settings)))
        self._decode = msgspec.json.Decoder(Passage).decode

    def __call__(self, rows: Columns) -> Columns:
        """Return the batch with a `vector` column (float32, rows × dimensions), zero for rows without a passage."""
        stored = [bytes(passage) for passage in rows["passage"]]
        texts = {n: indexed_text(self._decode(passage)) for n, passage in enumerate(stored) if passage}
        embedded = self._loop.run(self._embedder.embed_passages(list(texts.values())))
        vectors = np.zeros((len(stored), self._embedder.dimensions), dtype=np.float32)
        for n, vector in zip(texts, embedded, strict=True):
            vectors[n] = vector
        return rows | {"vector": vectors}
