"""An endpoint that is no vLLM: chat completions without token ids, beside endpoints that have them."""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web
from aiohttp.connector import Connection
from aiohttp.test_utils import TestServer
from msgspec.structs import asdict
from structlog.testing import capture_logs

from chatbot.errors import ModelUnavailable, Overloaded
from chatbot.models.chat_endpoint import ChatEndpoint
from chatbot.models.choice_probabilities import YES_OR_NO
from chatbot.models.client import ModelDone, Models, NotResumable, open_models
from chatbot.models.completion import Delta, Sampling
from chatbot.models.endpoint import CONNECT_SECONDS, Access, Endpoint, EndpointFailed
from chatbot.models.pool import ModelSettings, ModelsFileEntry, ModelsMisconfigured
from chatbot.models.thinking import Thought
from chatbot.models.tokenizer_check import one_word
from chatbot.tokenizer import Message, RenderedChat
from knowledge.breaker import Breaker, BreakerSettings, BreakerState
from llm_server.scripted import Behaviour, ScriptedModel, scripted_server, write_tokenizer
from tests.chatbot.models.scripted_pool import ANSWER, CHAT, prompt
from tests.patience import patient

pytestmark = pytest.mark.anyio

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PLAIN = Behaviour(answer=ANSWER, plain=True)
HOSTED = {"api": "openai", "model": "hosted", "profile": "hosted"}


@asynccontextmanager
async def opened(
    folder: Path, entries: Sequence[tuple[Behaviour, dict[str, Any]]], **own: Any
) -> AsyncGenerator[tuple[Models, list[ScriptedModel]]]:
    """Serve scripted models and open them by a MODELS_FILE, each with fields of its entry.

    They behave as told from then on: at the boot one without token ids is asked a word.
    """
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                scripted_server(Behaviour(plain=behaviour.plain), name="hosted", api_key=entry.get("key"))
            )
            for behaviour, entry in entries
        ]
        tokenizer = write_tokenizer(folder / "tokenizer")
        listed = [
            {"name": f"m{n}", "urls": [server.url], "tokenizer": str(tokenizer), "profile": "scripted", **entry, **own}
            for n, (server, (_, entry)) in enumerate(zip(servers, entries, strict=True))
        ]
        file = folder / "models.yaml"
        file.write_text(json.dumps([{k: v for k, v in entry.items() if k != "key"} for entry in listed]), "utf-8")
        models = await stack.enter_async_context(open_models(ModelSettings(models_file=file)))
        for server, (behaviour, _) in zip(servers, entries, strict=True):
            server.tell(**asdict(behaviour))
        yield models, servers


async def parts(
    models: Models,
    *,
    begun_ids: Sequence[int] = (),
    most: int = 400,
    thinking: int = 0,
    chat: Sequence[Message] = CHAT,
    conversation_id: str = "c-1",
) -> list[Any]:
    stream = models.stream(
        RenderedChat(models.tokenizer.render(chat), chat),
        sampling=Sampling(max_tokens=most, thinking_tokens=thinking),
        conversation_id=conversation_id,
        cache_salt="hanbit",
        begun_ids=begun_ids,
    )
    async with aclosing(stream) as generated:
        return [part async for part in generated]


def asked_since(server: ScriptedModel) -> int:
    """Return how many generations it was asked for since the boot, where one without token ids is asked one word."""
    return server.stats().started - int(server.behaviour.plain)


def text_of(generated: Sequence[Any]) -> str:
    return "".join(part.text for part in generated if isinstance(part, Delta))


async def test_it_answers_by_chat_completions_alone_and_says_that_nobody_can_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path, [(PLAIN, HOSTED)]) as (models, [server]):
        await models.health.ping()
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
        assert sum(map(asked_since, servers)) == 1


async def test_before_its_first_text_another_one_answers(tmp_path: Path) -> None:
    broken = Behaviour(answer=ANSWER, plain=True, fail_status=500)
    async with opened(tmp_path, [(broken, HOSTED), (PLAIN, HOSTED)]) as (models, servers):
        models.pool.members[1].in_flight = 3  # the conversation begins at the other one
        assert text_of(await parts(models)) == ANSWER
        assert [asked_since(server) for server in servers] == [1, 1]


async def test_a_vllm_of_its_group_goes_on_after_the_text_that_it_has_said(tmp_path: Path) -> None:
    hosted = (Behaviour(answer=ANSWER, plain=True, drop_after=12), HOSTED)
    async with opened(tmp_path, [hosted, (Behaviour(answer=ANSWER), {"name": "m1"})]) as (models, servers):
        (target,) = [member for member in models.pool.members if member.entry == "m1"]
        target.in_flight = 3  # the conversation begins at the other one
        assert text_of(await parts(models)) == ANSWER
        target.in_flight = 0
        assert [asked_since(server) for server in servers] == [1, 1]


async def test_what_a_server_refuses_once_it_has_begun_is_no_fault_of_the_question(tmp_path: Path) -> None:
    async def dying(request: web.Request) -> web.StreamResponse:
        if (await request.json())["messages"][-1]["content"] == "ping":
            return web.Response(body=YES + STOP + DONE)
        return web.Response(body=chunk({"content": ANSWER[:9]}) + b"data: " + reported(code=400) + b"\n\n")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", dying)
    async with TestServer(app) as server:
        hosted = HOSTED | {"urls": [str(server.make_url("/"))]}
        async with opened(tmp_path, [(PLAIN, hosted), (Behaviour(answer=ANSWER), {"name": "m1"})]) as (models, _):
            (target,) = [member for member in models.pool.members if member.entry == "m1"]
            target.in_flight = 3  # the conversation begins at the other one
            assert text_of(await parts(models)) == ANSWER
            target.in_flight = 0


async def test_what_another_process_has_begun_is_not_begun_anew(tmp_path: Path) -> None:
    async with opened(tmp_path, [(PLAIN, HOSTED)]) as (models, [server]):
        with pytest.raises(ModelUnavailable):
            await parts(models, begun_ids=models.tokenizer.encode("정기예금을"))
        assert asked_since(server) == 0


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


@pytest.mark.parametrize(
    ("path", "called"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1", "/openai/v1/chat/completions"),
        ("/openai", "/openai/v1/chat/completions"),
        ("/api/paas/v4/chat/completions", "/api/paas/v4/chat/completions"),
        (
            "/openai/deployments/d/chat/completions?api-version=1",
            "/openai/deployments/d/chat/completions?api-version=1",
        ),
    ],
)
async def test_an_address_is_taken_as_people_write_it(tmp_path: Path, path: str, called: str) -> None:
    paths: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        paths.append(request.path_qs)
        return web.Response(body=YES + STOP + DONE)

    app = web.Application()
    app.router.add_post("/{any:.*}", answer)
    async with (
        TestServer(app) as server,
        opened(tmp_path, [(PLAIN, HOSTED)], urls=[str(server.make_url("/")).rstrip("/") + path]) as (models, _),
    ):
        assert text_of(await parts(models)) == "예."
    assert set(paths) == {called}


@asynccontextmanager
async def gateway(
    tmp_path: Path, list_models: Callable[[web.Request], Awaitable[web.Response]]
) -> AsyncGenerator[Models]:
    """Open the models behind a gateway that answers, and lists them in its own way."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=YES + STOP + DONE)

    app = web.Application()
    app.router.add_get("/v1/models", list_models)
    app.router.add_post("/v1/chat/completions", answer)
    async with (
        TestServer(app) as server,
        opened(tmp_path, [(PLAIN, HOSTED)], urls=[str(server.make_url("/"))]) as (models, _),
    ):
        yield models


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, '{"message":"Missing Authentication Token"}'), (401, "{}"), (429, "{}"), (405, "{}"), (200, "{}")],
)
async def test_a_gateway_that_keeps_the_list_of_models_back_is_asked_all_the_same(
    tmp_path: Path, status: int, said: str
) -> None:
    async def keep_back(_: web.Request) -> web.Response:
        return web.Response(status=status, text=said)

    async with gateway(tmp_path, keep_back) as models:
        assert text_of(await parts(models)) == "예."


async def test_a_context_that_a_gateway_has_told_is_known_while_it_keeps_the_list_back(tmp_path: Path) -> None:
    replies = iter([{"data": [{"id": "hosted", "max_model_len": 4096}]}])

    async def tell_once(_: web.Request) -> web.Response:
        told = next(replies, None)
        return web.Response(status=429) if told is None else web.json_response(told)

    async with gateway(tmp_path, tell_once) as models:
        assert models.context_tokens == 4096
        models.pool.members[0].tokenizer_checked = False  # as once its breaker was open
        assert text_of(await parts(models)) == "예."
        assert models.context_tokens == 4096


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

    entry: dict[str, Any] = {"omit": ["logprobs", "temperature", "seed"], "length_field": "max_completion_tokens"}
    async with streaming(tmp_path, answer=answer, **entry) as models:
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


def chunk(delta: object, reason: str | None = None) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': reason}]})}\n\n".encode()


def usage_chunk(**usage: object) -> bytes:
    return f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode()


ROLE, YES = chunk({"role": "assistant", "content": ""}), chunk({"content": "예."})
STOP, DONE = chunk({}, "stop"), b"data: [DONE]\n\n"


@asynccontextmanager
async def streaming(
    folder: Path, *pieces: bytes, answer: Handler | None = None, first_word: bool = True, **entry: Any
) -> AsyncGenerator[Models]:
    """Open a server that answers chats with these bytes, or by a handler; also the boot's unless `first_word`."""

    async def say(request: web.Request) -> web.StreamResponse:
        if first_word and (await request.json())["messages"][-1]["content"] == "ping":
            return web.Response(body=YES + STOP + DONE)
        if answer is not None:
            return await answer(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", say)
    async with (
        TestServer(app) as server,
        opened(folder, [(PLAIN, HOSTED | entry)], urls=[str(server.make_url("/"))]) as (models, _),
    ):
        yield models


@pytest.mark.parametrize(
    "thinking",
    [
        {"reasoning_content": "생각"},
        {"reasoning": "생각"},
        {"reasoning": {"summary": [{"text": "생각"}]}},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "생각"}]}]},
    ],
)
async def test_thinking_that_it_tells_apart_is_no_text_and_is_charged_as_it_counts(
    tmp_path: Path, thinking: dict[str, Any]
) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 28}}
    async with streaming(tmp_path, ROLE, chunk(thinking), YES, STOP, usage_chunk(**usage), DONE) as models:
        generated = await parts(models, thinking=100)
        assert text_of(generated) == "예."
        assert [part for part in generated if isinstance(part, Thought)] != []
        charged = generated[-1].usage
        assert (charged.prompt_tokens, charged.answer_tokens, charged.thinking_tokens) == (50, 2, 28)


async def test_a_chunk_may_hold_the_end_of_the_thinking_and_the_beginning_of_the_answer(tmp_path: Path) -> None:
    both = chunk({"reasoning_content": "생각", "content": "아니오, "})
    async with streaming(tmp_path, both, YES, STOP, DONE) as models:
        assert text_of(await parts(models, thinking=100)) == "아니오, 예."


async def test_where_the_server_tells_thinking_apart_its_text_is_the_answer_though_the_template_opens_a_block(
    tmp_path: Path,
) -> None:
    folder = write_tokenizer(tmp_path / "opening", template="opening")
    async with streaming(
        tmp_path, chunk({"reasoning_content": "생각"}), YES, STOP, DONE, tokenizer=str(folder)
    ) as models:
        assert text_of(await parts(models, thinking=100)) == "예."


async def test_a_server_that_knows_no_length_is_left_at_twice_what_was_asked_for(tmp_path: Path) -> None:
    async with streaming(tmp_path, *[chunk({"content": "가나"})] * 500, STOP, DONE) as models:
        generated = await parts(models, most=50)
        assert len(text_of(generated)) <= 100
        assert generated[-1].finish_reason == "length"
        assert generated[-1].usage.answer_tokens <= 100


@pytest.mark.parametrize("name", ["content", "reasoning_content"])
@pytest.mark.parametrize("text", ["가나 " * 20_000, " " * 1_000_000], ids=["words", "blanks"])
async def test_a_chunk_that_is_longer_than_an_answer_is_left_where_that_ends(
    tmp_path: Path, name: str, text: str
) -> None:
    async with streaming(tmp_path, chunk({name: text}), YES, STOP, DONE) as models:
        generated = await parts(models, most=50, thinking=50)
        assert len(text_of(generated)) < 500
        assert generated[-1].finish_reason == "length"
        assert generated[-1].usage.generated_tokens < 1000


async def test_white_space_between_thinking_and_answer_is_none_of_it(tmp_path: Path) -> None:
    pieces = (chunk({"reasoning_content": "생각"}), chunk({"content": "\n\n"}), YES, STOP, DONE)
    async with streaming(tmp_path, *pieces) as models:
        assert text_of(await parts(models, thinking=100)) == "예."


@pytest.mark.parametrize(
    ("begins", "told"), [("생각\n</think>\n\n", True), ("</think>\n\n", False), ("<think>생각</think>", False)]
)
async def test_thinking_that_nobody_opened_is_told_to_operators(tmp_path: Path, begins: str, *, told: bool) -> None:
    async with streaming(tmp_path, chunk({"content": begins}), YES, STOP, DONE) as models:
        with capture_logs() as logs:
            await parts(models, thinking=100)
    assert ("thinking_not_opened" in [entry["event"] for entry in logs]) == told


@pytest.mark.parametrize(
    ("usage", "charged"),
    [
        # xAI's and Gemini's completion is without the thinking.
        (
            {"prompt_tokens": 50, "completion_tokens": 2, "total_tokens": 80}
            | {"completion_tokens_details": {"reasoning_tokens": 28}},
            (50, 2, 28),
        ),
        ({"prompt_tokens": 50, "completion_tokens": 2, "total_tokens": 80}, (50, 2, 28)),
        ({"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 80}, (50, 30, 0)),
        ({"prompt_tokens": 50, "completion_tokens": 30, "total_tokens": 0}, (50, 30, 0)),
    ],
)
async def test_thinking_that_is_counted_beside_the_answer_is_charged(
    tmp_path: Path, usage: dict[str, Any], charged: tuple[int, int, int]
) -> None:
    async with streaming(tmp_path, YES, STOP, usage_chunk(**usage), DONE) as models:
        done = (await parts(models, thinking=100))[-1].usage
        assert (done.prompt_tokens, done.answer_tokens, done.thinking_tokens) == charged


NOT_THE_ANSWER = {
    "Azure's verdict on the prompt": b'data: {"choices":[],"prompt_filter_results":[{"prompt_index":0}]}\n\n',
    "a byte order mark": b"\xef\xbb\xbf",
    "a frame without data": b"data:\n\ndata: \n\n",
    "a comment": b": OPENROUTER PROCESSING\r\n\r\n",
    "no error": b'data: {"choices":[],"error":""}\n\ndata: {"choices":[],"error":null}\n\n',
    "no choices": b'data: {"choices":null,"usage":null}\n\n',
    "a ping": b'event: ping\ndata: {"type":"ping"}\n\n',
    "a delta that is none": b'data: {"choices":[{"index":0,"delta":null,"finish_reason":""}]}\n\n',
}


@pytest.mark.parametrize("before", NOT_THE_ANSWER.values(), ids=NOT_THE_ANSWER)
async def test_what_other_servers_send_beside_the_answer_costs_no_text_of_it(tmp_path: Path, before: bytes) -> None:
    async with streaming(tmp_path, before + YES, STOP, DONE) as models:
        assert text_of(await parts(models)) == "예."


async def test_a_content_may_be_a_list_of_parts(tmp_path: Path) -> None:
    listed = chunk({"content": [{"type": "text", "text": "네, "}, {"type": "reference", "text": "[1]"}]})
    async with streaming(tmp_path, listed, YES, STOP, DONE) as models:
        assert text_of(await parts(models)) == "네, 예."


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("eos_token", "stop"),
        ("STOP", "stop"),
        ("tool_calls", "stop"),
        ("MAX_TOKENS", "length"),
        ("repetition", "length"),
    ],
)
async def test_every_servers_word_for_the_end_is_an_end(tmp_path: Path, reason: str, meaning: str) -> None:
    async with streaming(tmp_path, YES, chunk({}, reason), DONE) as models:
        assert (await parts(models))[-1].finish_reason == meaning


async def test_what_one_role_says_in_a_row_is_sent_as_one_message(tmp_path: Path) -> None:
    sent: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        sent.extend((await request.json())["messages"])
        return web.Response(body=YES + STOP + DONE)

    async with streaming(tmp_path, answer=answer) as models:
        await parts(models, chat=(*CHAT, Message("user", "둘")))
    assert [message["role"] for message in sent] == ["system", "user"]
    assert sent[1]["content"] == f"{CHAT[1].content}\n\n둘"


def refusing(status: int, error: dict[str, str], *, streams: bool = True, probes: bool = True) -> Handler:
    """Return a handler that refuses questions, probes or both as a server does."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if streams if (await request.json()).get("stream") else probes:
            return web.json_response({"error": {"message": "a customer's words", **error}}, status=status)
        return web.Response(body=YES + STOP + DONE)

    return answer


UNSUPPORTED = {"type": "invalid_request_error", "code": "unsupported_parameter", "param": "max_tokens"}


async def test_one_that_refuses_what_every_question_sends_ends_the_boot_with_the_names_of_it(tmp_path: Path) -> None:
    sentence = (
        r"\(400: unsupported_parameter, max_tokens, invalid_request_error\), of one word: see `omit`, `length_field`"
    )
    with pytest.raises(ModelsMisconfigured, match=sentence) as ended:
        async with streaming(tmp_path, answer=refusing(400, UNSUPPORTED), first_word=False):
            pass
    assert "customer" not in str(ended.value)


async def test_one_that_never_says_that_an_answer_is_whole_is_not_begun_with(tmp_path: Path) -> None:
    with capture_logs() as logs:
        async with streaming(tmp_path, YES, DONE, first_word=False) as models:
            assert not models.pool.members[0].available
    assert "without a reason (`finish_reason`)" in logs[0]["error"]


@pytest.mark.parametrize(
    ("status", "error"), [(400, UNSUPPORTED), (403, {"type": "invalid_request_error"}), (422, {"code": "logprobs"})]
)
async def test_one_that_refuses_probes_has_no_opinion_and_answers(
    tmp_path: Path, status: int, error: dict[str, str]
) -> None:
    async with streaming(tmp_path, answer=refusing(status, error, streams=False)) as models:
        for _ in range(20):
            assert await asked(models) == (0.5, 0.5)
        assert text_of(await parts(models)) == "예."


@pytest.mark.parametrize("first_word", [True, False], ids=["this question", "everything"])
async def test_one_that_refuses_everything_from_now_on_is_left(tmp_path: Path, *, first_word: bool) -> None:
    begun = anyio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        if begun.is_set():
            return await refusing(400, UNSUPPORTED)(request)
        return web.Response(body=YES + STOP + DONE)

    async with streaming(tmp_path, answer=answer, first_word=first_word) as models:
        begun.set()
        for _ in range(20):
            with pytest.raises(ModelUnavailable):
                await parts(models)
        (member,) = models.pool.members
        with anyio.fail_after(patient(10)), capture_logs() as logs:  # tried out behind the customers' backs
            while member.breaker.state is BreakerState.CLOSED and member._tried_out_at < 0:
                await anyio.sleep(0.01)
            while not (first_word or logs):
                await anyio.sleep(0.01)
        assert member.available == first_word


async def test_a_firewall_before_one_server_keeps_no_question_from_another(tmp_path: Path) -> None:
    async def behind_a_firewall(request: web.Request) -> web.StreamResponse:
        if (await request.json())["messages"][-1]["content"] == "ping":
            return web.Response(body=YES + STOP + DONE)
        return web.Response(status=403, body=b"<html>Forbidden</html>")

    async def free(_: web.Request) -> web.StreamResponse:
        return web.Response(body=YES + STOP + DONE)

    async with AsyncExitStack() as stack:
        urls: list[str] = []
        for answer in (behind_a_firewall, free):
            app = web.Application()
            app.router.add_post("/v1/chat/completions", answer)
            urls.append(str((await stack.enter_async_context(TestServer(app))).make_url("/")))
        models, _ = await stack.enter_async_context(opened(tmp_path, [(PLAIN, HOSTED)], urls=urls))
        for n in range(10):
            assert text_of(await parts(models, conversation_id=f"c{n}")) == "예."


class NoConnection(aiohttp.BaseConnector):
    """Notes how long each connection may take, and gives none."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float | None] = []

    async def connect(self, *_: object, **given: object) -> Connection:
        assert isinstance(given["timeout"], aiohttp.ClientTimeout)
        self.seconds.append(given["timeout"].sock_connect)
        raise OSError


async def test_a_connection_over_the_internet_has_time_for_a_packet_that_is_lost(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path)
    entry = ModelsFileEntry.model_validate({"name": "m", "urls": "http://m", "tokenizer": tokenizer, **HOSTED})
    connector, access = NoConnection(), Access()
    async with aiohttp.ClientSession(connector=connector) as http:
        counts = await anyio.to_thread.run_sync(entry.load_tokenizer)
        hosted = ChatEndpoint(http, "http://m", entry.read_deadlines(), counts=counts, entry=entry, access=access)
        for endpoint in (Endpoint(http, "http://m", entry.read_deadlines()), hosted):
            with pytest.raises(EndpointFailed):
                await endpoint.top_tokens(one_word(counts, Sampling(max_tokens=1), 5), top=1)
    ours, theirs = connector.seconds
    assert ours == CONNECT_SECONDS
    assert theirs is not None
    assert theirs > 1 + 2 * CONNECT_SECONDS


async def test_a_model_that_thinks_all_its_tokens_long_refuses_nothing(tmp_path: Path) -> None:
    said = {"message": "Could not finish the message because max_tokens or model output limit was reached."}
    async with streaming(tmp_path, answer=refusing(400, said), first_word=False) as models:
        assert models.pool.members[0].available


@pytest.mark.parametrize("api", ["vllm", "openai"])
async def test_thinking_of_an_unknown_form_is_left_to_a_server_that_tells_it_apart(tmp_path: Path, api: str) -> None:
    tokenizer = write_tokenizer(tmp_path / "own")
    template = json.loads((tokenizer / "tokenizer_config.json").read_text("utf-8"))["chat_template"]
    unknown = "{%- if messages[0].reasoning_content %}{%- endif %}"
    (tokenizer / "chat_template.jinja").write_text(template + unknown, "utf-8")
    entry = (HOSTED if api == "openai" else {}) | {"tokenizer": str(tokenizer)}
    if api == "openai":
        async with opened(tmp_path, [(PLAIN, entry)]) as (models, _):
            assert models.pool.members[0].available
    else:
        with pytest.raises(ModelsMisconfigured, match="thinks in a form of its own"):
            async with opened(tmp_path, [(Behaviour(), entry)]):
                pytest.fail("its thinking would be shown")


async def test_a_question_that_the_content_filter_refuses_costs_no_endpoint(tmp_path: Path) -> None:
    async with streaming(tmp_path, answer=refusing(400, {"code": "content_filter"})) as models:
        for _ in range(10):
            with pytest.raises(ModelUnavailable):
                await asked(models)
            with pytest.raises(ModelUnavailable):
                await parts(models)
        (member,) = models.pool.members
        assert member.available


def reported(**error: object) -> bytes:
    return json.dumps({"error": {"message": "a customer's words", **error}}).encode()


QUESTION_AT_FAULT = {
    "SGLang: too long": b"data: " + reported(type="BadRequestError", code=400) + b"\n\n" + DONE,
    "llama.cpp: too long": b"error: " + reported(code=400, type="exceed_context_size_error") + b"\n\n",
    "TGI: too long": b'data: {"error":"a customer\'s words","error_type":"validation"}\n\n',
    "OpenAI: too long": b"data: " + reported(type="invalid_request_error", code=None) + b"\n\n",
    "a gateway: filtered": b"event: error\ndata: " + reported(code="content_filter") + b"\n\n",
    "Alibaba: filtered": b"data: " + reported(code="data_inspection_failed") + b"\n\n",
    "no stream": reported(code=400),
    "no stream: a line": reported(code=400) + b"\n",
    "no stream: lines": json.dumps({"error": {"code": 400}}, indent=1).replace("\n", "\r\n").encode() + b"\r\n",
}
FULL = {
    "LiteLLM": b"data: " + reported(type="throttling_error", param="None", code="429") + b"\n\n",
    "TGI": b'event: error\ndata: {"error":"Model is overloaded","error_type":"overloaded"}\n\n',
    "Anthropic behind a gateway": b"event: error\ndata: " + reported(type="overloaded_error") + b"\n\n",
    "OpenAI": b"data: " + reported(type="tokens", code="rate_limit_exceeded") + b"\n\n",
    "no stream": reported(code=429),
}


@pytest.mark.parametrize("piece", QUESTION_AT_FAULT.values(), ids=QUESTION_AT_FAULT)
async def test_a_refusal_in_a_reply_that_begins_well_is_the_questions_fault(tmp_path: Path, piece: bytes) -> None:
    async with streaming(tmp_path, piece) as models:
        for _ in range(10):
            with capture_logs() as logs, pytest.raises(ModelUnavailable):
                await parts(models)
        assert models.pool.members[0].available
    assert logs[0]["outcome"] == "refused"
    assert "customer" not in logs[0]["error"]


@pytest.mark.parametrize("piece", FULL.values(), ids=FULL)
async def test_a_full_queue_that_is_told_in_a_reply_that_begins_well_is_one(tmp_path: Path, piece: bytes) -> None:
    async with streaming(tmp_path, piece) as models:
        for _ in range(10):
            with pytest.raises(Overloaded):
                await parts(models)
        assert models.pool.members[0].available


async def test_a_probe_that_is_refused_in_a_reply_that_begins_well_is_the_questions_fault(tmp_path: Path) -> None:
    async with streaming(tmp_path, reported(code=400)) as models:
        for _ in range(10):
            assert await asked(models) == (0.5, 0.5)
        assert models.pool.members[0].available


async def test_a_probe_in_the_background_waits_as_long_as_a_first_token_may_take(tmp_path: Path) -> None:
    async def late(_: web.Request) -> web.Response:
        await anyio.sleep(1.7)
        return web.Response(body=YES + STOP + DONE)

    async with streaming(tmp_path, answer=late, first_word=False) as models:
        (member,) = models.pool.members
        member.breaker = Breaker(BreakerSettings(open_seconds=0.1))
        member.breaker.trip()
        with anyio.fail_after(patient(10)):
            while not member.available:
                await anyio.sleep(0.05)
        assert text_of(await parts(models)) == "예."


@pytest.mark.parametrize("reason", ["content_filter", "SAFETY", "sensitive"])
async def test_a_content_filter_ends_the_answer_and_no_endpoint(tmp_path: Path, reason: str) -> None:
    async with streaming(tmp_path, chunk({}, reason), DONE) as models:
        for _ in range(20):
            with pytest.raises(ModelUnavailable):
                await parts(models)
        (member,) = models.pool.members
        assert member.available


@pytest.mark.parametrize(
    "piece",
    [
        chunk({}, "network_error") + DONE,
        chunk({"content": "예"}) + b"data: " + reported(code=400) + b"\n\n" + DONE,
        chunk({"content": "예"}) + reported(code=400),
    ],
    ids=["a reason", "a refusal", "a refusal that is no event"],
)
async def test_a_server_that_breaks_answers_off_is_left(tmp_path: Path, piece: bytes) -> None:
    async with streaming(tmp_path, piece) as models:
        for _ in range(20):
            with pytest.raises(ModelUnavailable):
                await parts(models)
        (member,) = models.pool.members
        assert not member.available


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": "예"}, "logprobs": {"content": [{"token": "예", "top_logprobs": None}]}},
        {"message": {"content": "예"}, "logprobs": {"tokens": ["예"], "token_logprobs": [0.0]}},
        {"message": {"content": "예"}, "logprobs": []},
        {"message": {"content": [{"type": "text", "text": "예"}]}, "logprobs": None},
    ],
)
async def test_a_probe_takes_its_word_where_its_log_probabilities_have_another_shape(
    tmp_path: Path, choice: dict[str, Any]
) -> None:
    reply = json.dumps({"choices": [choice], "usage": {"prompt_tokens": "?"}})
    async with streaming(tmp_path, reply.encode()) as models:
        assert await asked(models) == (1.0, 0.0)


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
