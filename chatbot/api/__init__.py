"""HTTP in, server-sent events out: routes, authentication, problem documents, the OpenAI-compatible calls, the page.

A route decides nothing about an answer: it opens a turn (`chatbot.turns`) and reads the answer's stream.
"""

from chatbot.api.app import create_app, until_stopped
from chatbot.api.local_identity import AUDIENCE, ISSUER, LocalSigner, demo_signer, key_pair, write_secret

__all__ = [
    "AUDIENCE",
    "ISSUER",
    "LocalSigner",
    "create_app",
    "demo_signer",
    "key_pair",
    "until_stopped",
    "write_secret",
]
