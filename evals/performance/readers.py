"""`python -m evals.performance.readers`: thousands of readers on two replicas; exits with code 1 over a bound.

Each answer has the reader who asked for it and others who follow it; half of all readers use the replica that does not
write the answer. The scripted model emits a token every few seconds, so that all answers run at the same time. During
this, every tenth reader stops reading, and another customer in a separate process keeps asking; this customer's first
tokens are compared with those without readers. In the end each reader must have read every event of their answer
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
PROFILE = "about: answers that last as long as the measurement\ndeadlines: {prefill: .inf, base: 8, answer: 3600}\n"
STALL_EVERY = 10
"""One in this many readers stops reading for a while."""
SPARE_FILES = 400
RECONNECT_SECONDS = 0.3
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
    """The number of answers and readers, the seconds in which all read, and the other customer's questions."""

    answers: int = 1000
    readers_each: int = 10
    opened_at_once: int = 8
    seconds: float = 60.0
    questions: int = 200
    answer_tokens: int = 90


class Reader(asyncio.Protocol):
    """One reader of one answer, who reconnects after a broken connection; uses HTTP/1.0 to avoid chunked encoding."""

    def __init__(self, url: str, token: str, answer_id: str = "") -> None:
        """Without an `answer_id` the reader asks a new question."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 0
        self.token = token
        self.answer_id = answer_id
        self.last_event = 0
        self.digest = hashlib.sha256()  # of all events
        self.is_in_order = True
        self.reconnects = 0
        self.refusals = 0
        self.has_begun = asyncio.Event()
        self.has_token = asyncio.Event()
        self.has_ended = asyncio.Event()
        self._expects_head = True
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    async def connect(self) -> None:
        """Open a connection and send the request."""
        body = b""
        head = f"GET /v1/answers/{self.answer_id}/events HTTP/1.0\r\n"
        if not self.answer_id:
            body = json.dumps({"message": QUESTION}).encode()
            head = f"POST /v1/chat HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        elif self.last_event:
            head += f"last-event-id: {self.answer_id}.{self.last_event}\r\n"
        self._expects_head = True
        self._buffer = b""
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: self, self._host, self._port)
        transport.write(f"{head}authorization: Bearer {self.token}\r\n\r\n".encode() + body)

    def pause(self) -> None:
        """Stop reading."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def leave(self) -> None:
        self.has_ended.set()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport if isinstance(transport, asyncio.Transport) else None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._expects_head:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if b" 200 " not in head[:20]:
                self.refusals += 1
                if self._transport is not None:
                    self._transport.close()
                return
            self._expects_head = False
            self._buffer = rest
        *events, self._buffer = re.split(rb"\r?\n\r?\n", self._buffer)
        for event in events:
            self._handle(event)

    def _handle(self, event: bytes) -> None:
        parts = [line.partition(b": ") for line in event.splitlines()]
        fields = {name: value for name, _, value in parts}
        if b"id" not in fields:  # a heartbeat
            return
        answer_id, _, n = fields[b"id"].decode("ascii").rpartition(".")
        self.is_in_order = self.is_in_order and int(n) == self.last_event + 1
        self.last_event = int(n)
        self.answer_id = answer_id
        self.digest.update(fields[b"event"] + b"\n" + fields[b"data"] + b"\n")
        self.has_begun.set()
        if fields[b"event"] == b"token":
            self.has_token.set()
        if fields[b"event"] in {b"done", b"error"}:
            self.has_ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if not self.has_ended.is_set():
            self.reconnects += 1
            asyncio.get_running_loop().call_later(RECONNECT_SECONDS, lambda: asyncio.ensure_future(self.connect()))


@dataclass(slots=True)
class Readers:
    """All readers, on two replicas."""

    replicas: tuple[RunningProduct, RunningProduct]
    all: list[Reader] = field(default_factory=list)
    _customers: int = 0

    def token(self) -> str:
        """Return a token for a new customer."""
        self._customers += 1
        roles, groups = frozenset({"customer"}), frozenset({"customers"})
        customer = Principal(tenant=TENANT, sub=f"reader-{self._customers}", roles=roles, groups=groups)
        return self.replicas[0].signer.token(customer)[0]

    async def ask(self, n: int, *, others: int) -> None:
        """Ask on one replica, and let others follow the answer, alternating between the replicas."""
        token = self.token()
        first = Reader(self.replicas[n % 2].url, token)
        await first.connect()
        await first.has_begun.wait()
        followers = [Reader(self.replicas[(n + k) % 2].url, token, first.answer_id) for k in range(1, others + 1)]
        for follower in followers:
            await follower.connect()
        self.all += [first, *followers]

    async def other_customer(self, process: Executor, questions: int, *, every: float) -> list[float]:
        """Let another customer ask in a process; return the seconds to the first token of each question."""
        urls = [replica.url for replica in self.replicas]
        tokens = [self.token() for _ in range(questions)]
        return await asyncio.get_running_loop().run_in_executor(process, first_tokens, urls, tokens, every)


def first_tokens(urls: Sequence[str], tokens: Sequence[str], every: float) -> list[float]:
    """Ask once with each token, alternating between the replicas; return the seconds to each first token."""

    async def ask() -> list[float]:
        seconds: list[float] = []
        for n, token in enumerate(tokens):
            began = time.perf_counter()
            reader = Reader(urls[n % len(urls)], token)
            await reader.connect()
            await reader.has_token.wait()
            seconds.append(time.perf_counter() - began)
            reader.leave()
            await asyncio.sleep(every)
        return seconds

    return asyncio.run(ask())


async def run_concurrently(most: int, jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run all jobs, at most `most` at once."""
    limiter = anyio.CapacityLimiter(most)

    async def run(job: Callable[[], Awaitable[None]]) -> None:
        async with limiter:
            await job()

    async with anyio.create_task_group() as tasks:
        for job in jobs:
            tasks.start_soon(run, job)


@asynccontextmanager
async def two_replicas(spec: ProductSpec, plan: ReadersPlan) -> AsyncGenerator[tuple[RunningProduct, RunningProduct]]:
    """Run two replicas on one Redis and one SQL database, each with its own copy of the index."""
    other = replace(spec, data=spec.data / "second")
    ignored = ignore_patterns("logs", "redis", "second")
    await anyio.to_thread.run_sync(partial(copytree, spec.data, other.data, ignore=ignored))
    text = ("a reader reads on " * plan.answer_tokens)[: plan.answer_tokens]
    slow = Behaviour(slots=8000, answer=text, token_seconds=TOKEN_SECONDS, probe=0.99)
    profile = spec.data / "readers.yaml"
    profile.write_text(PROFILE, "utf-8")
    async with started_part(run_scripted_model(spec, slow)) as model:
        _, public = key_pair(spec.data)
        settings = {
            **await anyio.to_thread.run_sync(scripted_settings, spec),
            **SETTINGS,
            "LLM_PROFILE": str(profile),
            "AUDIT_KEY": "a key of sixteen",
            "AUTH__PUBLIC_KEY_FILE": str(public),
            "DATABASE_URL": f"sqlite+aiosqlite:///{spec.data / 'bank.db'}",
        }
        async with (
            started_part(run_product(spec, model, **settings)) as first,
            started_part(run_replica(other, model, first, **settings)) as second,
        ):
            yield first, second


@dataclass(frozen=True, slots=True)
class BesideReaders:
    """Measurements while all read: first tokens, the replicas' memory, and the number of readers left at the end."""

    first_tokens: Sequence[float]
    resident: Sequence[Sequence[float]]
    still_reading: int


async def measure_beside(crowd: Readers, other_customer: Callable[[], Awaitable[list[float]]]) -> BesideReaders:
    """Let another customer ask while one in STALL_EVERY readers has stopped reading."""
    first, second = (replica.pids["chatbot"] for replica in crowd.replicas)
    stalled = crowd.all[::STALL_EVERY]
    async with sampled_memory(first) as first_resident, sampled_memory(second) as second_resident:
        for reader in stalled:
            reader.pause()
        seconds = await other_customer()
        for reader in stalled:
            reader.resume()
        still_reading = sum(not reader.has_ended.is_set() for reader in crowd.all)
    return BesideReaders(seconds, (first_resident, second_resident), still_reading)


async def readers(plan: ReadersPlan, spec: ProductSpec, settings: Settings, console: Console) -> list[BenchFigure]:
    """Measure the other customer alone and beside the readers, who then read to the end."""
    most_readers = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES
    answers = min(plan.answers, most_readers // plan.readers_each)
    async with loaded_corpus(read_dataset(HANBIT), settings, spec.data, console):
        pass  # only loads; the started replicas open the index
    async with AsyncExitStack() as parts:
        replicas = await parts.enter_async_context(two_replicas(spec, plan))
        process = parts.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        crowd = Readers(replicas)
        every = plan.seconds / plan.questions
        console.print("another customer alone", highlight=False)
        await crowd.other_customer(process, 10, every=0)
        alone = await crowd.other_customer(process, plan.questions, every=every)
        # Real readers use other machines than the bank, so this process yields to all others.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        console.print(f"{answers} answers, {plan.readers_each} readers each", highlight=False)
        began = time.perf_counter()
        asks = [partial(crowd.ask, n, others=plan.readers_each - 1) for n in range(answers)]
        await run_concurrently(plan.opened_at_once, asks)
        opened_after = time.perf_counter() - began
        running = sum(not reader.has_ended.is_set() for reader in crowd.all)
        console.print(f"{running} read after {opened_after:.0f} s; another customer beside them", highlight=False)
        beside = await measure_beside(crowd, partial(crowd.other_customer, process, plan.questions, every=every))
        console.print("all readers read to the end", highlight=False)
        with anyio.fail_after(3 * TOKEN_SECONDS * plan.answer_tokens):
            for reader in crowd.all:
                await reader.has_ended.wait()
    return [
        BenchFigure(name="readers at once, in the beginning", value=running, unit=f"of {answers * plan.readers_each}"),
        BenchFigure(name="readers at once, in the end", value=beside.still_reading, unit="readers", least=running),
        BenchFigure(name="answers", value=answers, unit="answers"),
        BenchFigure(name="another's first token alone, median", value=quantile(alone, 0.5), unit="s"),
        BenchFigure(name="another's first token alone, p95", value=quantile(alone, 0.95), unit="s"),
        *first_token_figures(beside.first_tokens, alone),
        *(growth(n, resident) for n, resident in enumerate(beside.resident)),
        BenchFigure(name="readers with wrong events", value=wrong_readers(crowd.all), unit="", most=0),
        BenchFigure(name="broken connections", value=sum(reader.reconnects for reader in crowd.all), unit=""),
        BenchFigure(name="of them refused", value=sum(reader.refusals for reader in crowd.all), unit=""),
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


def wrong_readers(readers: Sequence[Reader]) -> int:
    """Count readers with lost, repeated or reordered events, or with other events than their answer's first reader."""
    by_answer: defaultdict[str, list[Reader]] = defaultdict(list)
    for reader in readers:
        by_answer[reader.answer_id].append(reader)
    return sum(
        not reader.is_in_order or reader.digest.digest() != group[0].digest.digest()
        for group in by_answer.values()
        for reader in group
    )


def main() -> int:
    """Run the measurement, print the figures and return the exit status."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    environment = dict(os.environ)  # noqa: TID251  the edge of the command line; passed to the processes it starts
    return run_measurement("readers", "scripted", partial(readers, ReadersPlan()), environment)


if __name__ == "__main__":
    sys.exit(main())
