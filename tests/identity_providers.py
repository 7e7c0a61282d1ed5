"""Identity providers with the claims and key sets of Keycloak, Entra ID and Okta, and with test keys.

Of the claims that each documents for an access token, those that say who it is for and about; docs/identity.md has the
claim maps for them.
"""

import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import RSAAlgorithm

STAFF_GROUP, APPROVERS_GROUP = "3d8f4a52-7e0b-4c0f-9d3a-6b1d2e4f5a60", "9c1b2a3d-4e5f-4061-8a7b-1c2d3e4f5a6b"
OKTA_ROLES = "https://bank.example/roles"


@dataclass(frozen=True)
class IdentityProvider:
    """A provider: its issuer, the id of its key, and one person's claims."""

    issuer: str
    key_id: str
    claims: dict[str, Any]

    def key(self) -> RSAPrivateKey:
        return rsa_key(self.issuer)

    def pem(self) -> bytes:
        return self.key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def token(self, **changed: object) -> str:
        """Return a token valid for an hour, with changed claims; None omits a claim."""
        return self.signed(self.key(), self.key_id, changed)

    def signed(self, key: RSAPrivateKey, key_id: str, changed: Mapping[str, object] = {}) -> str:
        """Return a token signed with the given key and key id."""
        now = int(time.time())
        given = {"iss": self.issuer, "iat": now, "exp": now + 3600, **self.claims, **changed}
        claims = {name: value for name, value in given.items() if value is not None}
        header = {"typ": "JWT", "kid": key_id}
        # Encoded as bytes, because `jwt.encode` rejects invalid claims.
        return jwt.PyJWS().encode(json.dumps(claims).encode(), key, algorithm="RS256", headers=header)

    def published(self) -> dict[str, object]:
        """Return a key set whose signing key has no `alg` (like Entra's), with an encryption key (like Keycloak's)."""
        public = RSAAlgorithm.to_jwk(self.key().public_key(), as_dict=True)
        signing = {**public, "kid": self.key_id, "use": "sig"}
        encrypting = {**public, "kid": f"{self.key_id}-enc", "use": "enc", "alg": "RSA-OAEP"}
        return {"keys": [encrypting, signing]}


@cache
def rsa_key(whose: str) -> RSAPrivateKey:  # noqa: ARG001  the cache key
    return generate_private_key(public_exponent=65537, key_size=2048)


KEYCLOAK = IdentityProvider(
    issuer="https://sso.bank.example/realms/bank",
    key_id="Wq1yZ0Xw3pT7",
    claims={
        "aud": ["bank-chatbot", "account"],
        "sub": "f5c1a9d2-0c7e-4f5b-9a1e-7b6c5d4e3f2a",
        "typ": "Bearer",
        "realm_access": {"roles": ["offline_access", "chat-customer", "uma_authorization"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "preferred_username": "lee",
        "groups": ["/private-banking"],
    },
)
ENTRA = IdentityProvider(
    issuer="https://login.microsoftonline.com/0b5a2c1e-5d1f-4a86-9c57-3f1f0c6a7d10/v2.0",
    key_id="T1St-dLTvyWRgxB_676u8krXS-I",
    claims={
        "aud": "5a0c7a7e-3c3d-4b0e-8f4e-0d7d6f2f9b11",
        "groups": [STAFF_GROUP, "0f0e0d0c-0b0a-4908-8706-050403020100"],
        "name": "Kim Staff",
        "oid": "8e7d6c5b-4a39-4281-9706-f5e4d3c2b1a0",
        "preferred_username": "kim@bank.example",
        "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
        "tid": "0b5a2c1e-5d1f-4a86-9c57-3f1f0c6a7d10",
        "ver": "2.0",
    },
)
OKTA = IdentityProvider(
    issuer="https://bank.okta.example/oauth2/aus4k2j8l0",
    key_id="1uuXq2m0nY",
    claims={
        "ver": 1,
        "aud": "api://bank-chatbot",
        "uid": "00ujmkLgagxeRrAg20g3",
        "sub": "park@bank.example",
        "groups": ["Everyone", "Seoul branch"],
        OKTA_ROLES: ["Chat Approvers"],
    },
)


@dataclass
class Published:
    """The URLs of the providers' key sets by issuer, and the issuers that are away."""

    urls: dict[str, str] = field(default_factory=dict)
    away: set[str] = field(default_factory=set)
    fetched: list[str] = field(default_factory=list)


@asynccontextmanager
async def publishing(*providers: IdentityProvider) -> AsyncGenerator[Published]:
    """Serve the key sets on loopback."""
    served = Published()

    async def serve(request: web.Request) -> web.Response:
        provider = providers[int(request.match_info["number"])]
        served.fetched.append(provider.issuer)
        return web.Response(status=503) if provider.issuer in served.away else web.json_response(provider.published())

    app = web.Application()
    app.router.add_get("/{number}/keys", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    served.urls = {each.issuer: f"http://127.0.0.1:{port}/{number}/keys" for number, each in enumerate(providers)}
    yield served
    await runner.cleanup()
