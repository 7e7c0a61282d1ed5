"""Compare LiteLLM's token limiter with ours: same callers, model and Redis, 1,000 tokens a minute each.

    python -m evals.performance.token_limits FOLDER/bin/litellm

Installs nothing: FOLDER is a separate environment with `litellm[proxy]`. The proxy runs with its Redis limiter and a
key with `tpm_limit: 1000`; our ledger reserves before and settles after the same calls. Both call one model stub, which
counts usage with a real tokenizer (`llm-server fetch cpu-small`) and always answers with the same number of tokens.

A caller opens a window with one question, returns near its end, spends all tokens that are admitted, repeats the
refused question until it is admitted, and then spends and repeats once more. Admitted tokens are those in the model's
usage; the true wait is that of the repeated question. Takes about two and a half minutes.
"""

import os
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from secrets import token_hex
from subprocess import run
from typing import Annotated, Protocol
from uuid import uuid4

import aiohttp
import anyio
import msgspec
import typer
from aiohttp import web
from rich.console import Console

from chatbot.deferred import DeferredSettings, DeferredWrites
from chatbot.errors import RateLimited
from chatbot.events import Usage
from chatbot.limits import Caller, Ledger, LedgerSettings, Limit, LimitSettings
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings, open_redis
from chatbot.tokens import read_tokenizer
from evals.product import answers_200, free_port, run_process, run_redis, wait_until
from ingest.settings import Settings

UNLIMITED = Limit(tokens_per_minute=10**9, requests_per_minute=10**6, concurrent=10**6, tokens_per_day=10**12)
LIMIT = 1000
"""Tokens per minute."""
MOST_ANSWER_TOKENS = 100
ANSWER_TOKENS = 40
ANSWER_SECONDS = 0.3
RETURN_SECONDS = 52.0
CONCURRENT = 40
RETRY_SECONDS = 0.25
SETTLE_SECONDS = 1.0
QUESTIONS: Mapping[str, str] = {
    "English": "What is the fee for an overseas remittance of 5,000 US dollars, and until what time of the day can I "
    "send it so that it arrives on the same business day?",
    "Korean": "해외송금 5,000달러를 보낼 때 수수료가 얼마인가요? "
    "그리고 같은 영업일에 도착하게 하려면 몇 시까지 신청해야 하나요?",
}
CONFIG = """
model_list:
  - model_name: measured
    litellm_params: {{model: openai/measured, api_base: "{model}/v1", api_key: none, max_retries: 0}}
litellm_settings:
  num_retries: 0
  cache: true
  cache_params: {{type: redis, host: 127.0.0.1, port: {redis_port}, supported_call_types: []}}
general_settings:
  custom_auth: caller.user_api_key_auth
"""
CALLER = f"""
from litellm.proxy._types import UserAPIKeyAuth


async def user_api_key_auth(request, api_key):
    return UserAPIKeyAuth(api_key=api_key, tpm_limit={LIMIT})
"""


class Refused(Exception):
    """The limiter refused; `retry_after` is its Retry-After in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


class Limiter(Protocol):
    """Admits or refuses questions to the model."""

    async def ask(self, caller: str, question: str) -> int:
        """Return the tokens of the model's usage.

        Raises:
            Refused: the caller is over the limit.
        """
        ...


class ModelUsage(msgspec.Struct, frozen=True):
    """An answer's usage as counted by the model."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Completion(msgspec.Struct, frozen=True):
    """The fields of a chat completion that are used here."""

    usage: ModelUsage


@dataclass(frozen=True, slots=True)
class LiteLlmProxy:
    """LiteLLM's proxy, over HTTP."""

    http: aiohttp.ClientSession
    url: str

    async def ask(self, caller: str, question: str) -> int:
        headers = {"authorization": f"Bearer sk-{caller}"}
        async with self.http.post(
            f"{self.url}/v1/chat/completions", json=request_body(question), headers=headers
        ) as reply:
            if reply.status == 429:
                raise Refused(float(reply.headers.get("retry-after", "nan")))
            reply.raise_for_status()
            return msgspec.json.decode(await reply.read(), type=Completion).usage.tokens


@dataclass(frozen=True, slots=True)
class LedgerLimiter:
    """Our ledger around the same model call."""

    http: aiohttp.ClientSession
    url: str
    ledger: Ledger
    prompt_tokens: Callable[[str], int]

    async def ask(self, caller: str, question: str) -> int:
        try:
            reservation = await self.ledger.reserve(
                Caller(tenant=caller, sub=caller, model="measured"),
                prompt_tokens=self.prompt_tokens(question),
                answer_tokens=MOST_ANSWER_TOKENS,
                lease_seconds=60,
            )
        except RateLimited as exc:
            raise Refused(exc.retry_after or 0.0) from exc
        async with self.http.post(f"{self.url}/v1/chat/completions", json=request_body(question)) as reply:
            reply.raise_for_status()
            used = msgspec.json.decode(await reply.read(), type=Completion).usage
        usage = Usage(prompt_tokens=used.prompt_tokens, answer_tokens=used.completion_tokens)
        await self.ledger.settle(reservation, usage)
        return used.tokens


def request_body(question: str) -> dict[str, object]:
    """Return the body of a chat completion, the same for both limiters."""
    messages = [{"role": "user", "content": question}]
    return {"model": "measured", "messages": messages, "max_tokens": MOST_ANSWER_TOKENS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The Retry-After of a refusal and the true wait, in seconds."""

    retry_after: float
    true: float


@dataclass(slots=True, kw_only=True)
class Visit:
    """One caller at one limiter: (seconds, tokens) of each admitted answer, and the waits after refusals."""

    limiter: Limiter
    name: str
    language: str
    caller: str = field(default_factory=lambda: uuid4().hex)
    admitted: list[tuple[float, int]] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)

    async def run(self) -> None:
        """Open a window, return near its end, then spend and wait twice."""
        await self.ask()
        await anyio.sleep(RETURN_SECONDS)
        for _ in range(2):
            refused = await self.spend()
            refused_at = time.monotonic()
            while await self.ask_or_refusal() is not None:  # noqa: ASYNC110  only the limiter knows
                await anyio.sleep(RETRY_SECONDS)
            self.waits.append(Wait(retry_after=refused.retry_after, true=time.monotonic() - refused_at))

    async def spend(self) -> Refused:
        """Ask many times at once, then one by one, until a question is refused while no other is running."""
        async with anyio.create_task_group() as burst:
            for _ in range(CONCURRENT):
                burst.start_soon(self.ask_or_refusal)
        while True:
            await anyio.sleep(SETTLE_SECONDS)
            refused = await self.ask_or_refusal()
            if refused is not None:
                return refused

    async def ask_or_refusal(self) -> Refused | None:
        """Ask; return the refusal, or None if admitted."""
        try:
            await self.ask()
        except Refused as exc:
            return exc
        return None

    async def ask(self) -> None:
        """Ask, and record the admitted tokens.

        Raises:
            Refused: the caller is over the limit.
        """
        asked_at = time.monotonic()
        tokens = await self.limiter.ask(self.caller, QUESTIONS[self.language])
        self.admitted.append((asked_at, tokens))

    def most_tokens(self, seconds: float) -> int:
        """Return the most tokens admitted in any window of this many seconds."""
        return max(self._tokens_between(start, start + seconds) for start, _ in self.admitted)

    def _tokens_between(self, start: float, end: float) -> int:
        return sum(tokens for asked_at, tokens in self.admitted if start <= asked_at < end)


@asynccontextmanager
async def serve_model(count_tokens: Callable[[str], int], port: int) -> AsyncGenerator[None]:
    """Serve the model stub, which counts prompt tokens like a real model, while the block runs."""

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        prompt_tokens = sum(count_tokens(message["content"]) for message in body["messages"])
        await anyio.sleep(ANSWER_SECONDS)
        return web.json_response(
            {
                "id": uuid4().hex,
                "object": "chat.completion",
                "created": int(time.time()),
                "model": "measured",
                "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "네. " * 9}}
                ],
                "usage": {
                    "prompt_tokens": prompt_tokens,
                    "completion_tokens": ANSWER_TOKENS,
                    "total_tokens": prompt_tokens + ANSWER_TOKENS,
                },
            }
        )

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", complete)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


async def measure(proxy: str, model_port: int, redis_url: str, count_tokens: Callable[[str], int]) -> Sequence[Visit]:
    """Run the visits of all callers concurrently."""
    user_limit = UNLIMITED.model_copy(update={"tokens_per_minute": LIMIT})
    limits = LedgerSettings(limits=LimitSettings(tenant=UNLIMITED, user=user_limit, model=UNLIMITED))
    breaker = RedisBreaker(RedisBreakerSettings(slow_after=10))
    async with (
        serve_model(count_tokens, model_port),
        open_redis(redis_url) as client,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http,
    ):
        ledger = Ledger(client, breaker, limits, deferred=DeferredWrites(DeferredSettings()))
        limiters: Mapping[str, Limiter] = {
            "LiteLLM": LiteLlmProxy(http, proxy),
            "ours": LedgerLimiter(http, f"http://127.0.0.1:{model_port}", ledger, count_tokens),
        }
        visits = [
            Visit(limiter=limiter, name=name, language=language)
            for language in QUESTIONS
            for name, limiter in limiters.items()
        ]
        async with anyio.create_task_group() as tasks:
            for visit in visits:
                tasks.start_soon(visit.run)
    return visits


def table(visits: Sequence[Visit], count_tokens: Callable[[str], int]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| limiter | question (tokens, characters ÷ 4) | most admitted in any 60 s | over the limit "
        "| Retry-After | true wait |",
        "|---|---|---|---|---|---|",
    ]
    for visit in visits:
        question = QUESTIONS[visit.language]
        size = f"{visit.language} ({count_tokens(question)}, {len(question) // 4})"
        most = visit.most_tokens(60)
        retry_after = ", then ".join(f"{wait.retry_after:.1f} s" for wait in visit.waits)
        true_wait = ", then ".join(f"{wait.true:.1f} s" for wait in visit.waits)
        over = f"{most / LIMIT:.2f} ×" if most > LIMIT else "never"
        lines.append(f"| {visit.name} | {size} | {most:,} | {over} | {retry_after} | {true_wait} |")
    return "\n".join(lines)


def compare(litellm: Path, environment: Mapping[str, str]) -> str:
    """Start Redis and the proxy, measure, and return the table.

    Raises:
        ProductNotStarted: a part did not start.
    """
    count_text_tokens, _ = read_tokenizer(Settings().weights_dir.expanduser() / "cpu-small")

    def count_tokens(question: str) -> int:
        return count_text_tokens(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")

    with tempfile.TemporaryDirectory(prefix="token-limits-") as folder:
        data, port, model_port = Path(folder), free_port(), free_port()
        with run_redis(data, environment) as (redis_url, _):
            config = data / "config.yaml"
            redis_port = redis_url.rpartition(":")[2].partition("/")[0]
            config.write_text(CONFIG.format(model=f"http://127.0.0.1:{model_port}", redis_port=redis_port), "utf-8")
            (data / "caller.py").write_text(CALLER, "utf-8")
            serve = [str(litellm), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
            command = ["sh", "-c", 'exec "$0" "$@" >&2', *serve]
            settings = {"LITELLM_MASTER_KEY": f"sk-{token_hex(16)}", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
            log, proxy = data / "litellm.log", f"http://127.0.0.1:{port}"
            with run_process(command, log=log, environment={**environment, **settings}) as process:
                wait_until(lambda: answers_200(f"{proxy}/health/liveliness"), process, log=log)
                visits = anyio.run(partial(measure, proxy, model_port, redis_url, count_tokens))
    return table(visits, count_tokens)


def main(
    litellm: Annotated[Path, typer.Argument(help="The `litellm` program of an environment with `litellm[proxy]`.")],
) -> None:
    """Measure both limiters, and print LiteLLM's version and the table."""
    console = Console(soft_wrap=True, highlight=False)
    results = compare(litellm, dict(os.environ))  # noqa: TID251  the command line's own edge: what the parts start with
    console.print(run([litellm, "--version"], capture_output=True, text=True, check=True).stdout.strip())  # noqa: S603
    console.print(results)


if __name__ == "__main__":
    typer.run(main)
