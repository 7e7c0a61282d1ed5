"""LangChain's default ingestion of a folder of text files into embedded Qdrant: `FOLDER WEIGHTS STORE`, one JSON line.

The splitter, the embedder and the store are what their constructors give; the clock runs from the first file read to
the last point written, with the model loaded before.
"""

import json
import sys
import time

from langchain_community.document_loaders import DirectoryLoader, TextLoader
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_qdrant import QdrantVectorStore
from langchain_text_splitters import RecursiveCharacterTextSplitter


def main(folder: str, weights: str, store: str) -> None:
    """Ingest, and print what it took."""
    embeddings = HuggingFaceEmbeddings(model_name=weights)
    embeddings.embed_query("warm up")
    began = time.perf_counter()
    loaded = DirectoryLoader(folder, glob="**/*.txt", loader_cls=TextLoader, loader_kwargs={"encoding": "utf-8"}).load()
    pieces = RecursiveCharacterTextSplitter().split_documents(loaded)
    QdrantVectorStore.from_documents(pieces, embeddings, path=store, collection_name="bench")
    seconds = time.perf_counter() - began
    texts = [piece.page_content for piece in pieces]
    print(json.dumps({"seconds": seconds, "texts": texts}))  # noqa: T201  its answer


if __name__ == "__main__":
    main(*sys.argv[1:])
