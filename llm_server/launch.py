"""Runs vLLM with a profile's arguments and says `ready` only after it has generated.

vLLM runs in a session of its own; on SIGTERM or SIGINT it gets the profile's time to finish what it streams, a second
signal ends it at once. What is left of its process group is killed by the group's id, so nothing survives us, and on
Linux the kernel ends it even when we are killed ourselves.
"""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

import aiohttp
import anyio
import msgspec
from pydantic import BaseModel, ConfigDict

from llm_server.profile import Profile

PR_SET_PDEATHSIG = 1
WARM_UP = (
    "한빛은행은 예금, 대출, 카드 상품을 안내합니다. The bank explains deposits, loans and cards to its customers. " * 12
)


class CannotServe(Exception):
    """vLLM cannot be run; the message is one sentence that says what to do."""


class PortTaken(CannotServe):
    """Something else listens there."""


class VllmEnded(CannotServe):
    """vLLM ended by itself; the message carries what it said last and names its log."""


class NotReady(CannotServe):
    """vLLM did not generate in time."""


class ServeSettings(BaseModel):
    """What `serve` needs to know; `model` is a folder or the hub name, without a `log_file` vLLM writes where we do."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    profile: Profile
    model: str
    python: Path
    log_file: Path | None
    host: str = "127.0.0.1"
    port: int = 8100
    otlp_endpoint: str | None = None
    environment: Mapping[str, str] = {}
    start_seconds: float = 900.0

    @property
    def url(self) -> str:
        """Return where the server answers, seen from this machine."""
        return f"http://{'127.0.0.1' if self.host == '0.0.0.0' else self.host}:{self.port}"  # noqa: S104


class Warmth(msgspec.Struct, frozen=True):
    """What the warm-up generation showed."""

    start_seconds: float
    generation_seconds: float
    answer_tokens: int


async def serve(settings: ServeSettings, tell: Callable[[Warmth], None]) -> None:
    """Run vLLM until told to stop; `tell` is called once, after the warm-up generation.

    Raises:
        CannotServe: it cannot start, or it ended by itself.
    """
    check_port(settings.host, settings.port)
    began = time.monotonic()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with _vllm(settings) as process:
            warm, stopping = anyio.Event(), anyio.Event()
            async with anyio.create_task_group() as group:
                grace = settings.profile.engine.shutdown_timeout + 10
                group.start_soon(_forward, signals, process, warm, stopping, grace)
                group.start_soon(_warm, settings, began, warm, tell)
                await process.wait()
                group.cancel_scope.cancel()
            if not stopping.is_set():
                raise VllmEnded(_last_words(settings, process.returncode))


def command(settings: ServeSettings) -> list[str]:
    """Return the command line of `vllm serve`."""
    profile = settings.profile
    fixed = ["-m", "vllm.entrypoints.cli.main", "serve", settings.model, "--host", settings.host]
    named = ["--port", str(settings.port), "--served-model-name", profile.served_name]
    pinned = ["--revision", profile.hub.revision] if profile.hub and settings.model == profile.hub.name else []
    traced = ["--otlp-traces-endpoint", settings.otlp_endpoint] if settings.otlp_endpoint else []
    return [str(settings.python), *fixed, *named, *pinned, *profile.engine.arguments(), *traced]


def environment(settings: ServeSettings) -> dict[str, str]:
    """Return the environment of vLLM: the caller's, with nothing reported to anybody, and all cores bound on a CPU."""
    fixed = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    if settings.profile.device == "cpu":
        # vLLM's own choice keeps a core back for its front end, which on two cores halves the speed.
        fixed["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
        # A GPU in the machine must not change what a CPU profile does.
        fixed["CUDA_VISIBLE_DEVICES"] = ""
    if Path(settings.model).is_dir():
        fixed |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return {**fixed, **settings.profile.environment, **settings.environment}


def check_port(host: str, port: int) -> None:
    """Return if the port is free.

    Raises:
        PortTaken: it is not; vLLM would only say so after loading the model.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise PortTaken(
                f"Port {port} on {host} cannot be used ({exc.strerror}): give another with --port."
            ) from exc


@asynccontextmanager
async def _vllm(settings: ServeSettings) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run vLLM while the context is open; whatever of its process group is left at the end is killed."""
    with _log(settings.log_file) as log:
        process = await asyncio.create_subprocess_exec(
            *command(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(settings),
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        _signal(process, signal.SIGKILL)
        with anyio.CancelScope(shield=True):
            await process.wait()


@contextmanager
def _log(path: Path | None) -> Iterator[BinaryIO | None]:
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as log:
        yield log


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        # The session we made carries the process's own id, so this reaches its children and nobody else's.
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


async def _forward(
    signals: AsyncIterator[signal.Signals],
    process: asyncio.subprocess.Process,
    warm: anyio.Event,
    stopping: anyio.Event,
    grace: float,
) -> None:
    """Pass the first signal on; kill at the second, after the grace, and at once where nothing runs yet."""
    await anext(signals)
    stopping.set()
    # While it loads, vLLM swallows SIGTERM, and there is nothing to finish.
    if warm.is_set():
        # Only vLLM's front end is told: it lets its engine finish what is streaming, as --shutdown-timeout says.
        process.terminate()
        with anyio.move_on_after(grace):
            await anext(signals)
    _signal(process, signal.SIGKILL)


async def _warm(settings: ServeSettings, began: float, warm: anyio.Event, tell: Callable[[Warmth], None]) -> None:
    """Wait for the server, let it generate once, and tell."""
    timeout = aiohttp.ClientTimeout(total=settings.start_seconds)
    try:
        with anyio.fail_after(settings.start_seconds):
            async with aiohttp.ClientSession(settings.url, timeout=timeout) as http:
                while not await _healthy(http):  # noqa: ASYNC110  another process can set no event
                    await anyio.sleep(0.2)
                started = time.monotonic()
                tokens = await _generate(http, settings.profile.served_name)
    except TimeoutError as exc:
        log = settings.log_file or "above"
        raise NotReady(f"vLLM did not generate within {settings.start_seconds:.0f} s: see its log {log}.") from exc
    warm.set()
    tell(Warmth(started - began, time.monotonic() - started, tokens))


async def _healthy(http: aiohttp.ClientSession) -> bool:
    try:
        async with http.get("/health") as reply:
            return reply.status == 200
    except aiohttp.ClientError:
        return False


class _Usage(msgspec.Struct, frozen=True):
    completion_tokens: int


class _Generated(msgspec.Struct, frozen=True):
    usage: _Usage


async def _generate(http: aiohttp.ClientSession, model: str) -> int:
    """Generate once, so that kernels, caches and the tokenizer are warm, and return the number of tokens.

    With likelihoods, as the answerability probe asks: vLLM compiles their count at its first such request, which takes
    20 s on two cores where no earlier process left it in the cache.

    Raises:
        NotReady: vLLM refuses.
    """
    asked = {"model": model, "prompt": WARM_UP, "max_tokens": 16, "temperature": 0, "ignore_eos": True, "logprobs": 1}
    async with http.post("/v1/completions", json=asked) as reply:
        body = await reply.read()
        if reply.status != 200:
            raise NotReady(
                f"vLLM refused the warm-up generation with {reply.status}: {body[:300].decode(errors='replace')}"
            )
        return msgspec.json.decode(body, type=_Generated).usage.completion_tokens


def _last_words(settings: ServeSettings, status: int | None) -> str:
    if settings.log_file is None:
        return f"vLLM ended with status {status}: what it said stands above."
    lines = [line for line in _tail(settings.log_file) if line.strip()]
    if any("No module named 'vllm'" in line for line in lines):
        return f"{settings.python} has no vLLM: run scripts/setup, or set LLM_PYTHON to the interpreter that has it."
    telling = [line for line in lines if "Error" in line] or lines or ["nothing"]
    said = " / ".join(line.strip()[-300:] for line in telling[-2:])
    return f"vLLM ended with status {status} after saying: {said} (whole log: {settings.log_file})."


def _tail(path: Path, count: int = 200) -> Iterator[str]:
    yield from path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
