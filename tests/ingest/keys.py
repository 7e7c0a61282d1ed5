"""A signing key of the test's own, and tokens signed with it."""

import time
from collections.abc import Callable
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

ISSUER = "http://localhost/test"


def key_and_token(folder: Path) -> tuple[Callable[..., str], Path]:
    """Return a maker of tokens (subject, roles…, tenant=) and the file of the public key that checks them."""
    key = generate_private_key(SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    file = folder / "key.pub"
    file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))

    def token(sub: str, *roles: str, tenant: str = "hanbit") -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": "bank-chatbot", "sub": sub, "tenant": tenant, "iat": now, "exp": now + 600}
        return jwt.encode(claims | {"roles": list(roles), "groups": []}, private, algorithm="ES256")

    return token, file
