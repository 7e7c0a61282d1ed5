"""The OpenAPI description of a service, with each route's summary from its docstring."""

import re
from typing import Any

from fastapi import FastAPI


class Api(FastAPI):
    """An application whose OpenAPI summaries are the first sentences of its routes' docstrings."""

    def openapi(self) -> dict[str, Any]:
        """Return the description; repeated calls return the same."""
        described = super().openapi()
        for operations in described["paths"].values():
            for operation in operations.values():
                operation["summary"] = re.split(r"(?<=\.)\s", operation["description"])[0]
        return described
