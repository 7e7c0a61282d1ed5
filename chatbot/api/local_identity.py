"""Tokens signed on this machine: the demo login of `make run`, `chatbot token`, and the tests. Never in production."""

import time
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from knowledge.identity import Principal

ISSUER = "http://localhost/demo"
AUDIENCE = "bank-chatbot"


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """Signs tokens (ES256) with the private key in a file."""

    key: str
    issuer: str = ISSUER
    audience: str = AUDIENCE

    def token(self, who: Principal, *, hours: float = 12) -> tuple[str, int]:
        """Return a token for `who` and its expiry in Unix seconds."""
        now = int(time.time())
        expires_at = now + int(hours * 3600)
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": who.sub,
            "tenant": who.tenant,
            "roles": sorted(who.roles),
            "groups": sorted(who.groups),
            "iat": now,
            "exp": expires_at,
        }
        return jwt.encode(claims, self.key, algorithm="ES256"), expires_at


def demo_signer(key_file: Path | None) -> LocalSigner | None:
    """Return the signer of the demo login, which exists only where DEMO_KEY_FILE allows it (`chatbot.settings`)."""
    return None if key_file is None else LocalSigner(key_file.read_text("ascii"))


def key_pair(folder: Path) -> tuple[Path, Path]:
    """Return the private and the public key file of a folder; create them first if they are missing (mode 600)."""
    private, public = folder / "demo-key.pem", folder / "demo-key.pub"
    if not (private.exists() and public.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        key = generate_private_key(SECP256R1())
        write_secret(private, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        write_secret(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def write_secret(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read; an existing file is replaced atomically."""
    unfinished = path.with_name(f"{path.name}.tmp")
    unfinished.touch(mode=0o600)
    unfinished.write_bytes(content)
    unfinished.replace(path)
