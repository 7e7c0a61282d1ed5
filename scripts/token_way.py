"""Count what one token of an answer goes through in the chat API: our functions, their calls, files and generators.

usage: .venv/bin/python -m scripts.token_way [--list]      --list: name the functions

Over a real stream: `chatbot serve` with its stores and the sample documents, the scripted model at twenty tokens a
second, `sys.setprofile` in the process of the API. A token's way lasts from one `Answering.take` to the next; a
function is on it where at least half of the tokens call it. A generator that is resumed is a call each time, a
coroutine is not; a lambda or a comprehension is a call and no function.
The model writes; the way is held against its bounds (1: beyond one).
"""

import argparse
import atexit
import inspect
import os
import sys
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import median
from types import CodeType, FrameType

import aiohttp
import anyio
import msgspec
from rich.console import Console
from rich.table import Table

from chatbot.__main__ import app
from chatbot.turns.answering import Answering
from evals.performance.bench import QUESTION
from evals.product import ProductSpec, run_product, run_scripted_model, started_part
from evals.quality import loaded_corpus
from evals.questions import HANBIT, read_dataset
from ingest.settings import Settings
from knowledge.identity import Principal
from llm_server.scripted import Behaviour
from telemetry.logs import configure_logs

ROOT = Path(__file__).resolve().parents[1]
OURS = tuple(str(ROOT / package) + os.sep for package in ("chatbot", "edge", "knowledge", "telemetry"))
FUNCTIONS, FILES = 30, 17
"""The bounds: docs/decisions/0032-a-tokens-files.md says why 17 files."""
PACE = Behaviour(sentences=3, token_seconds=0.05)
COUNTED = "TOKEN_WAY_FILE"


class Step(msgspec.Struct, frozen=True):
    """A function on the way."""

    file: str
    name: str
    generator: bool


class Way(msgspec.Struct, frozen=True):
    """What the tokens of one answer went through."""

    tokens: int
    calls: float
    steps: tuple[Step, ...]

    @property
    def files(self) -> set[str]:
        """The files of its functions."""
        return {step.file for step in self.steps}

    @property
    def generators(self) -> list[Step]:
        """Its functions that are generators."""
        return [step for step in self.steps if step.generator]


def way_of(cycles: list[list[CodeType]]) -> Way:
    """Return the way of the tokens whose calls are given; the first and the last cycle are the answer's ends."""
    middle = cycles[1:-1]
    frequent = Counter(code for cycle in middle for code in set(cycle))
    codes = [code for code, tokens in frequent.items() if tokens * 2 >= len(middle)]
    on_the_way = set(codes)
    steps = [
        Step(
            file=str(Path(code.co_filename).relative_to(ROOT)),
            name=code.co_qualname,
            generator=bool(code.co_flags & (inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR)),
        )
        for code in codes
        if not code.co_name.startswith("<")
    ]
    return Way(
        tokens=len(middle),
        calls=median(sum(code in on_the_way for code in cycle) for cycle in middle),
        steps=tuple(sorted(steps, key=lambda step: (step.file, step.name))),
    )


def goes_on(frame: FrameType) -> bool:
    """Return whether a call is a coroutine that is resumed after an await: it was called before."""
    code = frame.f_code
    resumed = bytecode(code)[frame.f_lasti + 1] & 3  # the argument of RESUME; 0: the beginning
    return bool(code.co_flags & inspect.CO_COROUTINE) and resumed != 0


@cache
def bytecode(code: CodeType) -> bytes:
    """Return a function's instructions, which Python copies at every look."""
    return code.co_code


def serve_and_count(file: Path) -> None:
    """Run the chat API; at its end write the way of the tokens that it handled."""
    cycles: list[list[CodeType]] = [[]]
    boundary = Answering.take.__code__

    def on_event(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(OURS) and not goes_on(frame):
            if code is boundary:
                cycles.append([])
            cycles[-1].append(code)

    atexit.register(lambda: file.write_bytes(msgspec.json.encode(way_of(cycles))))
    sys.setprofile(on_event)
    app()


async def count(environment: dict[str, str]) -> Way:
    """Ask one question; return the way of its tokens."""
    settings = Settings()
    with tempfile.TemporaryDirectory(prefix="token-way-") as folder:
        data = Path(folder)
        async with loaded_corpus(read_dataset(HANBIT), settings, data, Console(stderr=True, quiet=True)):
            pass
        spec = ProductSpec(
            profile="scripted", data=data, weights=settings.weights_dir.expanduser(), environment=environment
        )
        return await count_tokens(spec)


async def count_tokens(spec: ProductSpec) -> Way:
    """Ask one question, and read what the API counted."""
    counted = spec.data / "way.json"
    settings = {"TURN__ANSWER": "written", "TURN__ANSWERABILITY__THRESHOLD": "0", COUNTED: str(counted)}
    async with started_part(run_scripted_model(spec, PACE)) as model:
        serving = run_product(spec, model, module="scripts.token_way", **settings)
        async with started_part(serving) as product:
            who = Principal(tenant="hanbit", sub="token-way", roles=frozenset({"customer"}), groups=frozenset())
            headers = {"authorization": f"Bearer {product.signer.token(who)[0]}"}
            async with (
                aiohttp.ClientSession(product.url, headers=headers) as http,
                http.post("/v1/chat", json={"message": QUESTION}) as reply,
            ):
                reply.raise_for_status()
                async for _ in reply.content:
                    pass
    return msgspec.json.decode(counted.read_bytes(), type=Way)


def main() -> int:
    """Print the counts; return 1 where they are beyond the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="name the functions")
    arguments = parser.parse_args()
    configure_logs(level="ERROR", log_format="console")
    way = anyio.run(count, dict(os.environ))  # noqa: TID251  the command line's own edge: what the parts are started with
    console, table = Console(), Table("functions", "files", "calls", "generators", "tokens counted")
    numbers = (len(way.steps), len(way.files), f"{way.calls:g}", len(way.generators), way.tokens)
    table.add_row(*(str(number) for number in numbers))
    console.print(table)
    if arguments.list:
        for step in way.steps:
            console.print(f"{step.file}  {step.name}{'  (generator)' if step.generator else ''}", highlight=False)
    return 0 if len(way.steps) <= FUNCTIONS and len(way.files) <= FILES else 1


if __name__ == "__main__":
    target = os.environ.get(COUNTED)  # noqa: TID251  set for the process that serves
    if target is not None:
        serve_and_count(Path(target))
    else:
        sys.exit(main())
