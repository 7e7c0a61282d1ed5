"""Where `make run` lets anybody in on loopback, staff enter the page as one of two people, without a token."""

from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient

from evals.sample_bank import sample_banks
from ingest.app import create_app
from ingest.services import Services
from knowledge.identity import Principal
from tests.ingest.staff import with_tokens

pytestmark = pytest.mark.anyio


async def test_the_demo_has_an_uploader_and_an_approver_only(services: Services, tmp_path: Path) -> None:
    services, token = with_tokens(services, tmp_path)

    def sign(who: Principal) -> tuple[str, int]:
        return token(who.sub, *who.roles, tenant=who.tenant), 0

    app = create_app(services, sample_banks(), demo=sign)
    async with AsyncClient(transport=ASGITransport(app=app), base_url="http://staff") as http:
        seen = {}
        for role in ("staff", "approver"):
            signed = (await http.post("/demo/login", json={"role": role})).json()["token"]
            me = (await http.get("/v1/me", headers={"authorization": f"Bearer {signed}"})).json()
            seen[me["sub"]] = (me["tenant"], me["roles"])
        assert seen == {"demo uploader": ("demo", ["staff"]), "demo approver": ("demo", ["approver"])}
        for role in ("admin", "platform", "customer", ""):
            assert (await http.post("/demo/login", json={"role": role})).status_code == 422


async def test_without_the_demo_nobody_enters_without_a_token(services: Services) -> None:
    transport = ASGITransport(app=create_app(services, sample_banks()))
    async with AsyncClient(transport=transport, base_url="http://staff") as http:
        assert (await http.post("/demo/login", json={"role": "staff"})).status_code == 404
        assert 'data-demo=""' in (await http.get("/")).text
