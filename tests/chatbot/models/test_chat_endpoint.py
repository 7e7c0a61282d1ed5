"""An endpoint that is no vLLM: chat completions without token ids, beside endpoints that have them."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from chatbot.errors import ModelUnavailable
from chatbot.models.choice_probabilities import YES_OR_NO
from chatbot.models.client import ModelDone, Models, NotResumable, open_models
from chatbot.models.completion import Delta, Sampling
from chatbot.models.pool import ModelSettings, ModelsMisconfigured
from chatbot.models.thinking import Thought
from chatbot.tokenizer import RenderedChat
from llm_server.scripted import Behaviour, ScriptedModel, scripted_server, write_tokenizer
from tests.chatbot.models.scripted_pool import ANSWER, CHAT, prompt

pytestmark = pytest.mark.anyio

PLAIN = Behaviour(answer=ANSWER, plain=True)
HOSTED = {"api": "openai", "model": "hosted", "profile": "hosted"}


@asynccontextmanager
async def opened(
    folder: Path, entries: Sequence[tuple[Behaviour, dict[str, Any]]], **own: Any
) -> AsyncGenerator[tuple[Models, list[ScriptedModel]]]:
    """Serve scripted models and open them by a MODELS_FILE, each with fields of its entry."""
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(scripted_server(behaviour, name="hosted", api_key=entry.get("key")))
            for behaviour, entry in entries
        ]
        tokenizer = write_tokenizer(folder / "tokenizer")
        listed = [
            {"name": f"m{n}", "urls": [server.url], "tokenizer": str(tokenizer), "profile": "scripted", **entry, **own}
            for n, (server, (_, entry)) in enumerate(zip(servers, entries, strict=True))
        ]
        file = folder / "models.yaml"
        file.write_text(json.dumps([{k: v for k, v in entry.items() if k != "key"} for entry in listed]), "utf-8")
        yield await stack.enter_async_context(open_models(ModelSettings(models_file=file))), servers


async def parts(models: Models, *, begun_ids: Sequence[int] = (), most: int = 400, thinking: int = 0) -> list[Any]:
    stream = models.stream(
        RenderedChat(prompt(models.tokenizer), CHAT),
        sampling=Sampling(max_tokens=most, thinking_tokens=thinking),
        conversation_id="c-1",
        cache_salt="hanbit",
        begun_ids=begun_ids,
    )
    async with aclosing(stream) as generated:
        return [part async for part in generated]


def text_of(generated: Sequence[Any]) -> str:
    return "".join(part.text for part in generated if isinstance(part, Delta))


async def test_it_answers_by_chat_completions_alone_and_says_that_nobody_can_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path, [(PLAIN, HOSTED)]) as (models, [server]):
        await models.ping()
        generated = await parts(models)
        assert text_of(generated) == ANSWER
        assert generated.count(NotResumable()) == 1
        assert generated[0] == NotResumable()
        ids = [token for part in generated if isinstance(part, Delta) for token in part.token_ids]
        assert models.tokenizer.decode(ids) == ANSWER
        done = generated[-1]
        assert isinstance(done, ModelDone)
        assert done.usage.answer_tokens == server.stats().requests[-1].answer_tokens
        assert done.usage.prompt_tokens == server.stats().requests[-1].prompt_tokens
        assert {request.path for request in server.stats().requests} == {"/v1/chat/completions"}


async def test_an_answer_that_breaks_off_goes_on_at_no_other_such_endpoint(tmp_path: Path) -> None:
    broken = Behaviour(answer=ANSWER, plain=True, drop_after=12)
    async with opened(tmp_path, [(broken, HOSTED), (broken, HOSTED)]) as (models, servers):
        with pytest.raises(ModelUnavailable):
            await parts(models)
        assert sum(server.stats().started for server in servers) == 1


async def test_before_its_first_text_another_one_answers(tmp_path: Path) -> None:
    broken = Behaviour(answer=ANSWER, plain=True, fail_status=500)
    async with opened(tmp_path, [(broken, HOSTED), (PLAIN, HOSTED)]) as (models, servers):
        models.pool.members[1].in_flight = 3  # the conversation begins at the other one
        assert text_of(await parts(models)) == ANSWER
        assert [server.stats().started for server in servers] == [1, 1]


async def test_a_vllm_of_its_group_goes_on_after_the_text_that_it_has_said(tmp_path: Path) -> None:
    hosted = (Behaviour(answer=ANSWER, plain=True, drop_after=12), HOSTED)
    async with opened(tmp_path, [hosted, (Behaviour(answer=ANSWER), {"name": "m1"})]) as (models, servers):
        (target,) = [member for member in models.pool.members if member.entry == "m1"]
        target.in_flight = 3  # the conversation begins at the other one
        assert text_of(await parts(models)) == ANSWER
        target.in_flight = 0
        assert [server.stats().started for server in servers] == [1, 1]


async def test_what_another_process_has_begun_is_not_begun_anew(tmp_path: Path) -> None:
    async with opened(tmp_path, [(PLAIN, HOSTED)]) as (models, [server]):
        with pytest.raises(ModelUnavailable):
            await parts(models, begun_ids=models.tokenizer.encode("정기예금을"))
        assert server.stats().started == 0


async def test_closing_the_stream_frees_the_server(tmp_path: Path) -> None:
    slow = Behaviour(answer=ANSWER, plain=True, token_seconds=0.05)
    async with opened(tmp_path, [(slow, HOSTED)]) as (models, [server]):
        stream = models.stream(
            RenderedChat(prompt(models.tokenizer), CHAT),
            sampling=Sampling(max_tokens=400),
            conversation_id="c-1",
            cache_salt="hanbit",
        )
        async with aclosing(stream) as generated:
            async for part in generated:
                if isinstance(part, Delta):
                    break
        with anyio.fail_after(10):
            await server.until(lambda stats: stats.running == 0)
        assert server.stats().requests[-1].ended == "left"


async def asked(models: Models) -> tuple[float, ...]:
    return await models.choice_probabilities(
        RenderedChat(prompt(models.tokenizer), CHAT, thinks=False), YES_OR_NO, conversation_id="c", cache_salt=""
    )


async def test_a_probe_reads_the_likeliest_tokens_by_their_text(tmp_path: Path) -> None:
    async with opened(tmp_path, [(Behaviour(probe=0.8, plain=True), HOSTED)]) as (models, _):
        assert await asked(models) == pytest.approx((0.8, 0.2), abs=0.02)


@pytest.mark.parametrize(("said", "probabilities"), [("예", (1.0, 0.0)), ("No", (0.0, 1.0)), ("", (0.5, 0.5))])
async def test_without_log_probabilities_its_word_is_taken(
    tmp_path: Path, said: str, probabilities: tuple[float, ...]
) -> None:
    bodies: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        return web.json_response({"choices": [{"message": {"role": "assistant", "content": said}}]})

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    entry = HOSTED | {"omit": ["logprobs", "temperature", "seed"], "length_field": "max_completion_tokens"}
    async with (
        TestServer(app) as server,
        opened(tmp_path, [(PLAIN, entry)], urls=[str(server.make_url("/"))]) as (models, _),
    ):
        assert await asked(models) == probabilities
    assert bodies[0].keys() == {"model", "messages", "max_completion_tokens"}
    assert bodies[0]["max_completion_tokens"] == 1


@pytest.mark.parametrize("cut", [1, 7, 12, 400])
async def test_what_it_thinks_in_its_text_is_told_apart_however_it_is_cut(tmp_path: Path, cut: int) -> None:
    thinker = Behaviour(answer="예.", thinking="<think>\n비밀 생각\n</think>\n\n", plain=True, marked=False)
    async with opened(tmp_path, [(thinker, HOSTED)]) as (models, _):
        generated = await parts(models, thinking=cut)
        assert text_of(generated) == ("예." if cut == 400 else "")
        assert sum(part.tokens for part in generated if isinstance(part, Thought)) > 0


@asynccontextmanager
async def reasoning_server(field: str) -> AsyncGenerator[str]:
    """A server that tells thinking apart by itself, and counts it."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, {field: "생각"}, {"content": "예."}]
        chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
        chunks += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}]
        usage = {"prompt_tokens": 50, "completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 28}}
        chunks += [{"choices": [], "usage": usage}]
        for chunk in chunks:
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_thinking_that_it_tells_apart_is_no_text_and_is_charged_as_it_counts(tmp_path: Path, field: str) -> None:
    async with (
        reasoning_server(field) as url,
        opened(tmp_path, [(PLAIN, HOSTED)], urls=[url]) as (models, _),
    ):
        generated = await parts(models, thinking=100)
        assert text_of(generated) == "예."
        assert [part for part in generated if isinstance(part, Thought)] != []
        usage = generated[-1].usage
        assert (usage.prompt_tokens, usage.answer_tokens, usage.thinking_tokens) == (50, 2, 28)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"model": None}, "an `openai` needs the `model` to ask for"),
        ({"extra_body": {"messages": []}}, "`extra_body` cannot set what the product sets: messages"),
        ({"omit": ["messages"]}, "omit"),
        ({"api": "vllm"}, "has no /tokenize, so it is no vLLM.*say `api: openai` in its entry of a MODELS_FILE"),
        ({"key": "k"}, r"it refused the key \(401\)"),
    ],
)
async def test_what_cannot_be_used_ends_the_boot_with_a_sentence(
    tmp_path: Path, entry: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelsMisconfigured, match=sentence):
        async with opened(tmp_path, [(PLAIN, HOSTED | entry)]):
            pass
