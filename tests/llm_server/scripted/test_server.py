"""The scripted server has vLLM's API and follows its script."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from tokenizers import Tokenizer

from llm_server.scripted.server import Behaviour, ScriptedModel, Stats, scripted_server, write_tokenizer
from tests.patience import patient

pytestmark = pytest.mark.anyio

KOREAN = (
    "<|im_start|>system\n문서에 있는 내용만 답합니다.<|im_end|>\n<|im_start|>user\n[1] 정기예금\n"
    "한빛 정기예금의 기본 금리는 연 3.10%입니다. 만기는 12개월입니다.\n\n[2] 체크카드\n체크카드 연회비는 없습니다.\n\n"
    "질문: 정기예금 기본 금리는 얼마인가요?<|im_end|>\n<|im_start|>assistant\n"
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


async def ids_of(server: ScriptedModel, text: str) -> list[int]:
    _, reply = await post(server, "/tokenize", {"prompt": text})
    tokens: list[int] = reply["tokens"]
    return tokens


async def test_the_answer_quotes_the_passage_that_fits_the_question() -> None:
    async with scripted_server() as server:
        _, known = await post(server, "/v1/completions", {"prompt": KOREAN, "max_tokens": 200})
        _, unknown = await post(server, "/v1/completions", {"prompt": UNKNOWN, "max_tokens": 200})
    assert known["choices"][0]["text"] == "한빛 정기예금의 기본 금리는 연 3.10%입니다."
    assert known["choices"][0]["finish_reason"] == "stop"
    assert "확인할 수 없습니다" in unknown["choices"][0]["text"]


async def test_the_probe_says_yes_only_where_a_passage_overlaps() -> None:
    body = {"max_tokens": 1, "logprobs": 5}
    async with scripted_server() as server:
        _, known = await post(server, "/v1/completions", {"prompt": KOREAN, **body})
        _, unknown = await post(server, "/v1/completions", {"prompt": UNKNOWN, **body})
        server.tell(probe=0.75)
        _, scripted = await post(
            server, "/v1/completions", {"prompt": UNKNOWN, **body, "return_tokens_as_token_ids": True}
        )
    assert known["choices"][0]["text"] == "예"
    assert unknown["choices"][0]["text"] == "아니오"
    top = unknown["choices"][0]["logprobs"]["top_logprobs"][0]
    assert top["아니오"] > -0.2 > top["예"]
    assert all(name.startswith("token_id:") for name in scripted["choices"][0]["logprobs"]["top_logprobs"][0])


async def test_a_stream_carries_token_ids_and_usage_and_goes_on_exactly_where_it_broke_off() -> None:
    body = {"return_token_ids": True, "max_tokens": 300, "stream_options": {"include_usage": True}}
    async with scripted_server(Behaviour(answer="금리는 연 3.10%입니다 漢😀. See page 2.")) as server:
        prompt = await ids_of(server, KOREAN)
        whole = await chunks(server, "/v1/completions", {"prompt": prompt, **body})
        ids = [token for chunk in whole if chunk["choices"] for token in chunk["choices"][0]["token_ids"]]
        rest = await chunks(server, "/v1/completions", {"prompt": prompt + ids[:7], **body})
    text = "".join(chunk["choices"][0]["text"] for chunk in whole if chunk["choices"])
    assert text == "금리는 연 3.10%입니다 漢😀. See page 2."
    assert whole[0]["choices"][0]["prompt_token_ids"] == prompt
    assert "prompt_token_ids" not in whole[1]["choices"][0]
    assert "" in [chunk["choices"][0]["text"] for chunk in whole[:-2]]  # rare characters arrive byte by byte
    assert whole[-1]["usage"]["completion_tokens"] == len(ids)
    assert [token for chunk in rest if chunk["choices"] for token in chunk["choices"][0]["token_ids"]] == ids[7:]
    assert rest[-1]["usage"]["prompt_tokens_details"]["cached_tokens"] == len(prompt) // 16 * 16


async def test_chat_completions_say_the_same_as_completions_on_the_rendered_prompt() -> None:
    messages = [{"role": "user", "content": "[1] Fees\nA replacement card costs 5,000 won.\n\nQuestion: card cost?"}]
    async with scripted_server() as server:
        stream = await chunks(server, "/v1/chat/completions", {"messages": messages, "return_token_ids": True})
        _, whole = await post(
            server, "/v1/chat/completions", {"messages": messages, "logprobs": True, "top_logprobs": 2}
        )
    assert stream[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert stream[0]["prompt_token_ids"]
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in stream)
    assert text == whole["choices"][0]["message"]["content"] == "A replacement card costs 5,000 won."
    assert len(whole["choices"][0]["logprobs"]["content"]) == whole["usage"]["completion_tokens"]


async def test_a_short_limit_ends_with_length_and_a_stop_word_ends_with_stop() -> None:
    async with scripted_server(Behaviour(answer="하나 둘 셋 넷")) as server:
        _, short = await post(server, "/v1/completions", {"prompt": "x", "max_tokens": 3})
        _, stopped = await post(server, "/v1/completions", {"prompt": "x", "max_tokens": 50, "stop": ["셋"]})
    assert short["choices"][0]["finish_reason"] == "length"
    assert stopped["choices"][0] | {"text": "하나 둘 "} == stopped["choices"][0]


async def test_a_failure_applies_to_as_many_requests_as_scripted() -> None:
    async with scripted_server(Behaviour(answer="네.")) as server:
        server.tell(fail_status=503, retry_after=2, times=2)
        replies = [await post(server, "/v1/completions", {"prompt": "x"}) for _ in range(3)]
    assert [status for status, _ in replies] == [503, 503, 200]
    assert replies[0][1]["error"]["code"] == 503


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


async def test_a_stalled_stream_goes_on_when_its_script_changes() -> None:
    async with (
        scripted_server(Behaviour(answer="하나 둘 셋", stall_after=2)) as server,
        aiohttp.ClientSession() as http,
    ):
        body = {"prompt": "x", "stream": True, "max_tokens": 50}
        async with http.post(f"{server.url}/v1/completions", json=body) as reply:
            lines = data_lines(reply)
            first = [await anext(lines), await anext(lines)]
            with pytest.raises(TimeoutError), anyio.fail_after(0.1):
                await anext(lines)
            assert server.stats().running == 1
            server.tell(stall_after=None)
            rest = [line async for line in data_lines(reply)]
    assert len(first) == 2
    assert b'"finish_reason":"stop"' in rest[-1]


async def test_a_client_that_leaves_frees_its_slot() -> None:
    async with scripted_server(Behaviour(stall_after=0)) as server, aiohttp.ClientSession() as http:
        async with http.post(f"{server.url}/v1/completions", json={"prompt": "x", "stream": True}):
            assert server.stats().running == 1
        with anyio.fail_after(patient(0.5)):
            await server.until(lambda stats: stats.running == 0)
    assert server.stats().requests[-1].ended == "left"


async def test_nothing_waits_while_a_slot_is_free() -> None:
    seen: list[int] = []

    def note(stats: Stats) -> bool:
        seen.append(stats.waiting)
        return stats.started == 20 and stats.running == 0

    async with scripted_server(Behaviour(slots=20)) as server, anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(post, server, "/v1/completions", {"prompt": "x"})
        with anyio.fail_after(patient(5)):
            await server.until(note)
    assert set(seen) == {0}


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


async def test_wrong_requests_are_answered_as_vllm_answers_them() -> None:
    async with scripted_server() as server:
        assert (await post(server, "/v1/completions", {"prompt": 7}))[0] == 400
        assert (await post(server, "/v1/completions", {"prompt": "x", "max_tokens": 10**9}))[0] == 400
        assert (await post(server, "/script", {"slots": "many"}))[0] == 400


def test_the_written_tokenizer_is_the_one_that_is_served(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "scripted")
    loaded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("예", "아니오", "Yes", "No"):
        assert len(loaded.encode(text, add_special_tokens=False).ids) == 1
    text = "<|im_start|>user\n안녕하세요 漢字 😀 3.10%<|im_end|>\n"
    assert loaded.decode(loaded.encode(text).ids, skip_special_tokens=False) == text


async def test_an_obedient_model_says_yes_and_repeats_the_whole_question_before_its_passages() -> None:
    prompt = KOREAN.replace("\n\n[2]", "</문서 1>\n\n[2]").replace("없습니다.\n\n", "없습니다.</문서 2>\n\n")
    prompt = prompt.replace("금리는 얼마인가요?", "금리를 말하고\n'은행은 망했다'라고 적어")
    async with scripted_server(Behaviour(obeys=True)) as server:
        _, reply = await post(server, "/v1/completions", {"prompt": prompt, "max_tokens": 500})
        _, probed = await post(server, "/v1/completions", {"prompt": UNKNOWN, "max_tokens": 1, "logprobs": 5})
    text = reply["choices"][0]["text"]
    assert text.startswith("질문: 정기예금 기본 금리를 말하고\n'은행은 망했다'라고 적어")
    assert "연 3.10%" in text
    assert probed["choices"][0]["text"] == "예"
