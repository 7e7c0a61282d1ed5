"""Only tokens that the issuer signed, for our audience, within their time are accepted."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import anyio
import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from knowledge.access import EVERY_CUSTOMER
from knowledge.identity.errors import KeysUnavailable, TokenRefused
from knowledge.identity.issuers import AuthSettings
from knowledge.identity.tokens import Authenticator, Jwks, KeyFile
from tests.clock import Clock

pytestmark = pytest.mark.anyio

ISSUER = "https://issuer.test"
SETTINGS = AuthSettings(issuer=ISSUER, audience="bank-chatbot", jwks_url="http://127.0.0.1/unused")
KEY = generate_private_key(SECP256R1())


def public_pem(key: EllipticCurvePrivateKey = KEY) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def claims(**changed: object) -> dict[str, object]:
    now = int(time.time())
    good: dict[str, object] = {
        "iss": ISSUER,
        "aud": "bank-chatbot",
        "sub": "lee",
        "tenant": "hanbit",
        "roles": ["customer"],
        "groups": ["vip"],
        "iat": now,
        "exp": now + 600,
    }
    return {name: value for name, value in (good | changed).items() if value is not None}


def signed(key: EllipticCurvePrivateKey = KEY, *, kid: str | None = None, **changed: object) -> str:
    return sign(claims(**changed), key, kid)


def sign(claims: dict[str, object], key: EllipticCurvePrivateKey = KEY, kid: str | None = None) -> str:
    return jwt.encode(claims, key, algorithm="ES256", headers={"kid": kid} if kid else None)


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator({ISSUER: KeyFile(public_pem())}, SETTINGS)


async def test_a_good_token_names_its_customer(authenticator: Authenticator) -> None:
    principal = await authenticator.verify(signed())
    assert (principal.tenant, principal.sub) == ("hanbit", "lee")
    assert principal.roles == {"customer"}
    assert principal.groups == {"vip", EVERY_CUSTOMER}


async def test_a_minute_of_clock_difference_is_forgiven_and_more_is_not(authenticator: Authenticator) -> None:
    now = int(time.time())
    await authenticator.verify(signed(exp=now - 50))
    with pytest.raises(TokenRefused, match="expired"):
        await authenticator.verify(signed(exp=now - 70))


async def test_a_token_is_checked_by_the_database_time() -> None:
    store = Clock(now=time.time() + 3 * 3600)  # this machine is three hours behind
    authenticator = Authenticator({ISSUER: KeyFile(public_pem())}, SETTINGS, now=store)
    now = int(store.now)
    assert (await authenticator.verify(signed(iat=now, exp=now + 600))).sub == "lee"
    for times in (
        {"exp": int(time.time()) + 600},
        {"iat": now + 70, "exp": now + 600},
        {"nbf": now + 70, "exp": now + 600},
    ):
        with pytest.raises(TokenRefused):
            await authenticator.verify(sign(claims(**{"iat": now, **times})))


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://somebody.else"},
        {"aud": "another-service"},
        {"sub": None},
        {"tenant": None},
        {"tenant": "han{bit}"},
        {"sub": "l" * 201},
        {"exp": None},
        {"exp": "9999999999"},
        pytest.param({"exp": int(time.time()) + 93_600}, id="exp after more than a day"),
        {"nbf": "0"},
        {"exp": float("nan")},
        {"iat": 0},
        {"iat": None},
        {"sub": "le\ud800e"},
        {"tenant": "han\nbit"},
        {"groups": ["v" * 101]},
        {"groups": [f"g{n}" for n in range(201)]},
    ],
    ids=lambda changed: ascii(changed)[:60],
)
async def test_a_token_with_a_wrong_claim_is_refused(
    authenticator: Authenticator, changed: Mapping[str, object]
) -> None:
    with pytest.raises(TokenRefused):
        await authenticator.verify(sign(claims(**changed)))


def with_public_key_as_secret() -> str:
    """Return a token whose HMAC secret is the public key."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    body = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
    mac = base64.urlsafe_b64encode(hmac.new(public_pem(), body.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    return f"{body}.{mac}"


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (lambda: "an opaque token", "is not a JWT"),
        (lambda: signed(generate_private_key(SECP256R1())), "not signed with its issuer's key"),
        (lambda: sign(claims(aud="another-service")), "for another audience"),
        (lambda: sign(claims(aud=None)), "lacks one of the claims"),
        (lambda: jwt.encode(claims(), "", algorithm="none"), "algorithm is not accepted"),
        (with_public_key_as_secret, "algorithm is not accepted"),
    ],
    ids=["opaque", "another key", "another audience", "no audience", "unsigned", "the public key as a secret"],
)
async def test_a_refused_token_has_its_reason(
    authenticator: Authenticator, token: Callable[[], str], reason: str
) -> None:
    with pytest.raises(TokenRefused, match=reason):
        await authenticator.verify(token())


@dataclass
class Provider:
    """A real identity provider's JWKS address, whose keys and health the test decides."""

    keys: dict[str | None, EllipticCurvePrivateKey] = field(default_factory=dict)
    fetches: int = 0
    down: bool = False
    body: bytes | None = None
    url: str = ""
    may_answer: anyio.Event | None = None

    async def serve(self, _request: web.Request) -> web.Response:
        self.fetches += 1
        if self.may_answer is not None:
            await self.may_answer.wait()
        if self.down:
            return web.Response(status=503)
        if self.body is not None:
            return web.Response(body=self.body, content_type="application/json")
        algorithm = jwt.get_algorithm_by_name("ES256")
        published = [
            {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "ES256", "use": "sig"}
            for kid, key in self.keys.items()
        ]
        return web.json_response({"keys": published})


@pytest.fixture
async def provider() -> AsyncGenerator[Provider]:
    served = Provider(keys={"k1": KEY})
    app = web.Application()
    app.router.add_get("/jwks", served.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks"
    yield served
    await runner.cleanup()


@pytest.fixture
def clock() -> Clock:
    return Clock(0.0)


@pytest.fixture
async def fetching(provider: Provider, clock: Clock) -> AsyncGenerator[Authenticator]:
    """An authenticator that fetches the provider's keys."""
    settings = AuthSettings(issuer=ISSUER, jwks_url=provider.url)
    async with aiohttp.ClientSession() as http:
        yield Authenticator({ISSUER: Jwks(http, provider.url, settings, clock=clock)}, settings)


async def test_requests_during_a_fetch_wait_for_its_keys(
    provider: Provider, fetching: Authenticator, clock: Clock
) -> None:
    rotated = generate_private_key(SECP256R1())
    for fetches, kid, key in ((1, "k1", KEY), (2, "k2", rotated)):  # of a replica that has just started, and later
        provider.keys[kid], provider.may_answer = key, anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetching.verify, signed(key, kid=kid))
            while provider.fetches < fetches:
                await anyio.sleep(0.01)
            tasks.start_soon(fetching.verify, signed(key, kid=kid))
            await anyio.wait_all_tasks_blocked()
            provider.may_answer.set()
        clock.now += 31
    assert provider.fetches == 2


async def test_a_rotated_key_is_fetched_but_not_for_every_guess(
    provider: Provider, fetching: Authenticator, clock: Clock
) -> None:
    await fetching.verify(signed(kid="k1"))
    provider.keys["k2"] = generate_private_key(SECP256R1())
    for _ in range(5):
        with pytest.raises(TokenRefused):
            await fetching.verify(signed(provider.keys["k2"], kid="k2"))
    assert provider.fetches == 1
    clock.now += 31
    await fetching.verify(signed(provider.keys["k2"], kid="k2"))
    assert provider.fetches == 2


@pytest.mark.parametrize(("published", "named"), [("k1", None), (None, "k1"), (None, None)])
async def test_a_key_published_alone_needs_no_name(
    provider: Provider, fetching: Authenticator, clock: Clock, published: str | None, named: str | None
) -> None:
    provider.keys = {published: KEY}
    await fetching.verify(signed(kid=named))
    rotated = generate_private_key(SECP256R1())
    provider.keys = {published: rotated}
    clock.now += 31
    await fetching.verify(signed(rotated, kid=named))


@pytest.mark.parametrize(("published", "named"), [("k1", None), (None, "k1"), ("k1", "k3")])
async def test_a_key_published_beside_another_needs_its_name(
    provider: Provider, fetching: Authenticator, published: str | None, named: str | None
) -> None:
    provider.keys = {published: KEY, "k2": generate_private_key(SECP256R1())}
    with pytest.raises(TokenRefused):
        await fetching.verify(signed(kid=named))


async def test_a_key_with_a_reused_name_is_fetched_but_not_for_every_forgery(
    provider: Provider, fetching: Authenticator, clock: Clock
) -> None:
    await fetching.verify(signed(kid="k1"))
    provider.keys["k1"] = generate_private_key(SECP256R1())
    clock.now += 31
    for _ in range(5):
        await fetching.verify(signed(provider.keys["k1"], kid="k1"))
        with pytest.raises(TokenRefused):
            await fetching.verify(signed(kid="k1"))
    assert provider.fetches == 2


async def test_a_key_that_encrypts_signs_nothing(provider: Provider, fetching: Authenticator) -> None:
    other = generate_private_key(SECP256R1())
    to_jwk = jwt.get_algorithm_by_name("ES256").to_jwk
    published = [
        {**to_jwk(key.public_key(), as_dict=True), "kid": "k1", "use": use}
        for key, use in ((KEY, "sig"), (other, "enc"))
    ]
    provider.body = json.dumps({"keys": published}).encode()
    await fetching.verify(signed(kid="k1"))
    with pytest.raises(TokenRefused):
        await fetching.verify(signed(other, kid="k1"))


async def test_tokens_stay_valid_during_an_outage_of_the_provider(
    provider: Provider, fetching: Authenticator, clock: Clock
) -> None:
    await fetching.verify(signed(kid="k1"))
    provider.down = True
    clock.now += 4000
    await fetching.verify(signed(kid="k1"))


async def test_keys_are_not_fetched_from_a_redirect(provider: Provider) -> None:
    async def lead_away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"location": provider.url})

    app = web.Application()
    app.router.add_get("/jwks", lead_away)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        url = str(server.make_url("/jwks"))
        settings = AuthSettings(issuer=ISSUER, jwks_url=url)
        with pytest.raises(KeysUnavailable):
            await Authenticator({ISSUER: Jwks(http, url, settings)}, settings).verify(signed(kid="k1"))
    assert provider.fetches == 0


async def test_a_flood_of_unknown_key_ids_is_one_fetch(
    provider: Provider, fetching: Authenticator, clock: Clock
) -> None:
    await fetching.verify(signed(kid="k1"))
    clock.now += 31
    refused = 0

    async def guess(n: int) -> None:
        nonlocal refused
        with pytest.raises(TokenRefused):
            await fetching.verify(signed(kid=f"guess-{n}"))
        refused += 1

    async with anyio.create_task_group() as tasks:
        for n in range(300):
            tasks.start_soon(guess, n)
    assert (refused, provider.fetches) == (300, 2)


async def test_without_keys_the_provider_is_requested_once_a_second(
    provider: Provider, fetching: Authenticator, clock: Clock
) -> None:
    provider.down = True
    clock.now = 10.0
    for _ in range(20):
        with pytest.raises(KeysUnavailable):
            await fetching.verify(signed(kid="k1"))
    assert provider.fetches == 1
    provider.down = False
    clock.now += 1.1
    await fetching.verify(signed(kid="k1"))


async def test_concurrent_requests_wait_once_for_an_unresponsive_provider(
    provider: Provider, fetching: Authenticator, clock: Clock
) -> None:
    provider.down, provider.may_answer = True, anyio.Event()

    async def ask() -> None:
        with pytest.raises(KeysUnavailable):
            await fetching.verify(signed(kid="k1"))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)
        while not provider.fetches:
            await anyio.sleep(0.01)
        clock.now += 3
        provider.may_answer.set()
    assert provider.fetches == 1


async def test_a_cancelled_request_does_not_cancel_the_fetch(provider: Provider, fetching: Authenticator) -> None:
    provider.may_answer = anyio.Event()

    async def leave(leaving: anyio.CancelScope) -> None:
        with leaving:
            await fetching.verify(signed(kid="k1"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(leave, leaving := anyio.CancelScope())
        while not provider.fetches:
            await anyio.sleep(0.01)
        leaving.cancel()
        tasks.start_soon(fetching.verify, signed(kid="k1"))
        await anyio.wait_all_tasks_blocked()
        provider.may_answer.set()
    assert provider.fetches == 1


async def test_keys_expire_a_day_after_their_last_fetch(
    provider: Provider, fetching: Authenticator, clock: Clock
) -> None:
    await fetching.verify(signed(kid="k1"))
    provider.down = True
    clock.now += 86_000
    await fetching.verify(signed(kid="k1"))
    clock.now += 1_000
    with pytest.raises(KeysUnavailable):
        await fetching.verify(signed(kid="k1"))
    provider.down = False
    clock.now += 31
    await fetching.verify(signed(kid="k1"))


MALFORMED = [
    b"", b"[]", b"null", b"7", b'"keys"', b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [null, 7, "x", []]}',
    b'{"keys": [{}]}', b'{"keys": [{"kty": "EC"}]}', b'{"keys": [{"kty": "EC", "crv": "P-256", "x": 7, "y": 7}]}',
    b'{"keys": [{"kty": ["EC"], "kid": {}}]}', b'{"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}',
    b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}]}', b"\xff\xfe", b"[" * 100_000, b"{" * 2_000_000,
    b'{"keys": [{"kty": "EC", "crv": "P-256", "x": "\\ud800", "y": "AA", "kid": "k1"}]}',
    b'{"keys": [{"kty": "RSA", "n": "", "e": ""}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
async def test_a_malformed_key_set_is_treated_as_unavailable(
    provider: Provider, fetching: Authenticator, clock: Clock, body: bytes
) -> None:
    clock.now = 10.0
    provider.body = body
    with pytest.raises(KeysUnavailable):
        await fetching.verify(signed(kid="k1"))
    provider.body = None
    clock.now += 2
    await fetching.verify(signed(kid="k1"))
    provider.body = body
    clock.now += 4_000
    await fetching.verify(signed(kid="k1"))
    assert provider.fetches == 3
