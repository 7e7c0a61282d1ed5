"""The work of Ray's processes: each reads and embeds documents, several at a time."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ingest.catalogue import Version
from ingest.errors import OriginalChanged, StorageUnavailable
from ingest.parsing import Chunking, LeftOut, Parser, ParserSettings, Unreadable
from ingest.pipeline import passages_of
from ingest.uploads import BlobSettings, open_blobs
from knowledge.embedding import EmbedderSettings, open_embedder
from knowledge.index import indexed_text
from knowledge.passage import Passage

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedDocument:
    """A document's passages with their vectors (float32, row by row), or the reason why it failed."""

    format: str = ""
    passages: Sequence[Passage] = ()
    vectors: bytes = b""
    left_out: Mapping[LeftOut, int] = field(default_factory=dict)
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSettings:
    """The settings of Ray's processes: the store of originals, the parser, the chunking, and the embedder."""

    blobs: BlobSettings
    parser: ParserSettings
    chunking: Chunking
    embedder: EmbedderSettings


class ReadAndEmbed:
    """Parse, chunk and embed documents; each Ray worker has its own parser process and model."""

    def __init__(self, settings: StageSettings) -> None:
        self._blobs = open_blobs(settings.blobs)
        self._chunking = settings.chunking
        self._parser = Parser(settings.parser)
        self._loop = asyncio.Runner()
        # Stays open for the actor's lifetime; Ray ends the process together with the model's thread.
        self._stack = AsyncExitStack()
        self._embedder = self._loop.run(self._stack.enter_async_context(open_embedder(settings.embedder)))

    def __call__(self, rows: Columns) -> Columns:
        """Return the column `result` with an `EmbeddedDocument` (JSON) for each `version` (JSON)."""
        versions = [msgspec.json.decode(bytes(version), type=Version) for version in rows["version"]]
        results = [msgspec.json.encode(document) for document in self._loop.run(self._read_and_embed(versions))]
        return {"document": rows["document"], "result": np.array(results, dtype=object)}

    async def _read_and_embed(self, versions: Sequence[Version]) -> list[EmbeddedDocument]:
        documents = [await self._parse_and_chunk(version) for version in versions]
        texts = [indexed_text(passage) for document in documents for passage in document.passages]
        all_vectors = iter(await self._embedder.embed_passages(texts))
        embedded: list[EmbeddedDocument] = []
        for document in documents:
            vectors = np.asarray(list(islice(all_vectors, len(document.passages))), np.float32)
            embedded.append(replace(document, vectors=vectors.tobytes()))
        return embedded

    async def _parse_and_chunk(self, version: Version) -> EmbeddedDocument:
        try:
            async with self._blobs.on_disk(version.sha256) as path:
                document = await self._parser.chunk(path, self._chunking)
        except Unreadable as exc:
            return EmbeddedDocument(reason=exc.reason.value, detail=exc.detail)
        except (OriginalChanged, StorageUnavailable) as exc:
            return EmbeddedDocument(reason=exc.code, detail=exc.detail)
        passages = passages_of(version, document)
        return EmbeddedDocument(format=document.format, passages=passages, left_out=document.left_out)
