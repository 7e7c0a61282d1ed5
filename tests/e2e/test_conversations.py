"""Conversations as customers keep them: one answer a key, another answer, branches, feedback, export, no strangers."""

import asyncio
import sqlite3
from contextlib import closing
from typing import Any

import httpx2
import msgspec
import pytest
from redis import Redis as BlockingRedis

from tests.e2e.conftest import ENGLISH, KOREAN, Product, audited, new_customer, until
from tests.e2e.events import SentEvent, read_events, text_of
from tests.e2e.metrics import total

pytestmark = [pytest.mark.anyio, pytest.mark.e2e]


async def all_of(
    http: httpx2.AsyncClient, path: str, *, key: str | None = None, body: object = None
) -> list[SentEvent]:
    headers = {} if key is None else {"idempotency-key": key}
    async with http.stream("POST", path, json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return [event async for event in read_events(response)]


def charge(events: list[SentEvent]) -> int:
    usage = events[-1].field("usage")
    assert isinstance(usage, dict)
    return int(usage["prompt_tokens"]) + int(usage["answer_tokens"])


async def test_a_regenerated_answer_joins_the_first_under_the_same_question(product: Product) -> None:
    async with product.client(new_customer()) as http:
        first = await product.ask(http, KOREAN)
        conversation_id = str(first[0].field("conversation_id"))
        before = (await http.get("/v1/limits")).json()
        again = await all_of(http, f"/v1/answers/{first[0].field('answer_id')}/regenerate", key="again")
        after = (await http.get("/v1/limits")).json()
        joined = await all_of(http, f"/v1/answers/{first[0].field('answer_id')}/regenerate", key="again")
        kept = (await http.get(f"/v1/conversations/{conversation_id}")).json()["messages"]
        on = await product.ask(http, "그럼 가입 기간은요?", conversation_id=conversation_id)
        whole = await http.post(f"/v1/answers/{on[0].field('answer_id')}/regenerate", json={"stream": False})
        tree = (await http.get(f"/v1/conversations/{conversation_id}")).json()["messages"]
    assert again[0].field("question_id") == first[0].field("question_id")
    assert again[0].field("conversation_id") == conversation_id
    assert again[0].field("answer_id") != first[0].field("answer_id")
    assert again[-1].field("written") is True
    assert joined == again
    assert before["remaining_today"] - after["remaining_today"] == charge(again)
    assert [m["role"] for m in kept] == ["user", "assistant", "assistant"]
    assert {m["parent_id"] for m in kept[1:]} == {kept[0]["id"]}
    assert audited(product.database, again[0].answer_id) == ["closed", "opened"]
    assert whole.json()["text"]
    asked_on, *two = tree[3:]
    assert asked_on["parent_id"] == again[0].field("answer_id"), "the newest answer is gone on with"
    assert [m["parent_id"] for m in two] == [asked_on["id"]] * 2


async def test_a_running_answer_is_neither_answered_again_nor_rated(product: Product) -> None:
    async with (
        product.telling(token_seconds=0.05, answer="이자는 연 0.5%입니다. " * 40, probe=0.99),
        product.client(new_customer()) as http,
        http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response,
    ):
        accepted = await anext(read_events(response))
        address = f"/v1/answers/{accepted.field('answer_id')}"
        again = await http.post(f"{address}/regenerate")
        rated = await http.post(f"{address}/feedback", json={"rating": "up"})
        await http.post(f"{address}/cancel")
    for refused in (again, rated):
        assert (refused.status_code, refused.json()["code"]) == (409, "still_running")


async def test_feedback_is_stored_once_masked_exported_and_deleted(product: Product) -> None:
    async with product.client(new_customer()) as http:
        before = await ratings_counted(product)
        events = await product.ask(http, KOREAN)
        answer_id, conversation_id = (str(events[0].field(name)) for name in ("answer_id", "conversation_id"))
        address = f"/v1/answers/{answer_id}/feedback"
        assert (await http.post(address, json={"rating": "up"})).status_code == 200
        latest = {"rating": "down", "reasons": ["wrong", "wrong"], "comment": "제 번호는 010-1234-5678입니다"}
        kept = (await http.post(address, json=latest)).json()
        export = await http.get(f"/v1/conversations/{conversation_id}/export")
        answered = export.json()["messages"][1]
        stored = ratings_of(product, answer_id)
        after = await ratings_counted(product)
        assert (await http.delete(f"/v1/conversations/{conversation_id}")).status_code == 204
        assert (await http.post(address, json=latest)).status_code == 404
    assert answered["feedback"] == kept
    assert (kept["rating"], kept["reasons"]) == ("down", ["wrong"])
    assert "1234-5678" not in export.text
    assert [row[:2] for row in stored] == [("down", '["wrong"]')]
    assert stored[0][2] == kept["comment"]
    assert {rating: after[rating] - before[rating] for rating in after} == {"up": 1, "down": 1}
    assert ratings_of(product, answer_id) == []


def ratings_of(product: Product, answer_id: str) -> list[tuple[Any, ...]]:
    query = "SELECT rating, reasons, comment FROM chatbot_feedback WHERE answer_id = ?"
    with closing(sqlite3.connect(product.database)) as database:
        return database.execute(query, [answer_id]).fetchall()


async def ratings_counted(product: Product) -> dict[str, float]:
    return {rating: await total(product.url, "chatbot_feedback_total", rating=rating) for rating in ("up", "down")}


async def test_an_export_contains_every_message_citation_and_notice(product: Product) -> None:
    confirmed, not_confirmed = "만기 전에 해지하면 중도해지 금리 연 0.5%를 적용합니다.", "기본 금리는 연 7.7%입니다."
    async with (
        product.telling(answer=f"{confirmed} {not_confirmed}", probe=0.99),
        product.client(new_customer()) as http,
    ):
        events = await product.ask(http, f"제 번호는 010-1234-5678입니다. {KOREAN}")
        export = await http.get(f"/v1/conversations/{events[0].field('conversation_id')}/export")
    assert "attachment" in export.headers["content-disposition"]
    asked, answered = export.json()["messages"]
    assert KOREAN in asked["text"]
    assert "010-1234-5678" not in export.text
    assert answered["text"] == text_of(events)
    of = {name: [msgspec.json.decode(e.data) for e in events if e.name == name] for name in ("citation", "notice")}
    assert answered["citations"] == of["citation"] != []
    assert answered["notices"] == of["notice"]
    assert [notice["code"] for notice in of["notice"]] == ["masked", "withheld"]
    assert answered["sources"] == msgspec.json.decode(next(e.data for e in events if e.name == "sources"))
    assert answered["grounded"] == events[-1].field("grounded")
    assert answered["finish_reason"] == events[-1].field("finish_reason")


async def test_a_source_opens_as_long_as_its_conversation_exists(product: Product, redis_url: str) -> None:
    async with product.client(new_customer()) as http, product.client(new_customer()) as stranger:
        events = await product.ask(http, ENGLISH)
        answer_id = events[0].field("answer_id")
        address = f"/v1/answers/{answer_id}/sources/1"
        while_logged = (await http.get(address)).json()
        with BlockingRedis.from_url(redis_url) as redis:
            assert redis.delete(f"{{hanbit}}:answer:{answer_id}", f"{{hanbit}}:answer:{answer_id}:events") == 2
        assert (await http.get(f"/v1/answers/{answer_id}/events")).status_code == 404
        assert (await http.get(address)).json() == while_logged
        assert (await stranger.get(address)).status_code == 404
        assert (await http.delete(f"/v1/conversations/{events[0].field('conversation_id')}")).status_code == 204
        assert (await http.get(address)).status_code == 404


async def test_questions_at_once_in_one_conversation_branch_and_never_interleave(product: Product) -> None:
    async with product.client(new_customer()) as http:
        first = await product.ask(http, KOREAN)
        conversation_id = first[0].field("conversation_id")
        async with product.telling(first_token_seconds=0.5), asyncio.TaskGroup() as tasks:
            for question in (ENGLISH, "그럼 가입 기간은요?", "최소 가입 금액은 얼마인가요?"):
                tasks.create_task(product.ask(http, question, conversation_id=conversation_id))
        messages = (await http.get(f"/v1/conversations/{conversation_id}")).json()["messages"]
    asked = [m for m in messages[2:] if m["role"] == "user"]
    answered = [m for m in messages[2:] if m["role"] == "assistant"]
    assert len(asked) == len(answered) == 3
    assert {m["parent_id"] for m in asked} == {first[0].field("answer_id")}, "all begin at the newest answer"
    assert {m["parent_id"] for m in answered} == {m["id"] for m in asked}, "each has its own answer"
    by_id = {m["id"]: m for m in messages}
    for message in messages:
        parent = by_id.get(message["parent_id"])
        assert parent is None or parent["role"] != message["role"], "every path alternates"


async def test_a_conversation_deleted_during_an_answer_stays_deleted(product: Product) -> None:
    async with (
        product.client(new_customer()) as http,
        product.telling(token_seconds=0.05, answer="이자는 연 0.5%입니다. " * 40, probe=0.99),
    ):
        async with http.stream("POST", "/v1/chat", json={"message": KOREAN}) as response:
            events = read_events(response)
            accepted = await anext(events)
            answer_id, conversation_id = (accepted.field(name) for name in ("answer_id", "conversation_id"))
            messages = (await http.get(f"/v1/conversations/{conversation_id}")).json()["messages"]
            assert (await http.delete(f"/v1/conversations/{conversation_id}")).status_code == 204
            rest = [event async for event in events]
        assert (await http.get(f"/v1/conversations/{conversation_id}")).status_code == 404
        assert (await http.get("/v1/conversations")).json()["items"] == []
        assert (await http.get(f"/v1/answers/{answer_id}/events")).status_code == 404
        await until(product.idle, 1)
    assert rest[-1].field("finish_reason") == "cancelled"
    assert messages[0]["answered_by"] == answer_id, "so that another device finds it"


async def test_somebody_elses_answer_and_conversation_are_not_found_by_any_route(product: Product) -> None:
    async with product.client(new_customer()) as http, product.client(new_customer()) as stranger:
        events = await product.ask(http, KOREAN)
        answer_id, conversation_id = (events[0].field(name) for name in ("answer_id", "conversation_id"))
        answer, conversation = f"/v1/answers/{answer_id}", f"/v1/conversations/{conversation_id}"
        routes: list[tuple[str, str, object]] = [
            ("GET", f"{answer}/events", None),
            ("GET", f"{answer}/sources/1", None),
            ("POST", f"{answer}/cancel", None),
            ("POST", f"{answer}/regenerate", None),
            ("POST", f"{answer}/feedback", {"rating": "up"}),
            ("GET", conversation, None),
            ("GET", f"{conversation}/export", None),
            ("DELETE", conversation, None),
            ("POST", "/v1/chat", {"message": KOREAN, "conversation_id": conversation_id}),
            ("POST", "/v1/chat", {"message": KOREAN, "conversation_id": conversation_id, "parent_id": answer_id}),
        ]
        for method, path, body in routes:
            reply = await stranger.request(method, path, json=body)
            assert (reply.status_code, reply.json()["code"]) == (404, "not_found"), (method, path)
        kept = (await http.get(conversation)).json()["messages"]
    assert [m["role"] for m in kept] == ["user", "assistant"]
    assert "feedback" not in kept[1]


async def test_a_choice_of_two_is_written_out_and_shown_to_the_customer(product: Product) -> None:
    both, asked = "샘물 정기예금이랑 해외송금은 누가 이용해요?", "그럼 앞에 거는 앱으로 언제 해지하나요?"
    whole = "샘물 정기예금은 앱으로 언제 해지하나요?"
    async with product.client(new_customer()) as http:
        first = await product.ask(http, both)
        assert first[0].field("understood_as") == ""
        conversation_id = first[0].field("conversation_id")
        second = await product.ask(http, asked, conversation_id=conversation_id)
        assert second[0].field("understood_as") == whole
        kept = (await http.get(f"/v1/conversations/{conversation_id}")).json()["messages"]
        assert [(m["text"], m.get("standalone")) for m in kept if m["role"] == "user"] == [
            (both, None),
            (asked, whole),
        ]
    async with httpx2.AsyncClient(base_url=product.model_url) as model:
        prompts = [prompt for prompt in (await model.get("/prompts")).json() if whole in prompt]
    assert prompts
    assert not any(both in prompt for prompt in prompts), "a question that is understood alone needs no history"
