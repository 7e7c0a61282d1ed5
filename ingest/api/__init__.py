"""The documents API: routes, authentication, multipart uploads, problem documents, and the staff page."""

from ingest.api.multipart import MOST_FIELD_BYTES, MOST_FIELDS, Form
from ingest.api.problems import install_problems, problem
from ingest.api.routes import ROUTERS
from ingest.api.routes.demo import SignToken, demo_router

__all__ = [
    "MOST_FIELDS",
    "MOST_FIELD_BYTES",
    "ROUTERS",
    "Form",
    "SignToken",
    "demo_router",
    "install_problems",
    "problem",
]
