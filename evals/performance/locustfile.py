"""Customers as they come, for locust: conversations with pauses, follow-ups, ratings, and some who leave in mid-answer.

`locust -f evals/performance/locustfile.py --host http://127.0.0.1:8000 --headless -u 20 -r 2 -t 2m` against `make run`,
whose demo login lets everybody be a customer of their own. Each answer's stream gives two lines beside locust's own:
`first token` and `whole answer`, in milliseconds from the question. A refusal that says when to come back (429, 503) is
a line of its own and no failure: the customer comes back then. The exit code is 1 where a request failed or
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
CONNECTS_WITHIN, SILENT_AT_MOST = 10.0, 120.0
"""Seconds to connect, and between two bytes of a stream (which has a heartbeat at least every 15 s)."""
LONGEST_RETURN = 60.0


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]  # locust gives it no types
def options(parser: LocustArgumentParser) -> None:
    """Add what this scenario can be told; each is also an environment variable, as locust's own are."""
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
    """Set the exit code: failures, or a first token that comes too late."""
    options, stats = environment.parsed_options, environment.stats
    bound = options.first_token_p95 if options else 0.0
    first = stats.get("first token", "SSE")
    late = bound and (not first.num_requests or first.get_response_time_percentile(0.95) > bound * 1000)
    environment.process_exit_code = 1 if stats.total.num_failures or late else 0


@dataclass(slots=True)
class Heard:
    """What a stream has said; times in seconds since the question was sent."""

    asked: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    conversation: str = ""
    answer: str = ""
    ended: str = ""

    def hear(self, name: str, data: Mapping[str, str]) -> None:
        """Take note of one event."""
        if name == "accepted":
            self.conversation, self.answer = data["conversation_id"], data["answer_id"]
        elif name == "token" and self.first_token is None:
            self.first_token = time.perf_counter() - self.asked
        elif name in {"done", "error"}:
            self.ended = name


def frames(response: ResponseContextManager) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield (event, data) as they arrive: without a chunk size nothing waits for a buffer to fill."""
    name, pending = "", b""
    for chunk in response.iter_content(chunk_size=None):
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            kind, _, value = line.decode().rstrip("\r").partition(": ")
            if kind == "event":
                name = value
            elif kind == "data":
                yield name, json.loads(value)


def close(response: ResponseContextManager, why: str = "") -> None:
    """Count a request as good, or as failed for a reason."""
    if why:
        response.failure(why)  # type: ignore[no-untyped-call]  # locust gives it no types
    else:
        response.success()  # type: ignore[no-untyped-call]  # locust gives it no types


def conversations(path: Path) -> list[tuple[str, ...]]:
    """Return the questions of every conversation of a data set, those of its history first."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    return [
        (*(said["text"] for said in row.get("history", ()) if said["role"] == "user"), row["text"])
        for row in rows
        if not row.get("as_of")
    ]


class Customer(HttpUser):
    """One customer with a login of their own."""

    wait_time = between(1, 5)
    asking: Sequence[tuple[str, ...]] = ()

    def on_start(self) -> None:
        """Sign in, and learn what people ask."""
        self.chance = random.Random(uuid4().int)  # noqa: S311  behaviour, no secret
        self.asking = conversations(Path(self.environment.parsed_options.questions))
        with self.client.post("/demo/login", json={"name": f"locust-{uuid4().hex[:12]}"}, catch_response=True) as got:
            if got.status_code == 200:
                self.client.headers["authorization"] = f"Bearer {got.json()['token']}"
            else:
                close(got, f"no demo login ({got.status_code}): is it `make run`?")

    @task(8)
    def talk(self) -> None:
        """Ask a question and what follows on it, reading each answer; rate some."""
        conversation = ""
        for question in self.chance.choice(self.asking):
            heard = self.ask(question, conversation)
            if heard is None or heard.ended != "done":
                return
            conversation = heard.conversation
            self.rate(heard)
            time.sleep(self.chance.expovariate(1 / self.environment.parsed_options.think))

    @task(1)
    def look_back(self) -> None:
        """Look at the list of one's conversations, and at what is left to spend."""
        self.client.get("/v1/conversations")
        self.client.get("/v1/limits")

    def ask(self, question: str, conversation: str) -> Heard | None:
        """Ask and read the stream; nothing where the answer was refused for now, after the wait that was named."""
        body = {"message": question, **({"conversation_id": conversation} if conversation else {})}
        heard = Heard()
        timeout = (CONNECTS_WITHIN, SILENT_AT_MOST)
        with self.client.post(CHAT, json=body, stream=True, catch_response=True, timeout=timeout) as response:
            if response.status_code in {429, 503} and "retry-after" in response.headers:
                close(response)
                self.told(f"refused with {response.status_code}", time.perf_counter() - heard.asked)
                time.sleep(min(LONGEST_RETURN, float(response.headers["retry-after"])))
                return None
            if response.status_code != 200:
                close(response, f"status {response.status_code}")
                return None
            leaves = self.chance.random() < self.environment.parsed_options.leaving
            self.read(response, heard, leaves=leaves)
        return heard

    def read(self, response: ResponseContextManager, heard: Heard, *, leaves: bool) -> None:
        """Read a stream to its end; who `leaves` closes it at the first token, and its end is nobody's failure."""
        for name, data in frames(response):
            heard.hear(name, data)
            if leaves and heard.first_token is not None:
                close(response)
                self.told("left at the first token", heard.first_token)
                return
        if heard.ended != "done":
            close(response, f"the stream ended with {heard.ended or 'no last event'}")
            return
        close(response)
        if heard.first_token is not None:
            self.told("first token", heard.first_token)
        self.told("whole answer", time.perf_counter() - heard.asked)

    def rate(self, heard: Heard) -> None:
        """Rate one answer in five, a third of those down."""
        if self.chance.random() < 0.2:
            rating = self.chance.choice(["up", "up", "down"])
            self.client.post(
                f"/v1/answers/{heard.answer}/feedback", json={"rating": rating}, name="/v1/answers/[id]/feedback"
            )

    def told(self, name: str, seconds: float) -> None:
        """Count one measured time under a name of its own."""
        self.environment.events.request.fire(
            request_type="SSE",
            name=name,
            response_time=seconds * 1000,
            response_length=0,
            exception=None,
            context={},
        )
