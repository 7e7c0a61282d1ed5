"""A certified OpenID Connect provider (npm `oidc-provider`, in node) on loopback, and a browser without scripts."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import anyio
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm

from tests.conftest import free_port

PACKAGES = Path(__file__).parents[1] / ".venv" / "npm"
NEEDS_PROVIDER = pytest.mark.skipif(
    shutil.which("node") is None or not (PACKAGES / "node_modules" / "oidc-provider").exists(),
    reason="scripts/test_parts installs it",
)
CLIENT, SECRET = "bank-pages", "a secret of: the tests + 100%25/"
KEY_ID = "of-the-tests"
PEOPLE: Mapping[str, Mapping[str, object]] = {
    "lee": {"tenant": "hanbit", "roles": ["customer"]},
    "kim": {"tenant": "hanbit", "roles": ["staff"]},
    "cho": {"tenant": "dusk", "roles": ["customer", "staff"]},
}
"""The accounts, and their claims in access tokens."""


def key_pair() -> tuple[RSAPrivateKey, dict[str, object]]:
    """Return a key, and the same key as the JSON web key that the provider signs with."""
    key = generate_private_key(65537, 2048)
    published = RSAAlgorithm.to_jwk(key, as_dict=True) | {"kid": KEY_ID, "use": "sig", "alg": "RS256"}
    del published["key_ops"]  # with only "sign", the provider could not verify its own id_token_hint
    return key, published


@dataclass(kw_only=True)
class Provider:
    """The running provider; `key` is its signing key."""

    issuer: str
    process: subprocess.Popen[str] = field(repr=False)
    key: RSAPrivateKey = field(repr=False)

    def settings(self, session_key: str = "k" * 32) -> dict[str, Any]:
        """Return the settings of a page that uses this provider."""
        return {"issuer": self.issuer, "client_id": CLIENT, "client_secret": SECRET, "session_key": session_key}

    def auth(self) -> dict[str, Any]:
        """Return the settings of an API that accepts its tokens."""
        return {"issuer": self.issuer, "jwks_url": f"{self.issuer}/jwks"}

    def environment(self, *roles: str) -> dict[str, str]:
        """Return the environment of a service that signs in here and accepts this issuer in addition to its first."""
        further = {**self.auth(), "audience": "bank-chatbot", "subject_prefix": "", "roles": roles}
        oidc = {f"OIDC__{name.upper()}": str(value) for name, value in self.settings().items()}
        return {"AUTH__ISSUERS": json.dumps([further]), "AUTH__ROLES": json.dumps(roles), **oidc}

    def signed(self, claims: Mapping[str, object], **header: str) -> str:
        """Return a token signed with this provider's key."""
        return jwt.encode({"iss": self.issuer, **claims}, self.key, "RS256", headers={"kid": KEY_ID, **header})

    def renewed(self) -> int:
        """Return the number of token renewals."""
        return int(httpx2.get(f"{self.issuer}/test/renewed").text)

    def let_tokens_last(self, seconds: float) -> None:
        """Set the lifetime of access tokens issued from now on."""
        httpx2.get(f"{self.issuer}/test/seconds", params={"are": seconds}).raise_for_status()

    async def stop_for(self, page: str) -> None:
        """Kill the provider, and wait until the service at this address reports it as unavailable."""
        self.stop()
        async with httpx2.AsyncClient(base_url=page) as http:
            while not (await http.get("/oidc/sign-in")).headers["location"].endswith("/?sign-in=unavailable"):
                await anyio.sleep(0.1)

    def stop(self) -> None:
        """Kill the provider."""
        self.process.kill()
        self.process.wait(10)


@contextmanager
def provider(*origins: str, logout_at: str | None = None, seconds: float = 300, sid: bool = True) -> Iterator[Provider]:
    """Run a provider for pages at these origins; it sends back-channel logouts to `logout_at`.

    Without `sid`, its ID tokens have no session id.
    """
    port, (key, jwk) = free_port(), key_pair()
    logout_fields = {"backchannel_logout_uri": f"{logout_at}/oidc/backchannel-logout"} if logout_at is not None else {}
    client = {
        "client_id": CLIENT,
        "client_secret": SECRET,
        "redirect_uris": [f"{origin}/oidc/callback" for origin in origins],
        "post_logout_redirect_uris": [f"{origin}/" for origin in origins],
        "grant_types": ["authorization_code", "refresh_token"],
        "backchannel_logout_session_required": bool(logout_fields),
        **logout_fields,
    }
    given = {
        "port": port,
        "jwks": {"keys": [jwk]},
        "clients": [client],
        "people": PEOPLE,
        "seconds": seconds,
        "sid": sid,
    }
    command = ["node", str(Path(__file__).with_suffix(".mjs")), str(PACKAGES), json.dumps(given)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  our own
    try:
        assert process.stdout is not None
        issuer = process.stdout.readline().strip()
        assert issuer, "the provider did not start"
        yield Provider(issuer=issuer, process=process, key=key)
    finally:
        process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


class Visitor:
    """A browser without scripts: it follows redirects, and fills in the provider's form."""

    def __init__(self, page: httpx2.AsyncClient) -> None:
        """`page` is a client for our service with a cookie jar."""
        self.page = page
        self.elsewhere = httpx2.AsyncClient(follow_redirects=False)

    async def close(self) -> None:
        await self.page.aclose()
        await self.elsewhere.aclose()

    async def begin(self, place: str = "") -> str:
        """Start a sign-in; return the URL that our service redirects to."""
        return str((await self.page.get("/oidc/sign-in", params={"place": place})).headers["location"])

    async def at_provider(self, url: str, who: str) -> str:
        """Sign in at the provider; return the URL that it redirects back to."""
        reply = await self.elsewhere.get(url)
        while not str(reply.headers.get("location", "")).startswith(str(self.page.base_url)):
            if reply.is_redirect:
                reply = await self.elsewhere.get(urljoin(str(reply.url), reply.headers["location"]))
            else:
                assert reply.status_code == 200, reply.text
                reply = await self.elsewhere.post(reply.url, data={"who": who})
        return str(reply.headers["location"])

    async def sign_in(self, who: str, place: str = "") -> httpx2.Response:
        """Sign in, and return our service's last reply."""
        return await self.page.get(await self.at_provider(await self.begin(place), who))

    async def sign_out_at(self, url: str) -> httpx2.Response:
        """Confirm the sign-out at the provider."""
        asked = await self.elsewhere.get(url)
        fields = dict(re.findall(r'name="(\w+)" value="(\w+)"', asked.text))
        action = re.findall(r'action="([^"]+)"', asked.text)[0]
        return await self.elsewhere.post(action, data={**fields, "logout": "yes"})
