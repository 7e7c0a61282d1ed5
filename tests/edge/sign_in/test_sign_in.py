"""Sign-in at a certified provider through both real APIs: rejected replies, renewal, storage and end of sessions."""

import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import anyio
import pytest
from msgspec.structs import replace
from pydantic import ValidationError
from redis.asyncio import Redis

from edge import bind, listening
from edge.sign_in.sessions import Seal
from ingest.settings import Settings as StaffSettings
from knowledge.bank import Banks
from tests.conftest import free_port
from tests.edge.sign_in.pages import DUSK, ME, Pages, bearer_of, changed, logout, opened
from tests.every_route import addresses
from tests.oidc_provider import CLIENT, NEEDS_PROVIDER, Provider, provider

pytestmark = [pytest.mark.anyio, pytest.mark.services, NEEDS_PROVIDER]


ISSUER = "https://login.bank.example"


async def test_a_session_grants_what_its_token_grants(pages: Pages) -> None:
    visitor = pages.visitor()
    assert (await visitor.page.get(ME)).status_code == 401
    reply = await visitor.sign_in("kim", place="/review/terms/2")
    assert (reply.status_code, reply.headers["location"]) == (303, "/#/review/terms/2")
    me = (await visitor.page.get(ME)).json()
    assert (me["sub"], me["tenant"], me["roles"]) == ("kim", "hanbit", ["staff"])
    session = (await visitor.page.get("/oidc/session")).json()
    assert session["name"] == "kim kim"
    another, again = pages.visitor(), pages.visitor(replica=1)
    await another.sign_in("lee")
    await again.sign_in("kim")
    assert (await again.page.get("/oidc/session")).json() == session
    person = (await another.page.get("/oidc/session")).json()["person"]
    assert person != session["person"]
    assert re.fullmatch("[0-9a-f]{16}", person)
    assert await pages.elsewhere(visitor) == 200
    (cookie,) = visitor.page.cookies.jar
    assert len(str(cookie.value)) == 43, "32 random bytes"
    assert "HttpOnly" in str(reply.headers.get_list("set-cookie"))
    async with pages.client(pages.chat) as chat:
        chat.cookies = visitor.page.cookies
        assert (await chat.get("/v1/models")).status_code == 200


async def test_a_cookie_over_tls_has_the_host_prefix(pages: Pages) -> None:
    visitor = pages.visitor(DUSK)
    reply = await visitor.page.get(await visitor.at_provider(await visitor.begin(), "cho"))
    (cookie,) = [each for each in reply.headers.get_list("set-cookie") if "__Host-session" in each]
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


@pytest.mark.parametrize(("origin", "who", "status"), [(DUSK, "cho", 200), (DUSK, "kim", 401), (None, "cho", 200)])
async def test_a_person_signs_in_only_at_their_banks_host(
    pages: Pages, origin: str | None, who: str, status: int
) -> None:
    visitor = pages.visitor(origin)
    reply = await visitor.sign_in(who)
    assert reply.headers["location"] == ("/" if status == 200 else "/?sign-in=refused")
    assert (await visitor.page.get(ME)).status_code == status


async def test_a_stolen_cookie_is_invalid_at_another_host(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    (cookie,) = visitor.page.cookies.jar
    stolen = str(cookie.value)
    for origin, name in ((DUSK, "__Host-session"), (pages.origin.replace("127.0.0.1", "localhost"), cookie.name)):
        async with pages.client(pages.replicas[0], origin) as thief:
            headers = {"cookie": f"{name}={stolen}"}
            assert (await thief.get(ME, headers=headers)).status_code == 401
            assert (await thief.get("/oidc/session", headers=headers)).json() == {"name": None}
    assert (await visitor.page.get(ME)).status_code == 200


@pytest.mark.parametrize(
    "parameters", [{"state": "x" * 43}, {"iss": "https://other.example"}, {"code": "x" * 43}, {"state": ""}]
)
async def test_a_reply_to_another_sign_in_is_refused(pages: Pages, parameters: dict[str, str]) -> None:
    visitor = pages.visitor()
    callback = await visitor.at_provider(await visitor.begin(), "kim")
    reply = await visitor.page.get(changed(callback, **parameters))
    assert reply.headers["location"] == "/?sign-in=refused"
    assert (await visitor.page.get(ME)).status_code == 401


@pytest.mark.parametrize(
    ("parameters", "why"),
    [({"nonce": "x" * 43}, "nonce"), ({"resource": "urn:other"}, "audience"), ({"code_challenge": "x" * 43}, "PKCE")],
)
async def test_tokens_for_something_else_are_refused(pages: Pages, parameters: dict[str, str], why: str) -> None:
    visitor = pages.visitor()
    callback = await visitor.at_provider(changed(await visitor.begin(), **parameters), "kim")
    assert "code=" in callback, "the provider has nothing against it"
    assert (await visitor.page.get(callback)).headers["location"] == "/?sign-in=refused", why
    assert (await visitor.page.get(ME)).status_code == 401


async def test_a_sign_in_completes_at_its_host_within_ten_minutes(pages: Pages) -> None:
    pages.provider.let_tokens_last(3600)
    visitor = pages.visitor()
    callback = await visitor.at_provider(await visitor.begin(), "kim")
    (begun,) = visitor.page.cookies.values()
    async with pages.client(pages.replicas[0], DUSK) as other:
        headers = {"cookie": f"__Host-sign-in={begun}"}
        reply = await other.get(f"/oidc/callback?{urlsplit(callback).query}", headers=headers)
        assert reply.headers["location"] == "/?sign-in=refused"
    pages.clock.now += 601
    assert (await visitor.page.get(callback)).headers["location"] == "/?sign-in=refused"


OTHER_SITES: list[dict[str, str]] = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {},
]


async def test_another_site_reads_and_changes_nothing_by_a_cookie(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    for headers in OTHER_SITES:
        for path in ("/v1/documents/terms/versions/1/approve", "/oidc/sign-out"):
            refused = await visitor.page.post(path, headers=headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden"), headers
            assert "own page" in refused.json()["detail"]
    for site in ("cross-site", "same-site"):
        for path in (ME, "/oidc/session"):
            assert (await visitor.page.get(path, headers={"sec-fetch-site": site})).status_code == 403
    assert (await visitor.page.get(ME)).status_code == 200


async def test_no_address_of_either_api_takes_a_cookie_from_another_site(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    for app in (pages.replicas[0], pages.chat):
        for address in addresses(app):
            if address.method in {"GET", "HEAD"} or address.path.endswith("backchannel-logout"):
                continue
            async with pages.client(app) as http:
                http.cookies = visitor.page.cookies
                path = re.sub(r"\{\w+\}", "1", address.path)
                reply = await http.request(address.method, path, headers={"origin": "https://evil.example"})
            assert reply.status_code == 403, f"{address}: {reply.text}"
            assert "own page" in reply.text, address


async def test_a_token_takes_precedence_over_the_cookie(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    path = "/v1/documents/terms/versions/1/approve"
    for ours in ({"origin": pages.origin}, {"sec-fetch-site": "same-origin"}):
        detail = (await visitor.page.post(path, headers=ours)).json()["detail"]
        assert detail == "only an approver may decide about versions"
    bearer = bearer_of(pages.provider)
    assert (await visitor.page.get(ME, headers=bearer)).json()["sub"] == "park"
    assert (await visitor.page.get(ME, headers={"authorization": "Bearer nonsense"})).status_code == 401


async def test_a_token_is_renewed_once_across_replicas(pages: Pages) -> None:
    pages.provider.let_tokens_last(120)
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    before = pages.provider.renewed()
    assert await pages.elsewhere(visitor) == 200
    assert pages.provider.renewed() == before, "it is good for two minutes"
    pages.clock.now += 100  # within the last half minute
    statuses: list[int] = []

    async def ask(replica: int) -> None:
        statuses.append(await pages.elsewhere(visitor, replica))

    async with anyio.create_task_group() as group:
        for n in range(12):
            group.start_soon(ask, n % 2)
    assert statuses == [200] * 12
    assert pages.provider.renewed() == before + 1
    # The refresh token rotates, so the second renewal works only if the first one's token was stored.
    pages.clock.now += 15
    assert await pages.elsewhere(visitor) == 200
    assert pages.provider.renewed() == before + 2


async def test_an_outdated_session_changes_nothing(pages: Pages) -> None:
    pages.provider.let_tokens_last(120)
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    (session_id,) = visitor.page.cookies.values()
    sign_in = pages.replicas[0].state.services.sign_in
    before = await sign_in.session(session_id, urlsplit(pages.origin).netloc)
    pages.provider.let_tokens_last(3600)
    pages.clock.now += 100
    assert await pages.elsewhere(visitor) == 200
    renewed = pages.provider.renewed()
    assert (await sign_in._with_valid_token(session_id, before)).access_token != before.access_token
    assert pages.provider.renewed() == renewed
    await visitor.page.post("/oidc/sign-out", headers={"origin": pages.origin})
    await sign_in._sessions.replace(session_id, before)
    assert await sign_in._sessions.read(session_id) is None


async def test_a_session_with_another_persons_token_ends(pages: Pages) -> None:
    visitor, other = pages.visitor(), pages.visitor()
    await visitor.sign_in("kim")
    first = dict(visitor.page.cookies)
    (session_id,) = first.values()
    sign_in = pages.replicas[0].state.services.sign_in
    session = await sign_in.session(session_id, urlsplit(pages.origin).netloc)
    await sign_in._sessions.replace(session_id, replace(session, sub="lee"))
    assert await pages.elsewhere(visitor) == 401
    assert await sign_in._sessions.read(session_id) is None
    # A browser that signs in again leaves no session behind.
    await other.sign_in("kim")
    (former,) = other.page.cookies.values()
    await other.sign_in("kim")
    assert await sign_in._sessions.read(former) is None


async def test_concurrent_requests_wait_for_one_late_renewal(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    pages.clock.now += 1500  # the token expired longer ago than any grace period
    before = pages.provider.renewed()
    pages.provider.let_tokens_last(3600)
    statuses: list[int] = []

    async def ask(replica: int) -> None:
        statuses.append(await pages.elsewhere(visitor, replica))

    async with anyio.create_task_group() as group:
        for n in range(6):
            group.start_soon(ask, n % 2)
    assert statuses == [200] * 6
    assert pages.provider.renewed() == before + 1


async def test_a_session_ends_when_idle_and_after_its_maximum(
    running: Provider, port: int, redis_url: str, banks: Banks
) -> None:
    settings: dict[str, Any] = {"session_key": uuid4().hex, "idle": 0.3, "longest": 600}
    async with opened(running, f"http://127.0.0.1:{port}", redis_url, banks, **settings) as pages:
        visitor = pages.visitor()
        await visitor.sign_in("kim")
        with anyio.fail_after(10):
            while (await visitor.page.get(ME)).status_code == 200:
                await anyio.sleep(0.5)
    running.let_tokens_last(3600)
    async with opened(running, f"http://127.0.0.1:{port}", redis_url, banks, **settings | {"idle": 60}) as pages:
        visitor = pages.visitor()
        await visitor.sign_in("kim")
        pages.clock.now += 599
        assert (await visitor.page.get(ME)).status_code == 200
        pages.clock.now += 2
        assert (await visitor.page.get(ME)).status_code == 401


async def test_redis_contains_no_usable_tokens_or_ids(pages: Pages, redis: Redis) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    (session_id,) = visitor.page.cookies.values()
    keys = [key async for key in redis.scan_iter("oidc:session:*")]
    values = [value for key in keys if (value := await redis.get(key)) is not None]
    assert values
    for bytes_ in (*keys, *values):
        assert session_id.encode() not in bytes_
        assert b"eyJ" not in bytes_, "a token"
        assert b"kim" not in bytes_
    seal = Seal("k" * 32)
    sealed = seal.encrypt(b"a token", salt="an id")
    assert seal.decrypt(sealed, salt="an id") == b"a token"
    assert seal.decrypt(sealed, salt="another id") is None
    assert Seal("l" * 32).decrypt(sealed, salt="an id") is None
    assert seal.decrypt(sealed[:-1] + bytes([sealed[-1] ^ 1]), salt="an id") is None


async def test_signing_out_ends_the_session_here_and_at_the_provider(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    cookies = dict(visitor.page.cookies)
    reply = await visitor.page.post("/oidc/sign-out", headers={"origin": pages.origin})
    assert dict(visitor.page.cookies) == {}
    visitor.page.cookies.update(cookies)
    assert (await visitor.page.get(ME)).status_code == 401
    assert await pages.elsewhere(visitor) == 401
    back = await visitor.sign_out_at(reply.json()["go_to"])
    assert back.headers["location"] == f"{pages.origin}/"
    page = await visitor.elsewhere.get(changed(await visitor.begin()), follow_redirects=True)
    assert "Who" in page.text, "the provider asks again who it is"


async def test_signing_out_of_an_ended_session_signs_out_at_the_provider(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    pages.clock.now += 43_200
    reply = await visitor.page.post("/oidc/sign-out", headers={"origin": pages.origin})
    back = await visitor.sign_out_at(reply.json()["go_to"])
    assert back.headers["location"] == f"{pages.origin}/"
    page = await visitor.elsewhere.get(await visitor.begin(), follow_redirects=True)
    assert "Who" in page.text, "whoever comes next to this browser is asked who they are"
    again = await visitor.page.post("/oidc/sign-out", headers={"origin": pages.origin})
    assert again.json() == {"go_to": f"{pages.origin}/"}, "signed out already, in another tab"


async def test_signing_out_at_the_provider_ends_the_session_on_every_replica(pages: Pages, port: int) -> None:
    bound = bind("127.0.0.1", port)
    async with listening(pages.replicas[0], bound):
        visitor, other = pages.visitor(), pages.visitor()
        await visitor.sign_in("kim")
        await other.sign_in("kim")
        await visitor.sign_out_at(f"{pages.provider.issuer}/session/end")
        with anyio.fail_after(10):
            while await pages.elsewhere(visitor) == 200:
                await anyio.sleep(0.05)
        assert (await visitor.page.get(ME)).status_code == 401
        assert (await other.page.get(ME)).status_code == 200, "of the same person, at another browser"


async def test_a_logout_token_ends_all_sessions_of_its_person(pages: Pages) -> None:
    one, two, lee = pages.visitor(), pages.visitor(replica=1), pages.visitor()
    await one.sign_in("kim")
    await two.sign_in("kim")
    await lee.sign_in("lee")
    token = pages.provider.signed(logout(pages, sub="kim"))
    for expected in (200, 400):  # it is accepted once
        reply = await one.page.post("/oidc/backchannel-logout", data={"logout_token": token})
        assert reply.status_code == expected
        assert reply.headers["cache-control"] == "no-store"
    assert await pages.elsewhere(one) == await pages.elsewhere(two) == 401
    assert (await lee.page.get("/oidc/session")).json()["name"] == "lee lee"


WRONG: dict[str, dict[str, object]] = {
    "another audience": {"aud": "another-client"},
    "another issuer": {"iss": "https://other.example"},
    "several audiences and no client": {"aud": [CLIENT, "another-client"]},
    "another client": {"azp": "another-client"},
    "no event": {"events": {}},
    "no events": {"events": None},
    "a nonce": {"nonce": "n"},
    "nobody": {"sub": None},
    "no id": {"jti": None},
    "old": {"iat": int(time.time()) - 3600, "exp": int(time.time()) + 60},
    "over": {"iat": int(time.time()) - 250, "exp": int(time.time()) - 120},
}


async def test_a_wrong_logout_token_ends_nothing(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    tokens = {name: pages.provider.signed(logout(pages, **{"sub": "kim"} | claims)) for name, claims in WRONG.items()}
    valid = pages.provider.signed(logout(pages, sub="kim"))
    tokens |= {"a forged signature": f"{valid[:-4]}AAAA", "no token": "", "no JWT": "x", "too long": "x" * 40_000}
    for name, token in tokens.items():
        reply = await visitor.page.post("/oidc/backchannel-logout", content=f"logout_token={token}")
        assert reply.status_code == 400, name
    assert (await visitor.page.get(ME)).status_code == 200


async def test_sessions_outlive_their_token_while_the_provider_is_away(redis_url: str, banks: Banks) -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    with provider(origin, seconds=120) as away:
        async with opened(away, origin, redis_url, banks, session_key=uuid4().hex, grace=600) as pages:
            visitor = pages.visitor()
            await visitor.sign_in("kim")
            assert await pages.elsewhere(visitor) == 200  # both replicas have the provider's keys
            away.stop()
            for seconds in (0, 100, 500):  # before its end, near it, and long after it
                pages.clock.now += seconds
                assert (await visitor.page.get(ME)).status_code == 200
                assert await pages.elsewhere(visitor) == 200
            pages.clock.now += 200
            late = await visitor.page.get(ME)
            assert (late.status_code, late.json()["code"]) == (503, "unavailable")
            assert (await visitor.page.get("/oidc/session")).headers["retry-after"] == "5"
            for replica in range(2):
                newcomer = pages.visitor(replica=replica).page
                with anyio.fail_after(10):  # metadata read a second ago is reused
                    while "unavailable" not in (reply := await newcomer.get("/oidc/sign-in")).headers["location"]:
                        await anyio.sleep(0.1)
                assert (reply.status_code, reply.headers["location"]) == (303, "/?sign-in=unavailable")
            reply = await visitor.page.post("/oidc/sign-out", headers={"origin": origin})
            assert reply.json() == {"go_to": f"{origin}/"}, "here alone"


async def test_a_session_with_a_revoked_refresh_token_ends(pages: Pages) -> None:
    visitor = pages.visitor()
    await visitor.sign_in("kim")
    cookies = dict(visitor.page.cookies)
    await visitor.sign_out_at(f"{pages.provider.issuer}/session/end")  # the notification finds no listener
    assert (await visitor.page.get(ME)).status_code == 200
    pages.clock.now += 290
    assert (await visitor.page.get(ME)).status_code == 401
    visitor.page.cookies.update(cookies)
    pages.clock.now -= 290
    assert (await visitor.page.get(ME)).status_code == 401, "for good"


async def test_without_redis_sessions_are_unavailable_and_tokens_work(running: Provider, banks: Banks) -> None:
    origin = f"http://127.0.0.1:{free_port()}"
    async with opened(running, origin, "redis://127.0.0.1:1/0", banks) as pages:
        visitor = pages.visitor()
        visitor.page.cookies.set(f"session-{origin.rpartition(':')[2]}", "x" * 43)
        assert (await visitor.page.get(ME)).status_code == 503
        assert (await visitor.page.get(ME, headers=bearer_of(running))).status_code == 200


@pytest.mark.parametrize(
    ("auth", "changed", "sentence"),
    [
        (None, {}, "add it to AUTH__ISSUER or AUTH__ISSUERS"),
        ({"issuer": ISSUER, "jwks_url": f"{ISSUER}/keys", "audience": "bank"}, {}, "ID tokens"),
        (None, {"session_key": "short"}, "at least 32"),
    ],
    ids=["an unknown issuer", "the API's audience", "a short key"],
)
def test_unsafe_settings_of_a_provider_end_the_start(
    tmp_path: Path, auth: dict[str, str] | None, changed: dict[str, str], sentence: str
) -> None:
    oidc = {"issuer": ISSUER, "client_id": "bank", "session_key": "k" * 32} | changed
    with pytest.raises(ValidationError, match=sentence):
        StaffSettings.model_validate({"data_dir": tmp_path, "auth": auth, "oidc": oidc})
