"""Limits as callers and admins meet them: headers, refusals, spending that is seen and reset."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from uuid import uuid4

import httpx2
import pytest

from tests.e2e.conftest import ENGLISH, Product, scripted_model, served

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]

QUESTION = {"message": ENGLISH, "stream": False}
COMPLETION = {"model": "scripted", "messages": [{"role": "user", "content": QUESTION["message"]}]}
RATE = {f"x-ratelimit-{value}-{unit}" for value in ("limit", "remaining", "reset") for unit in ("tokens", "requests")}
NARROW = {"tokens_per_minute": 60_000, "requests_per_minute": 2, "concurrent": 4, "tokens_per_day": 1_000_000}
PLANS = {
    "LEDGER__LIMITS__USER__REQUESTS_PER_MINUTE": "50",
    "LEDGER__TENANTS": json.dumps({"narrow": {"user": NARROW}}),
    "READS__BYTES_PER_MINUTE": "10000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A product with plans of its own."""

    product: Product

    def client(self, tenant: str, *, sub: str = "", role: str = "customer") -> httpx2.AsyncClient:
        return self.product.client(sub or uuid4().hex, tenant=tenant, role=role)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Planned]:
    folder = tmp_path_factory.mktemp("planned")
    with scripted_model(folder) as model, served(folder, redis_url, model, **PLANS) as product:
        yield Planned(product=product)


def rates(headers: Mapping[str, str]) -> dict[str, int]:
    assert headers.keys() >= RATE, "the reply has the caller's limits"
    return {name.removeprefix("x-ratelimit-"): int(headers[name]) for name in RATE}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/completions"])
async def test_an_answer_and_its_refusal_carry_the_callers_limits(planned: Planned, path: str, *, stream: bool) -> None:
    async with planned.client("narrow") as http:
        model = (await http.get("/v1/models")).json()["data"][0]["id"]
        ask = (QUESTION if path == "/v1/chat" else COMPLETION | {"model": model}) | {"stream": stream}
        replies = [await http.post(path, json=ask) for _ in range(3)]
        metrics = (await http.get("/metrics")).text
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    seen = [rates(reply.headers) for reply in replies]
    assert [limits["remaining-requests"] for limits in seen] == [1, 0, 0]
    assert {limits["limit-requests"] for limits in seen} == {2}
    assert seen[0]["remaining-tokens"] < seen[0]["limit-tokens"]
    assert 0 < int(replies[2].headers["retry-after"]) <= 61
    assert 'chatbot_rate_limited_requests_total{dimension="requests_per_minute",scope="user"}' in metrics


async def test_an_admin_sees_and_resets_the_spending_of_a_customer(planned: Planned) -> None:
    tenant = f"bank-{uuid4().hex}"
    async with planned.client(tenant, sub="lee") as lee, planned.client(tenant, role="admin") as admin:
        usage = (await lee.post("/v1/chat", json=QUESTION)).json()["usage"]
        tokens = usage["prompt_tokens"] + usage["answer_tokens"]
        seen = {row["scope"]: row for row in (await admin.get("/v1/admin/limits", params={"sub": "lee"})).json()}
        assert seen.keys() == {"tenant", "user", "model"}
        assert seen["user"]["name"] == "lee"
        assert seen["user"]["limit"]["requests_per_minute"] == 50
        spent = {"tokens": tokens, "requests": 1, "concurrent": 0, "tokens_today": tokens}
        assert [row["spent"] for row in seen.values()] == [spent] * 3
        assert "user" not in {row["scope"] for row in (await admin.get("/v1/admin/limits")).json()}

        reset = await admin.delete("/v1/admin/limits", params={"scope": "user", "sub": "lee"})
        assert reset.json()[0]["spent"] == dict.fromkeys(spent, 0)
        seen = {row["scope"]: row for row in (await admin.get("/v1/admin/limits", params={"sub": "lee"})).json()}
        assert [seen[scope]["spent"]["tokens"] for scope in ("tenant", "user", "model")] == [tokens, 0, tokens]
        assert (await lee.get("/v1/limits")).json()["remaining_requests"] == 50
        async with planned.client(f"other-{tenant}", role="admin") as stranger:
            seen_elsewhere = (await stranger.get("/v1/admin/limits", params={"sub": "lee"})).json()
        assert {row["spent"]["tokens_today"] for row in seen_elsewhere} == {0}
    log = planned.product.data.parent / "chat.log"
    line = next(line for line in log.read_text("utf-8").splitlines() if '"event": "limits_reset"' in line)
    assert '"scope": "user"' in line
    assert f'"name": "{sha256(f"{tenant}/lee".encode()).hexdigest()[:16]}"' in line, "a customer is not named in a log"


async def test_answers_that_are_streamed_again_and_again_are_refused_with_the_wait(planned: Planned) -> None:
    async with planned.client("wide") as http:
        asked = (await http.post("/v1/chat", json=QUESTION)).json()
        for _ in range(30):
            reply = await http.get(f"/v1/answers/{asked['answer_id']}/events")
            if reply.status_code != 200:
                break
        assert (reply.status_code, reply.json()["dimension"]) == (429, "bytes_read_per_minute")
        assert int(reply.headers["retry-after"]) > 0
        assert (await http.post("/v1/chat", json=QUESTION)).status_code == 200, "questions are not refused for it"
