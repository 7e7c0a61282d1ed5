"""Customers for locust: conversations with pauses, follow-ups, ratings, and some who leave in mid-answer.

`locust -f evals/performance/locustfile.py --host http://127.0.0.1:8000 --headless -u 20 -r 2 -t 2m` against `make run`,
whose demo login makes every user a customer of its own. Each answer's stream adds two lines to locust's own:
`first token` and `whole answer`, in milliseconds from the question. A refusal with Retry-After (429, 503) is a line of
its own and no failure: the customer waits and goes on. The exit code is 1 where a request failed or
`--first-token-p95` is missed.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from locust import HttpUser, between, events, task
from locust.argument_parser import LocustArgumentParser
from locust.clients import ResponseContextManager
from locust.env import Environment

GOLDEN = Path(__file__).parents[1] / "datasets" / "hanbit" / "queries.jsonl"
CHAT = "/v1/chat"
CONNECT_TIMEOUT, READ_TIMEOUT = 10.0, 120.0
"""Seconds to connect, and between two bytes of a stream (which has a heartbeat at least every 15 s)."""
LONGEST_WAIT = 60.0
"""Seconds after a refusal."""


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust gives it no types
def options(parser: LocustArgumentParser) -> None:
    """Add the options of this scenario; each is also an environment variable, like locust's own."""
    parser.add_argument("--questions", default=str(GOLDEN), env_var="EVALS_QUESTIONS", help="queries.jsonl of a set")
    parser.add_argument("--leaving", type=float, default=0.05, env_var="EVALS_LEAVING", help="share of answers left")
    parser.add_argument(
        "--think", type=float, default=8.0, env_var="EVALS_THINK", help="mean seconds to read an answer"
    )
    parser.add_argument(
        "--first-token-p95", type=float, default=0.0, env_var="EVALS_FIRST_TOKEN_P95", help="seconds; 0: no bound"
    )


@events.quitting.add_listener  # type: ignore[untyped-decorator]  # locust gives it no types
def judge(environment: Environment, **_: object) -> None:
    """Set the exit code: 1 after failures or a late first token."""
    options, stats = environment.parsed_options, environment.stats
    bound = options.first_token_p95 if options else 0.0
    first_token = stats.get("first token", "SSE")
    late = bound and (not first_token.num_requests or first_token.get_response_time_percentile(0.95) > bound * 1000)
    environment.process_exit_code = 1 if stats.total.num_failures or late else 0


@dataclass(slots=True)
class StreamResult:
    """What a stream has sent so far; times in seconds since the question was sent."""

    sent_at: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    conversation: str = ""
    answer: str = ""
    ended: str = ""

    def add(self, name: str, data: Mapping[str, str]) -> None:
        """Add one event."""
        if name == "accepted":
            self.conversation, self.answer = data["conversation_id"], data["answer_id"]
        elif name == "token" and self.first_token is None:
            self.first_token = time.perf_counter() - self.sent_at
        elif name in {"done", "error"}:
            self.ended = name


def read_events(response: ResponseContextManager) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield (event, data) as they arrive: without a chunk size no buffer has to fill first."""
    name, pending = "", b""
    for chunk in response.iter_content(chunk_size=None):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            field_name, _, value = line.decode().rstrip("\r").partition(": ")
            if field_name == "event":
                name = value
            elif field_name == "data":
                yield name, json.loads(value)


def close(response: ResponseContextManager, why: str = "") -> None:
    """Count a request as a success, or as a failure for a reason."""
    if why:
        response.failure(why)  # type: ignore[no-untyped-call]  # locust gives it no types
    else:
        response.success()  # type: ignore[no-untyped-call]  # locust gives it no types


def read_conversations(path: Path) -> list[tuple[str, ...]]:
    """Return the questions of every conversation of a data set, those of its history first."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [
        (*(turn["text"] for turn in row.get("history", ()) if turn["role"] == "user"), row["text"])
        for row in rows
        if not row.get("as_of")
    ]


class Customer(HttpUser):
    """One customer with a login of its own."""

    wait_time = between(1, 5)
    conversations: Sequence[tuple[str, ...]] = ()

    def on_start(self) -> None:
        """Sign in, and read the questions."""
        self.rng = random.Random(uuid4().int)  # noqa: S311  behaviour, no secret
        self.conversations = read_conversations(Path(self.environment.parsed_options.questions))
        with self.client.post("/demo/login", json={"name": f"locust-{uuid4().hex[:12]}"}, catch_response=True) as reply:
            if reply.status_code == 200:
                self.client.headers["authorization"] = f"Bearer {reply.json()['token']}"
            else:
                close(reply, f"no demo login ({reply.status_code}): is it `make run`?")

    @task(8)
    def talk(self) -> None:
        """Ask the questions of one conversation, reading each answer; rate some."""
        conversation = ""
        for question in self.rng.choice(self.conversations):
            result = self.ask(question, conversation)
            if result is None or result.ended != "done":
                return
            conversation = result.conversation
            self.rate(result)
            time.sleep(self.rng.expovariate(1 / self.environment.parsed_options.think))

    @task(1)
    def look_back(self) -> None:
        """Read the list of conversations and the remaining limits."""
        self.client.get("/v1/conversations")
        self.client.get("/v1/limits")

    def ask(self, question: str, conversation: str) -> StreamResult | None:
        """Ask and read the stream; return None after a refusal and its Retry-After."""
        body = {"message": question, **({"conversation_id": conversation} if conversation else {})}
        result = StreamResult()
        timeout = (CONNECT_TIMEOUT, READ_TIMEOUT)
        with self.client.post(CHAT, json=body, stream=True, catch_response=True, timeout=timeout) as response:
            if response.status_code in {429, 503} and "retry-after" in response.headers:
                close(response)
                self.report(f"refused with {response.status_code}", time.perf_counter() - result.sent_at)
                time.sleep(min(LONGEST_WAIT, float(response.headers["retry-after"])))
                return None
            if response.status_code != 200:
                close(response, f"status {response.status_code}")
                return None
            leaves = self.rng.random() < self.environment.parsed_options.leaving
            self.read(response, result, leaves=leaves)
        return result

    def read(self, response: ResponseContextManager, result: StreamResult, *, leaves: bool) -> None:
        """Read a stream to its end; a customer who `leaves` closes it at the first token, which is no failure."""
        for name, data in read_events(response):
            result.add(name, data)
            if leaves and result.first_token is not None:
                close(response)
                self.report("left at the first token", result.first_token)
                return
        if result.ended != "done":
            close(response, f"the stream ended with {result.ended or 'no last event'}")
            return
        close(response)
        if result.first_token is not None:
            self.report("first token", result.first_token)
        self.report("whole answer", time.perf_counter() - result.sent_at)

    def rate(self, result: StreamResult) -> None:
        """Rate one answer in five, a third of those down."""
        if self.rng.random() < 0.2:
            rating = self.rng.choice(["up", "up", "down"])
            self.client.post(
                f"/v1/answers/{result.answer}/feedback", json={"rating": rating}, name="/v1/answers/[id]/feedback"
            )

    def report(self, name: str, seconds: float) -> None:
        """Add one measured time to locust's statistics."""
        self.environment.events.request.fire(
            request_type="SSE",
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            exception=None,
            context={},
        )
