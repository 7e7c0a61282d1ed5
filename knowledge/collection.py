"""The collection: what it is called, what it holds, and which embedder filled it.

Readers only know the alias. A re-index fills the next collection behind their back and switches the alias in one call.
"""

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
    client: AsyncQdrantClient, *, alias: str, embedder: str, dimensions: int, payload_indexes: bool
) -> str:
    """Return the collection behind the alias, made when there is none; raise EmbedderMismatch on another's vectors."""
    name = await collection_behind(client, alias)
    if name is None:
        name = f"{alias}-1"
        if not await client.collection_exists(name):
            await _create(client, name, embedder=embedder, dimensions=dimensions)
        await switch_alias(client, alias, name)
    await _check_embedder(client, name, embedder=embedder, dimensions=dimensions)
    if payload_indexes:
        for field, schema in PAYLOAD_INDEXES.items():
            await client.create_payload_index(name, field, schema, wait=True)
    return name


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


async def _check_embedder(client: AsyncQdrantClient, name: str, *, embedder: str, dimensions: int) -> None:
    config = (await client.get_collection(name)).config
    recorded = (config.metadata or {}).get("embedder")
    if recorded != embedder:
        raise EmbedderMismatch(
            f"collection {name} holds vectors of {recorded or 'an unnamed embedder'}, this process embeds with "
            f"{embedder}: use the recorded embedder or rebuild the index"
        )
    vectors = config.params.vectors
    size = vectors[DENSE].size if isinstance(vectors, dict) else None
    if size != dimensions:
        raise EmbedderMismatch(f"collection {name} holds {size} dimensions, {embedder} gives {dimensions}")
