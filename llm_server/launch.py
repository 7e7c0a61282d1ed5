"""Runs vLLM with a profile's arguments, and reports readiness only after a first generation.

vLLM runs in its own session. On SIGTERM or SIGINT it gets the profile's time to finish its streams; a second signal
kills it. If the engine hangs, this process exits to be restarted; during the drain, hangs are ignored. vLLM's remaining
process group is killed at the end, so that no process survives this one; on Linux the kernel terminates vLLM even if
this process is killed.
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
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import aiohttp
import anyio
from pydantic import BaseModel, ConfigDict

from llm_server.profile import Profile
from llm_server.watchdog import wait_for_hang

PR_SET_PDEATHSIG = 1
# Seconds between two reads of the engine's token count.
_WATCH_SECONDS = 10.0
_LINES_READ = 200  # the last lines of the log, read after vLLM has exited
WARM_UP_PROMPT = (
    "은행은 예금, 대출, 카드 상품을 안내합니다. The bank explains deposits, loans and cards to its customers. " * 12
)


class CannotServe(Exception):
    """vLLM cannot run; the message is one sentence with the remedy."""


class ServeSettings(BaseModel):
    """The settings of `serve`; `model` is a folder or a hub name; without `log_file`, vLLM inherits our output."""

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
    hung_after: float | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None

    @property
    def hung_seconds(self) -> float:
        """The seconds without a requested token after which the engine counts as hung; 0: never.

        The default is a minute plus three times the prefill of the longest prompt, during which no token is generated.
        """
        if self.hung_after is not None:
            return self.hung_after
        return 60 + 3 * self.profile.engine.max_model_len / self.profile.speeds.prefill

    @property
    def url(self) -> str:
        """The server's URL on this machine."""
        scheme = "http" if self.ssl_certfile is None else "https"
        loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  by the address that means all interfaces
        host = loopback.get(self.host, self.host)
        if ":" in host:
            host = f"[{host}]"
        return f"{scheme}://{host}:{self.port}"


async def serve(settings: ServeSettings, on_ready: Callable[[float], None]) -> None:
    """Run vLLM until a signal; after the warm-up, call `on_ready` once with the seconds that the start took.

    Raises:
        CannotServe: vLLM cannot start, exits by itself, or hangs.
    """
    check_port(settings.host, settings.port)
    began = time.monotonic()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with _vllm_process(settings) as process:
            ready = anyio.Event()
            stopping = anyio.Event()
            async with anyio.create_task_group() as group:
                grace = settings.profile.engine.shutdown_timeout + 10
                group.start_soon(_forward_signals, signals, process, ready, stopping, grace)
                group.start_soon(_warm_up, settings, began, ready, on_ready)
                if settings.hung_seconds:
                    group.start_soon(_watch_for_hang, settings, ready, stopping)
                await process.wait()
                group.cancel_scope.cancel()
            if not stopping.is_set():
                raise CannotServe(_exit_reason(settings, process.returncode))


def command(settings: ServeSettings) -> list[str]:
    """Return the command line of `vllm serve`."""
    profile = settings.profile
    arguments = [str(settings.python), "-m", "vllm.entrypoints.cli.main", "serve", settings.model]
    arguments += ["--host", settings.host, "--port", str(settings.port), "--served-model-name", profile.served_name]
    if profile.hub is not None and settings.model == profile.hub.name:
        arguments += ["--revision", profile.hub.revision]
    arguments += profile.arguments()
    if settings.otlp_endpoint:
        arguments += ["--otlp-traces-endpoint", settings.otlp_endpoint]
    if settings.ssl_certfile is not None:
        arguments += ["--ssl-certfile", str(settings.ssl_certfile)]
    if settings.ssl_keyfile is not None:
        arguments += ["--ssl-keyfile", str(settings.ssl_keyfile)]
    if settings.ssl_certfile is not None or settings.ssl_keyfile is not None:
        arguments.append("--enable-ssl-refresh")
    return arguments


def environment(settings: ServeSettings) -> dict[str, str]:
    """Return vLLM's environment: our variables for the device, then the profile's, then the caller's; the last wins."""
    ours = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1"}
    if settings.profile.device == "cpu":
        # vLLM's default reserves a core for its front end, which on two cores halves the speed.
        ours["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(str(core) for core in sorted(os.sched_getaffinity(0)))
        # A GPU in the machine must not affect a CPU profile.
        ours["CUDA_VISIBLE_DEVICES"] = ""
        # Compiling needs a C++ compiler and saves 0.1 ms of the 80 ms that a token takes (two cores).
        ours["TORCH_COMPILE_DISABLE"] = "1"
    if Path(settings.model).is_dir():
        ours |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return {**ours, **settings.profile.environment, **settings.environment}


def check_port(host: str, port: int) -> None:
    """Check that the port is free, because vLLM itself would fail only after loading the model.

    Raises:
        CannotServe: the port cannot be used.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise CannotServe(
                f"Port {port} on {host} cannot be used ({exc.strerror}): give another with --port."
            ) from exc


@asynccontextmanager
async def _vllm_process(settings: ServeSettings) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run vLLM while the block runs, then kill its remaining process group."""
    with _open_log(settings.log_file) as log:
        process = await asyncio.create_subprocess_exec(
            *command(settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(settings),
            start_new_session=True,
            preexec_fn=terminate_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        _kill_group(process)
        with anyio.CancelScope(shield=True):
            await process.wait()


@contextmanager
def _open_log(path: Path | None) -> Iterator[BinaryIO | None]:
    if path is None:
        yield None
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as log:
        yield log


def terminate_with_parent() -> None:
    """Make the kernel send SIGTERM to this child process when its parent dies (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        # The process leads its own session, so this kills only the process and its children.
        os.killpg(process.pid, signal.SIGKILL)


async def _forward_signals(
    signals: AsyncIterator[signal.Signals],
    process: asyncio.subprocess.Process,
    ready: anyio.Event,
    stopping: anyio.Event,
    grace: float,
) -> None:
    """Forward the first signal; kill vLLM at the second, after `grace` seconds, or at once if it is not ready yet."""
    await anext(signals)
    stopping.set()
    # While loading, vLLM ignores SIGTERM and has nothing to finish.
    if ready.is_set():
        # Signal only vLLM's front end, which lets its engine finish the streams within --shutdown-timeout.
        process.terminate()
        with anyio.move_on_after(grace):
            await anext(signals)
    _kill_group(process)


async def _warm_up(
    settings: ServeSettings, began: float, ready: anyio.Event, on_ready: Callable[[float], None]
) -> None:
    """Wait until the server is healthy, warm it up, set `ready`, and call `on_ready`.

    Raises:
        CannotServe: the warm-up does not complete in time, or vLLM rejects it.
    """
    timeout = aiohttp.ClientTimeout(total=settings.start_seconds)
    try:
        with anyio.fail_after(settings.start_seconds):
            async with _session(settings, timeout) as http:
                while not await _is_healthy(http):  # noqa: ASYNC110  another process cannot set an event
                    await anyio.sleep(0.2)
                await _ask_once(http, settings.profile)
    except TimeoutError as exc:
        log = settings.log_file or "above"
        raise CannotServe(f"vLLM did not generate within {settings.start_seconds:.0f} s: see its log {log}.") from exc
    ready.set()
    on_ready(time.monotonic() - began)


async def _watch_for_hang(settings: ServeSettings, ready: anyio.Event, stopping: anyio.Event) -> None:
    """Watch the engine after the warm-up.

    Raises:
        CannotServe: the engine generates nothing, and no stop signal has arrived.
    """
    await ready.wait()
    every = min(_WATCH_SECONDS, settings.hung_seconds / 2)
    async with _session(settings) as http:
        await wait_for_hang(http, settings.profile.served_name, every=every, patience=settings.hung_seconds)
    if not stopping.is_set():
        waited = f"no token in {settings.hung_seconds:.0f} s"
        raise CannotServe(f"vLLM answers and generates nothing: {waited}. It is ended: start it again.")


def _session(settings: ServeSettings, timeout: aiohttp.ClientTimeout | None = None) -> aiohttp.ClientSession:
    """Return an HTTP client for vLLM on loopback; it does not verify the certificate, which is for another name."""
    connector = aiohttp.TCPConnector(ssl=False)
    return aiohttp.ClientSession(settings.url, connector=connector, timeout=timeout or aiohttp.ClientTimeout(total=300))


async def _is_healthy(http: aiohttp.ClientSession) -> bool:
    """Return whether vLLM answers `/health` with 200."""
    try:
        async with http.get("/health") as reply:
            return reply.status == 200
    except aiohttp.ClientError:
        return False


async def _ask_once(http: aiohttp.ClientSession, profile: Profile) -> None:
    """Ask the model once, to warm up kernels, caches and the tokenizer.

    Raises:
        CannotServe: vLLM rejects the request.
    """
    body: dict[str, object]
    match profile.task:
        case "generate":
            # Request log probabilities, as the answerability probe does: on a GPU vLLM compiles a kernel for them.
            path, body = "/v1/completions", {"prompt": WARM_UP_PROMPT, "max_tokens": 16, "temperature": 0}
            body |= {"ignore_eos": True, "logprobs": 1}
        case "embed":
            path, body = "/v1/embeddings", {"input": [WARM_UP_PROMPT]}
        case "score":
            path, body = "/v1/rerank", {"query": "예금", "documents": [WARM_UP_PROMPT]}
    async with http.post(path, json={"model": profile.served_name, **body}) as reply:
        content = await reply.read()
        if reply.status != 200:
            reason = content[:300].decode(errors="replace")
            raise CannotServe(f"vLLM refused the warm-up at {path} with {reply.status}: {reason}")


def _exit_reason(settings: ServeSettings, status: int | None) -> str:
    """Return a sentence about why vLLM has exited, from the end of its log."""
    if settings.log_file is None:
        return f"vLLM ended with status {status}: see its output above."
    log_text = settings.log_file.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in log_text.splitlines()[-_LINES_READ:] if line.strip()]
    if any("No module named 'vllm'" in line for line in lines):
        return f"{settings.python} has no vLLM: run scripts/setup, or set LLM_PYTHON to the interpreter that has it."
    errors = [line for line in lines if "Error" in line]
    reasons = errors or lines or ["nothing"]
    last = " / ".join(line.strip()[-300:] for line in reasons[-2:])
    return f"vLLM ended with status {status} after saying: {last} (whole log: {settings.log_file})."
