"""Attacks on sign-in: forged cookies and hosts, replies of other tabs, floods, a failing provider."""

import time
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import anyio
import pytest
from aiohttp import web
from redis.asyncio import Redis

from edge.sign_in import OidcSettings, SignInUnavailable
from edge.sign_in.provider import GrantRefused, Provider
from knowledge.bank import Banks
from knowledge.tls import TlsSettings
from tests.clock import Clock
from tests.conftest import free_port
from tests.constants import settings_with
from tests.edge.sign_in.pages import DUSK, ME, Pages, changed, logout, opened
from tests.oidc_provider import CLIENT, NEEDS_PROVIDER, provider
from tests.oidc_provider import Provider as Running

pytestmark = [pytest.mark.anyio, pytest.mark.services]


@NEEDS_PROVIDER
async def test_a_cookie_with_a_similar_name_is_ignored(pages: Pages) -> None:
    """Chromium lets any host of the bank's domain set the first two with Domain, and sends them to all hosts."""
    visitor = pages.visitor(DUSK)
    await visitor.sign_in("cho")
    (session_id,) = visitor.page.cookies.values()
    async with pages.client(pages.replicas[0], DUSK) as victim:
        for name in (b"\xa0__Host-session", b"\x85__Host-session", b"__Host-session\xa0", b"\x1c__Host-session"):
            planted = [(b"cookie", name + b"=" + session_id.encode())]
            assert (await victim.get(ME, headers=planted)).status_code == 401
            both = [(b"cookie", b"__Host-session=" + session_id.encode() + b"; " + name + b"=x")]
            assert (await victim.get(ME, headers=both)).status_code == 200


@NEEDS_PROVIDER
async def test_a_reply_to_another_tab_leaves_this_sign_in_pending(pages: Pages) -> None:
    visitor = pages.visitor()
    earlier = await visitor.begin()
    callback = await visitor.at_provider(await visitor.begin(), "kim")
    state = dict(part.split("=") for part in earlier.partition("?")[2].split("&"))["state"]
    assert (await visitor.page.get(changed(callback, state=state))).headers["location"] == "/?sign-in=refused"
    assert (await visitor.page.get(callback)).headers["location"] == "/"
    assert (await visitor.page.get(ME)).status_code == 200


@NEEDS_PROVIDER
async def test_a_failed_logout_can_be_retried(pages: Pages, redis: Redis) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    token = pages.provider.signed(logout(pages, sub="kim"))
    sessions = pages.replicas[0].state.services.sign_in._sessions
    index = sessions._key("of", "sub:kim")
    await redis.rename(index, f"{index}-kept")
    await redis.set(index, "no index: Redis refuses to read it")
    assert (await visitor.page.post("/oidc/backchannel-logout", data={"logout_token": token})).status_code == 503
    await redis.rename(f"{index}-kept", index)
    for expected in (200, 400):  # the provider retries it, then another party replays it
        reply = await visitor.page.post("/oidc/backchannel-logout", data={"logout_token": token})
        assert reply.status_code == expected
    assert (await visitor.page.get(ME)).status_code == 401


@NEEDS_PROVIDER
async def test_a_logout_token_ends_a_session_whose_id_token_named_no_session(redis_url: str, banks: Banks) -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    with provider(origin, sid=False) as at:
        async with opened(at, origin, redis_url, banks, session_key=uuid4().hex) as pages:
            kim, lee = pages.visitor(), pages.visitor()
            await kim.sign_in("kim")
            await lee.sign_in("lee")
            token = at.signed(logout(pages, sub="kim", sid="a session there"))
            reply = await kim.page.post("/oidc/backchannel-logout", data={"logout_token": token})
            assert reply.status_code == 200
            assert (await kim.page.get(ME)).status_code == 401
            assert (await lee.page.get("/oidc/session")).json()["name"] == "lee lee"


@NEEDS_PROVIDER
async def test_signing_out_while_the_store_is_away_leaves_no_cookie(running: Running, banks: Banks) -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    async with opened(running, origin, "redis://127.0.0.1:1/0", banks) as pages:
        visitor = pages.visitor()
        name = f"session-{origin.rpartition(':')[2]}"
        visitor.page.cookies.set(name, "x" * 43)
        reply = await visitor.page.post("/oidc/sign-out", headers={"origin": origin})
        assert reply.status_code == 503
        assert f'{name}=""; HttpOnly; Max-Age=0' in reply.headers["set-cookie"]


@NEEDS_PROVIDER
async def test_id_tokens_that_the_api_accepts_are_refused(
    running: Running, port: int, redis_url: str, banks: Banks
) -> None:
    origin = f"http://127.0.0.1:{port}"
    auth = {"audience": CLIENT, "tenant": "hanbit"}
    async with opened(running, origin, redis_url, banks, auth=auth, session_key=uuid4().hex) as pages:
        visitor = pages.visitor()
        callback = await visitor.at_provider(changed(await visitor.begin(), resource="urn:client"), "kim")
        assert (await visitor.page.get(callback)).headers["location"] == "/?sign-in=refused"


class Slow:
    """A provider that counts requests, and can be slow or fail."""

    def __init__(self) -> None:
        self.issuer = f"http://127.0.0.1:{free_port()}"
        self.seconds = 0.0
        self.fails = False
        self.error: object = "invalid_grant"
        self.requests = 0
        self.now_at_once = 0
        self.most_at_once = 0
        self.shown: tuple[object, object] = (None, None)

    async def metadata(self, _: web.Request) -> web.Response:
        self.requests += 1
        await anyio.sleep(self.seconds)
        where = {f"{name}_endpoint": f"{self.issuer}/{name}" for name in ("authorization", "token")}
        return web.json_response({"issuer": self.issuer, **where}, status=500 if self.fails else 200)

    async def token(self, request: web.Request) -> web.Response:
        self.shown = (request.headers.get("authorization"), (await request.post()).get("client_id"))
        self.now_at_once += 1
        self.most_at_once = max(self.most_at_once, self.now_at_once)
        await anyio.sleep(self.seconds)
        self.now_at_once -= 1
        return web.json_response({"error": self.error}, status=400)


@asynccontextmanager
async def slow(**changed: object) -> AsyncGenerator[tuple[Slow, Provider, Clock]]:
    at, clock = Slow(), Clock(0.0)
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", at.metadata)
    app.router.add_post("/token", at.token)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(at.issuer.rpartition(":")[2])).start()
    settings = settings_with(
        OidcSettings, **{"issuer": at.issuer, "client_id": CLIENT, "session_key": "k" * 32, "timeout": 1, **changed}
    )
    try:
        yield at, Provider(settings, TlsSettings().context(), clock=clock), clock
    finally:
        await runner.cleanup()


async def test_concurrent_sign_ins_request_the_metadata_once() -> None:
    async def begin(provider: Provider) -> None:
        try:
            await provider.authorization_url(state="s", nonce="n", verifier="v" * 64, redirect_uri="https://h/")
        except SignInUnavailable:
            refused.append(provider)

    refused: list[Provider] = []
    async with slow() as (at, provider, clock):
        at.seconds, at.fails = 0.2, True
        for n in range(2):
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(begin, provider)
            assert (at.requests, len(refused)) == (1, 20 * (n + 1))
        at.fails = False
        clock.now += 3
        await begin(provider)
        assert (at.requests, len(refused)) == (2, 40)


async def test_a_renewal_ends_before_its_claim_expires() -> None:
    async with slow() as (at, provider, _):
        at.seconds = 0.7  # for the metadata, and again for the tokens
        began = time.monotonic()
        with pytest.raises(SignInUnavailable):
            await provider.refresh_tokens("a token")
        assert time.monotonic() - began < 1.3


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        ("interaction_required", GrantRefused),  # Entra ID: a second factor is now required
        ("access_denied", GrantRefused),  # Auth0: the account is locked
        ("invalid_client", SignInUnavailable),
        ("temporarily_unavailable", SignInUnavailable),
        ({"code": 500}, SignInUnavailable),
    ],
)
async def test_only_refusals_of_the_grant_end_a_session(error: object, refusal: type[Exception]) -> None:
    async with slow() as (at, provider, _):
        at.error = error
        with pytest.raises(refusal):
            await provider.refresh_tokens("a token")


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ("", (None, CLIENT)),  # as the chart sets it
        (None, (None, CLIENT)),
        ("s:+%", (f"Basic {b64encode(f'{CLIENT}:s%3A%2B%25'.encode()).decode()}", None)),
    ],
)
async def test_a_client_without_a_secret_only_names_itself(secret: str | None, shown: tuple[object, object]) -> None:
    async with slow(client_secret=secret) as (at, provider, _):
        with pytest.raises(GrantRefused):
            await provider.refresh_tokens("a token")
        assert at.shown == shown


async def test_a_flood_of_invalid_codes_reaches_the_provider_slowly() -> None:
    async def try_one(provider: Provider) -> None:
        with pytest.raises((GrantRefused, SignInUnavailable)):
            await provider.exchange_code("none", verifier="v" * 64, redirect_uri="https://h/")

    async with slow() as (at, provider, _):
        await provider.metadata()
        at.seconds = 0.1
        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(try_one, provider)
        assert 1 <= at.most_at_once <= 8
