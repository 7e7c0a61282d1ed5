"""The scripted server has vLLM's API and follows its script."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import anyio
import pytest

from llm_server.scripted import Behaviour, ScriptedModel, scripted_server
from tests.patience import patient

pytestmark = pytest.mark.anyio

KOREAN = (
    "[1] 정기예금\n한빛 정기예금의 기본 금리는 연 3.10%입니다. 만기는 12개월입니다.\n\n"
    "[2] 체크카드\n체크카드 연회비는 없습니다.\n\n질문: 정기예금 기본 금리는 얼마인가요?"
)
UNKNOWN = KOREAN.replace("정기예금 기본 금리는 얼마인가요?", "화성 여행자 보험을 파나요?")


async def post(server: ScriptedModel, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.post(server.url + path, json=body) as reply:
        return reply.status, await reply.json()


async def chunks(server: ScriptedModel, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.post(server.url + path, json={**body, "stream": True}) as reply:
        return [json.loads(line) async for line in data_lines(reply)]


async def data_lines(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for line in reply.content:
        if line.startswith(b"data: ") and line != b"data: [DONE]\n":
            yield line[6:]


async def until_cut(server: ScriptedModel) -> tuple[list[bytes], bool]:
    """Return a stream's chunks, and whether it ended correctly."""
    received: list[bytes] = []
    body = {"prompt": "x", "stream": True, "max_tokens": 50}
    try:
        async with aiohttp.ClientSession() as http, http.post(f"{server.url}/v1/completions", json=body) as reply:
            async for line in data_lines(reply):
                received.append(line)  # noqa: PERF401  what came before the cut must be kept
    except aiohttp.ClientError:
        return received, False
    return received, True


async def test_the_passage_that_fits_the_question_is_quoted_and_the_probe_says_yes() -> None:
    replies = []
    async with scripted_server() as server:
        for question in (KOREAN, UNKNOWN):
            messages = [{"role": "user", "content": question}]
            _, answer = await post(server, "/v1/chat/completions", {"messages": messages})
            probe = {"messages": messages, "max_tokens": 1, "logprobs": True, "top_logprobs": 5}
            _, probed = await post(server, "/v1/chat/completions", probe)
            replies.append((answer["choices"][0]["message"]["content"], probed["choices"][0]["message"]["content"]))
    assert replies[0] == ("한빛 정기예금의 기본 금리는 연 3.10%입니다.", "예")
    assert "확인할 수 없습니다" in replies[1][0]
    assert replies[1][1] == "아니오"


async def test_an_answer_continues_exactly_where_it_broke_off() -> None:
    body = {"return_token_ids": True, "max_tokens": 300, "stream_options": {"include_usage": True}}
    async with scripted_server(Behaviour(answer="금리는 연 3.10%입니다 漢😀. See page 2.")) as server:
        _, tokenized = await post(server, "/tokenize", {"prompt": f"<|im_start|>user\n{KOREAN}<|im_start|>assistant\n"})
        prompt: list[int] = tokenized["tokens"]
        whole = await chunks(server, "/v1/completions", {"prompt": prompt, **body})
        ids = [token for chunk in whole if chunk["choices"] for token in chunk["choices"][0]["token_ids"]]
        rest = await chunks(server, "/v1/completions", {"prompt": prompt + ids[:7], **body})
    assert "".join(c["choices"][0]["text"] for c in whole[:-1]) == "금리는 연 3.10%입니다 漢😀. See page 2."
    assert "" in [c["choices"][0]["text"] for c in whole[:-2]]  # rare characters arrive byte by byte
    assert [token for chunk in rest if chunk["choices"] for token in chunk["choices"][0]["token_ids"]] == ids[7:]
    assert rest[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == len(prompt) // 16 * 16


@pytest.mark.parametrize("fault", ["drop_after", "die_after"])
async def test_a_cut_stream_has_no_end_mark(fault: str) -> None:
    async with scripted_server(Behaviour(answer="하나 둘 셋 넷 다섯")) as server:
        server.tell(**{fault: 4})
        received, ended = await until_cut(server)
        assert not ended
        assert len(received) == 4
        assert server.behaviour.dead == (fault == "die_after")


async def test_a_dead_server_refuses_everything_until_it_is_revived() -> None:
    async with scripted_server() as server, aiohttp.ClientSession() as http:
        async with http.post(f"{server.url}/script", json={"dead": True}) as reply:
            assert (await reply.json())["dead"]
        with pytest.raises(aiohttp.ClientError):
            await http.get(f"{server.url}/health")
        async with http.delete(f"{server.url}/script"), http.get(f"{server.url}/health") as healthy:
            assert healthy.status == 200


async def test_a_client_that_leaves_frees_its_slot() -> None:
    async with scripted_server(Behaviour(stall_after=0)) as server, aiohttp.ClientSession() as http:
        async with http.post(f"{server.url}/v1/completions", json={"prompt": "x", "stream": True}):
            assert server.stats().running == 1
        with anyio.fail_after(patient(0.5)):
            await server.until(lambda stats: stats.running == 0)
    assert server.stats().requests[-1].ended == "left"


async def test_a_request_to_a_full_queue_is_refused_and_waiting_ones_are_counted() -> None:
    async with scripted_server(Behaviour(stall_after=0, slots=1, queue=1)) as server, aiohttp.ClientSession() as http:
        body = {"prompt": "x", "stream": True}
        async with http.post(f"{server.url}/v1/completions", json=body), anyio.create_task_group() as group:
            group.start_soon(post, server, "/v1/completions", {"prompt": "x"})
            with anyio.fail_after(patient(1)):
                await server.until(lambda stats: stats.waiting == 1)
            status, _ = await post(server, "/v1/completions", {"prompt": "x"})
            group.cancel_scope.cancel()
    assert status == 503
