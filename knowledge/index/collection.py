"""The collection: what it is called, what it holds, and which embedder filled it.

A re-index fills the next collection behind the readers' back, while writes go to both, and switches the alias in one
call. Readers look at the alias each second and follow it, unless another embedder than theirs filled what it stands
for: they stay with what they can read, which is kept until the re-index after.
"""

import re
from collections.abc import Collection

from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

DENSE = "dense"
TERMS = "terms"

# Indexed where filtered. `is_tenant` keeps a tenant's points together on disk.
PAYLOAD_INDEXES: dict[str, models.PayloadSchemaType | models.KeywordIndexParams] = {
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
    "readers": models.PayloadSchemaType.KEYWORD,
    "document_id": models.PayloadSchemaType.KEYWORD,
    "version": models.PayloadSchemaType.INTEGER,
    "visible_from": models.PayloadSchemaType.FLOAT,
    "visible_until": models.PayloadSchemaType.FLOAT,
}


class EmbedderMismatch(Exception):
    """The collection was filled by another embedder than this one; its vectors cannot be compared."""


async def ensure_collection(
    client: AsyncQdrantClient, *, alias: str, embedder: str, dimensions: int, payload_indexes: bool, check: bool = True
) -> str:
    """Return the collection behind the alias, made when there is none; raise EmbedderMismatch on another's vectors."""
    name = await collection_behind(client, alias)
    if name is None:
        name = f"{alias}-1"
        if not await client.collection_exists(name):
            await _create(client, name, embedder=embedder, dimensions=dimensions)
        await switch_alias(client, alias, name)
    if check:
        await _check_embedder(client, name, embedder=embedder, dimensions=dimensions)
    if payload_indexes:
        await _index_payload(client, name)
    return name


async def next_collection(
    client: AsyncQdrantClient, *, alias: str, embedder: str, dimensions: int, payload_indexes: bool
) -> str:
    """Return the collection after the alias's, made when there is none: what a re-index fills."""
    behind = await collection_behind(client, alias) or f"{alias}-0"
    name = f"{alias}-{int(behind.rpartition('-')[2]) + 1}"
    if not await client.collection_exists(name):
        await _create(client, name, embedder=embedder, dimensions=dimensions)
    await _check_embedder(client, name, embedder=embedder, dimensions=dimensions)
    if payload_indexes:
        await _index_payload(client, name)
    return name


async def collections_of(client: AsyncQdrantClient, alias: str) -> dict[str, str | None]:
    """Return the alias's collections, present, former and next ones, each with the embedder that fills it."""
    known = (await client.get_collections()).collections
    names = sorted(one.name for one in known if re.fullmatch(rf"{re.escape(alias)}-\d+", one.name))
    return {name: await _embedder_of(client, name) for name in names}


async def followed(client: AsyncQdrantClient, *, alias: str, present: str, embedder: str) -> str:
    """Return the collection to read: the alias's, unless another embedder filled it; then the present one."""
    behind = await collection_behind(client, alias)
    if behind is None or behind == present:
        return present
    return behind if await _embedder_of(client, behind) == embedder else present


async def check_behind(client: AsyncQdrantClient, *, alias: str, embedder: str, dimensions: int) -> None:
    """Raise EmbedderMismatch where another embedder filled the collection behind the alias."""
    behind = await collection_behind(client, alias)
    if behind is not None:
        await _check_embedder(client, behind, embedder=embedder, dimensions=dimensions)


async def drop_former(client: AsyncQdrantClient, *, alias: str, keep: Collection[str]) -> None:
    """Remove the alias's collections that are not to be kept."""
    for name in await collections_of(client, alias):
        if name not in keep:
            await client.delete_collection(name)


async def collection_behind(client: AsyncQdrantClient, alias: str) -> str | None:
    """Return the name of the collection that the alias stands for."""
    known = (await client.get_aliases()).aliases
    return next((one.collection_name for one in known if one.alias_name == alias), None)


async def switch_alias(client: AsyncQdrantClient, alias: str, collection: str) -> None:
    """Let the alias stand for the collection: one call, so that no reader finds it pointing nowhere."""
    operations: list[models.CreateAliasOperation | models.DeleteAliasOperation] = []
    if await collection_behind(client, alias) is not None:
        operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
    new = models.CreateAlias(collection_name=collection, alias_name=alias)
    operations.append(models.CreateAliasOperation(create_alias=new))
    await client.update_collection_aliases(change_aliases_operations=operations)


async def _create(client: AsyncQdrantClient, name: str, *, embedder: str, dimensions: int) -> None:
    try:
        await client.create_collection(
            name,
            vectors_config={DENSE: models.VectorParams(size=dimensions, distance=models.Distance.COSINE)},
            sparse_vectors_config={TERMS: models.SparseVectorParams(modifier=models.Modifier.IDF)},
            metadata={"embedder": embedder},
        )
    except UnexpectedResponse:
        # Another replica that boots at the same moment may have been first.
        if not await client.collection_exists(name):
            raise


async def _index_payload(client: AsyncQdrantClient, name: str) -> None:
    for field, schema in PAYLOAD_INDEXES.items():
        await client.create_payload_index(name, field, schema, wait=True)


async def _embedder_of(client: AsyncQdrantClient, name: str) -> str | None:
    recorded = ((await client.get_collection(name)).config.metadata or {}).get("embedder")
    return None if recorded is None else str(recorded)


async def _check_embedder(client: AsyncQdrantClient, name: str, *, embedder: str, dimensions: int) -> None:
    config = (await client.get_collection(name)).config
    recorded = (config.metadata or {}).get("embedder")
    if recorded != embedder:
        raise EmbedderMismatch(
            f"collection {name} holds vectors of {recorded or 'an unnamed embedder'}, this process embeds with "
            f"{embedder}: use the recorded embedder, or run `ingest reindex` with the new one"
        )
    vectors = config.params.vectors
    size = vectors[DENSE].size if isinstance(vectors, dict) else None
    if size != dimensions:
        raise EmbedderMismatch(f"collection {name} holds {size} dimensions, {embedder} gives {dimensions}")
