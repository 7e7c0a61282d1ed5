"""The documents API: routes, authentication, problem documents, and the staff page."""

from ingest.api.problems import install_problems, problem
from ingest.api.routes import ROUTERS
from ingest.api.routes.demo import SignToken, demo_router

__all__ = ["ROUTERS", "SignToken", "demo_router", "install_problems", "problem"]
