"""The URLs of a model server's calls."""

import pytest
from yarl import URL

from knowledge.model_endpoint import call_address


@pytest.mark.parametrize(
    ("server", "call", "address"),
    [
        ("http://tei:80", "v1/embeddings", "http://tei:80/v1/embeddings"),
        ("http://tei:80/", "v1/embeddings", "http://tei:80/v1/embeddings"),
        ("https://api.openai.com/v1", "v1/embeddings", "https://api.openai.com/v1/embeddings"),
        ("https://gateway/team/v1/", "v1/rerank", "https://gateway/team/v1/rerank"),
        ("https://api.jina.ai/v1/rerank", "v1/rerank", "https://api.jina.ai/v1/rerank"),
        (
            "https://x.azure.com/deployments/e/embeddings?v=1",
            "v1/embeddings",
            "https://x.azure.com/deployments/e/embeddings?v=1",
        ),
        ("https://gateway/team?key=1", "v1/embeddings", "https://gateway/team/v1/embeddings?key=1"),
        ("http://tei:80/v1", "rerank", "http://tei:80/rerank"),
        ("http://gateway/rerank", "v1/rerank", "http://gateway/rerank/v1/rerank"),
        ("http://tei:80", "rerank", "http://tei:80/rerank"),
    ],
)
def test_an_address_may_name_the_version_or_the_call(server: str, call: str, address: str) -> None:
    assert call_address(URL(server), call) == URL(address)
