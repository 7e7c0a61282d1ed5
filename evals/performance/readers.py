"""`python -m evals.performance.readers`: thousands of readers on two replicas; exits with code 1 over a bound.

Each answer has the reader who asked for it and others who follow it; half of all readers use the replica that does not
write the answer. The scripted model emits a token every few seconds, so that all answers run at the same time. During
this, every tenth reader stops reading, and another customer in a separate process keeps asking; their first token is
compared with that of the same customer alone. In the end each reader must have read every event of their answer
exactly once, in order, and the same as the other readers. All processes share this machine; the readers' process runs
only on idle cores.
"""

import asyncio
import hashlib
import json
import math
import os
import re
import resource
import sys
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from shutil import copytree, ignore_patterns
from urllib.parse import urlsplit

import anyio
from rich.console import Console

from chatbot.api import key_pair
from evals.performance.bench import QUESTION, BenchFigure, run_measurement
from evals.performance.load import NO_LIMITS, quantile, sampled_memory
from evals.product import (
    ProductSpec,
    RunningProduct,
    run_product,
    run_replica,
    run_scripted_model,
    scripted_settings,
    started_part,
)
from evals.quality import loaded_corpus
from evals.questions import HANBIT, TENANT, read_dataset
from ingest.settings import Settings
from knowledge.identity import Principal
from llm_server.scripted import Behaviour

TOKEN_SECONDS = 5.0
"""Less than the model's deadline for the next token."""
PROFILE = "about: answers that last for as long as they are read\ndeadlines: {prefill: .inf, base: 8, answer: 3600}\n"
STALLED = 10
"""One in this many readers stops reading for a while."""
SPARE_FILES = 400
AGAIN_SECONDS = 0.3
SETTINGS = {
    **NO_LIMITS,
    "TURN__ANSWER": "written",
    "TURN__ANSWERABILITY__THRESHOLD": "0",
    "TURN__PROBES": "false",
    "ADMISSION__SLOTS": "4000",
    "ADMISSION__FIRST_TOKEN_TARGET": "600",  # never refuse a question, however busy the machine is
}


@dataclass(frozen=True, kw_only=True)
class ReadersPlan:
    """The number of answers, readers per answer, the time all of them are held, and the other customer's questions."""

    answers: int = 1000
    readers_each: int = 10
    opened_at_once: int = 8
    seconds: float = 60.0
    questions: int = 200
    answer_tokens: int = 90


class Reader(asyncio.Protocol):
    """One reader of one answer, who reconnects after a broken connection; uses HTTP/1.0 to avoid chunked encoding."""

    def __init__(self, url: str, token: str, answer_id: str = "") -> None:
        """Ask a new question if `answer_id` is empty."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self.token = token
        self.answer_id = answer_id
        self.read = 0
        self.digest = hashlib.sha256()
        self.in_order = True
        self.came_back = self.refused = 0
        self.begun, self.spoke, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._head = True
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        """Open a connection and send the request."""
        body, head = b"", f"GET /v1/answers/{self.answer_id}/events HTTP/1.0\r\n"
        if not self.answer_id:
            body = json.dumps({"message": QUESTION}).encode()
            head = f"POST /v1/chat HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        elif self.read:
            head += f"last-event-id: {self.answer_id}.{self.read}\r\n"
        self._head, self._buffer = True, b""
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)
        transport.write(f"{head}authorization: Bearer {self.token}\r\n\r\n".encode() + body)

    def stall(self, *, stalled: bool) -> None:
        """Stop or resume reading."""
        if self._transport is not None and not self._transport.is_closing():
            if stalled:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def leave(self) -> None:
        self.ended.set()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._head:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 200 " not in head[:20]:
                self.refused += 1
                if self._transport is not None:
                    self._transport.close()
                return
            self._head, self._buffer = False, rest
        *events, self._buffer = re.split(rb"\r?\n\r?\n", self._buffer)
        for event in events:
            self._take(event)

    def _take(self, event: bytes) -> None:
        fields = dict(line.partition(b": ")[::2] for line in event.splitlines())
        if b"id" not in fields:  # a heartbeat
            return
        answer_id, _, n = fields[b"id"].decode("ascii").rpartition(".")
        self.in_order = self.in_order and int(n) == self.read + 1
        self.read = int(n)
        self.answer_id = answer_id
        self.digest.update(fields[b"event"] + b"\n" + fields[b"data"] + b"\n")
        self.begun.set()
        if fields[b"event"] == b"token":
            self.spoke.set()
        if fields[b"event"] in {b"done", b"error"}:
            self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.ended.is_set():
            self.came_back += 1
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, lambda: asyncio.ensure_future(self.connect()))


@dataclass(slots=True)
class Readers:
    """All readers, on two replicas."""

    replicas: tuple[RunningProduct, RunningProduct]
    all: list[Reader] = field(default_factory=list)
    _asked: int = 0

    def token(self) -> str:
        """Return a token for a new customer."""
        self._asked += 1
        roles, groups = frozenset({"customer"}), frozenset({"customers"})
        who = Principal(tenant=TENANT, sub=f"reader-{self._asked}", roles=roles, groups=groups)
        return self.replicas[0].signer.token(who)[0]

    async def ask(self, n: int, *, others: int) -> None:
        """Ask on one replica, and let others follow the answer, alternating between the replicas."""
        token = self.token()
        first = Reader(self.replicas[n % 2].url, token)
        await first.connect()
        await first.begun.wait()
        along = [Reader(self.replicas[(n + k) % 2].url, token, first.answer_id) for k in range(1, others + 1)]
        for reader in along:
            await reader.connect()
        self.all += [first, *along]

    async def another_asks(self, process: Executor, questions: int, *, every: float) -> list[float]:
        """Return the seconds to the first token of each question by another customer."""
        urls, tokens = [replica.url for replica in self.replicas], [self.token() for _ in range(questions)]
        return await asyncio.get_running_loop().run_in_executor(process, first_tokens, urls, tokens, every)


def first_tokens(urls: Sequence[str], tokens: Sequence[str], every: float) -> list[float]:
    """Ask once with each token, alternating between the replicas; return the seconds to each first token."""

    async def ask() -> list[float]:
        seconds: list[float] = []
        for n, token in enumerate(tokens):
            began = time.perf_counter()
            asking = Reader(urls[n % len(urls)], token)
            await asking.connect()
            await asking.spoke.wait()
            seconds.append(time.perf_counter() - began)
            asking.leave()
            await asyncio.sleep(every)
        return seconds

    return asyncio.run(ask())


async def at_once(most: int, work: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run all of the work, at most `most` items at once."""
    places = anyio.CapacityLimiter(most)

    async def do(one: Callable[[], Awaitable[None]]) -> None:
        async with places:
            await one()

    async with anyio.create_task_group() as tasks:
        for one in work:
            tasks.start_soon(do, one)


@asynccontextmanager
async def two_replicas(spec: ProductSpec, plan: ReadersPlan) -> AsyncGenerator[tuple[RunningProduct, RunningProduct]]:
    """Run two replicas on one Redis and one SQL database, each with its own copy of the index."""
    other = replace(spec, data=spec.data / "second")
    ignored = ignore_patterns("logs", "redis", "second")
    await anyio.to_thread.run_sync(partial(copytree, spec.data, other.data, ignore=ignored))
    said = ("a reader reads on " * plan.answer_tokens)[: plan.answer_tokens]
    slow = Behaviour(slots=8000, answer=said, token_seconds=TOKEN_SECONDS, probe=0.99)
    profile = spec.data / "readers.yaml"
    profile.write_text(PROFILE, "utf-8")
    async with started_part(run_scripted_model(spec, slow)) as model:
        _, public = key_pair(spec.data)
        same = {
            **await anyio.to_thread.run_sync(scripted_settings, spec),
            **SETTINGS,
            "LLM_PROFILE": str(profile),
            "AUDIT_KEY": "a key of sixteen",
            "AUTH__PUBLIC_KEY_FILE": str(public),
            "DATABASE_URL": f"sqlite+aiosqlite:///{spec.data / 'bank.db'}",
        }
        async with (
            started_part(run_product(spec, model, **same)) as first,
            started_part(run_replica(other, model, first, **same)) as second,
        ):
            yield first, second


@dataclass(frozen=True, slots=True)
class Held:
    """Measurements while all read: the other customer's first tokens, the replicas' memory, and who still reads."""

    first_tokens: Sequence[float]
    resident: Sequence[Sequence[float]]
    still: int


async def hold(crowd: Readers, another_asks: Callable[[], Awaitable[list[float]]]) -> Held:
    """Measure beside the readers while one in STALLED of them has stopped reading."""
    first, second = (replica.pids["chatbot"] for replica in crowd.replicas)
    stalled = crowd.all[::STALLED]
    async with sampled_memory(first) as first_resident, sampled_memory(second) as second_resident:
        for reader in stalled:
            reader.stall(stalled=True)
        seconds = await another_asks()
        for reader in stalled:
            reader.stall(stalled=False)
        still = sum(not reader.ended.is_set() for reader in crowd.all)
    return Held(seconds, (first_resident, second_resident), still)


async def readers(plan: ReadersPlan, spec: ProductSpec, settings: Settings, console: Console) -> list[BenchFigure]:
    """Measure the other customer alone and beside the readers, who are held and then read to the end."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
    answers = min(plan.answers, most // plan.readers_each)
    async with loaded_corpus(read_dataset(HANBIT), settings, spec.data, console):
        pass
    async with AsyncExitStack() as parts:
        replicas = await parts.enter_async_context(two_replicas(spec, plan))
        process = parts.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        crowd = Readers(replicas)
        every = plan.seconds / plan.questions
        console.print("another customer alone", highlight=False)
        await crowd.another_asks(process, 10, every=0)
        alone = await crowd.another_asks(process, plan.questions, every=every)
        # Real readers use other machines than the bank, so this process yields to all others.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        console.print(f"{answers} answers, {plan.readers_each} readers each", highlight=False)
        began = time.perf_counter()
        asks = [partial(crowd.ask, n, others=plan.readers_each - 1) for n in range(answers)]
        await at_once(plan.opened_at_once, asks)
        opened = time.perf_counter() - began
        running = sum(not reader.ended.is_set() for reader in crowd.all)
        console.print(f"{running} read after {opened:.0f} s; another customer beside them", highlight=False)
        held = await hold(crowd, partial(crowd.another_asks, process, plan.questions, every=every))
        console.print("everybody reads to the end", highlight=False)
        with anyio.fail_after(3 * TOKEN_SECONDS * plan.answer_tokens):
            for reader in crowd.all:
                await reader.ended.wait()
    return [
        BenchFigure(name="readers at once, in the beginning", value=running, unit=f"of {answers * plan.readers_each}"),
        BenchFigure(name="readers at once, in the end", value=held.still, unit="readers", least=running),
        BenchFigure(name="answers", value=answers, unit="answers"),
        BenchFigure(name="another's first token alone, median", value=quantile(alone, 0.5), unit="s"),
        BenchFigure(name="another's first token alone, p95", value=quantile(alone, 0.95), unit="s"),
        *first_token_figures(held.first_tokens, alone),
        *(growth(n, resident) for n, resident in enumerate(held.resident)),
        BenchFigure(name="readers who lost, doubled or differed in an event", value=lost(crowd.all), unit="", most=0),
        BenchFigure(name="connections that broke", value=sum(reader.came_back for reader in crowd.all), unit=""),
        BenchFigure(name="of them refused", value=sum(reader.refused for reader in crowd.all), unit=""),
    ]


def first_token_figures(seconds: Sequence[float], alone: Sequence[float]) -> list[BenchFigure]:
    """Compare the other customer's first tokens beside the readers with those alone."""
    p95 = quantile(seconds, 0.95)
    return [
        BenchFigure(name="another's first token beside, median", value=quantile(seconds, 0.5), unit="s"),
        BenchFigure(name="another's first token beside, p95", value=p95, unit="s"),
        BenchFigure(name="p95 beside by that alone", value=p95 / quantile(alone, 0.95), unit="×", most=1.5),
    ]


def growth(n: int, resident: Sequence[float]) -> BenchFigure:
    """Compare a replica's memory at the end and at the beginning of the time in which all read."""
    quarter = max(1, len(resident) // 4)
    before, after = (math.fsum(part) / len(part) for part in (resident[:quarter], resident[-quarter:]))
    name = f"growth of replica {n}'s {after / 2**20:.0f} MiB while all read"
    return BenchFigure(name=name, value=100 * (after / before - 1), unit="%", most=5)


def lost(everybody: Sequence[Reader]) -> int:
    """Return how many readers got other events than their answer's first reader, or repeated or out of order."""
    by_answer: defaultdict[str, list[Reader]] = defaultdict(list)
    for reader in everybody:
        by_answer[reader.answer_id].append(reader)
    return sum(
        not reader.in_order or reader.digest.digest() != together[0].digest.digest()
        for together in by_answer.values()
        for reader in together
    )


def main() -> int:
    """Run the measurement, print the figures and return the exit status."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    environment = dict(os.environ)  # noqa: TID251  the edge of the command line; passed to the processes it starts
    return run_measurement("readers", "scripted", partial(readers, ReadersPlan()), environment)


if __name__ == "__main__":
    sys.exit(main())
