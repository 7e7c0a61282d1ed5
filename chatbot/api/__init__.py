"""HTTP in, server-sent events out: routes, authentication, problem documents, the OpenAI-compatible calls, the page.

A route decides nothing about an answer: it opens a turn (`chatbot.turn`) and reads the answer's stream.
"""

from chatbot.api.local_identity import AUDIENCE, ISSUER, LocalSigner, demo_signer, key_pair, write_secret
from chatbot.api.problems import install_problems
from chatbot.api.rate_limit_headers import headers_now
from chatbot.api.routes import ROUTERS
from chatbot.api.routes.demo import demo_router
from chatbot.api.routes.openai import FORMATS

__all__ = [
    "AUDIENCE",
    "FORMATS",
    "ISSUER",
    "ROUTERS",
    "LocalSigner",
    "demo_router",
    "demo_signer",
    "headers_now",
    "install_problems",
    "key_pair",
    "write_secret",
]
