"""LlamaIndex's default ingestion of a folder of text files into embedded Qdrant: `FOLDER WEIGHTS STORE`, one JSON line.

The splitter, the embedder and the store are what their constructors give; the clock runs from the first file read to
the last point written, with the model loaded before.
"""

import json
import sys
import time

from llama_index.core import SimpleDirectoryReader, StorageContext, VectorStoreIndex
from llama_index.core.schema import MetadataMode
from llama_index.core.settings import Settings
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient


def main(folder: str, weights: str, store: str) -> None:
    """Ingest, and print what it took."""
    embeddings = HuggingFaceEmbedding(model_name=weights)
    embeddings.get_query_embedding("warm up")
    began = time.perf_counter()
    loaded = SimpleDirectoryReader(folder, recursive=True).load_data()
    vectors = QdrantVectorStore(collection_name="bench", client=QdrantClient(path=store))
    into = StorageContext.from_defaults(vector_store=vectors)
    VectorStoreIndex.from_documents(loaded, storage_context=into, embed_model=embeddings)
    seconds = time.perf_counter() - began
    pieces = Settings.node_parser.get_nodes_from_documents(loaded)
    texts = [piece.get_content(metadata_mode=MetadataMode.EMBED) for piece in pieces]
    print(json.dumps({"seconds": seconds, "texts": texts}))  # noqa: T201  its answer


if __name__ == "__main__":
    main(*sys.argv[1:])
