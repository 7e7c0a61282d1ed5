from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event, get_ident

import anyio
import pytest
from pydantic import ValidationError

from knowledge.embedding import embedding
from knowledge.embedding.embedding import BATCH_BYTES, Embedder, LocalEmbedder, open_embedder
from knowledge.embedding.encoder import Vectors
from knowledge.embedding.errors import EmbeddingUnavailable
from knowledge.embedding.settings import EmbedderSettings
from tests.constants import with_constants

pytestmark = pytest.mark.anyio


def cosine(a: list[float], b: list[float]) -> float:
    """Return the cosine of two vectors of length 1."""
    return sum(x * y for x, y in zip(a, b, strict=True))


async def test_a_question_is_nearer_to_its_answer_across_languages(embedder: Embedder) -> None:
    (question,) = await embedder.embed_queries(["What is the interest rate of a time deposit?"])
    answer, other = await embedder.embed_passages(["정기예금 금리는 연 3.5%입니다.", "주차장은 지하 2층에 있습니다."])
    assert len(question) == embedder.dimensions == 384
    assert cosine(question, question) == pytest.approx(1, abs=1e-2)
    assert cosine(question, answer) > cosine(question, other) + 0.02


async def test_missing_weights_are_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingUnavailable, match="llm-server fetch e5-small"):
        async with open_embedder(EmbedderSettings(folder=tmp_path / "e5-small")):
            pass


async def test_a_folder_that_holds_no_model_stops_the_boot(tmp_path: Path) -> None:
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(EmbeddingUnavailable, match="cannot be loaded"):
        async with open_embedder(EmbedderSettings(folder=tmp_path)):
            pass


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ({"folder": "x", "url": "http://127.0.0.1:1", "model": "m"}, "set one of the embedder's folder, url and"),
        ({"folder": "x", "model": "m", "revision": "0" * 40}, "set one of the embedder's folder, url and"),
        ({"url": "http://127.0.0.1:1"}, "an embedding endpoint needs the name of its model"),
        ({"revision": "0" * 40}, "a revision needs the name of the hub's model"),
        ({"model": "m"}, "model is set, but not its place"),
        ({"model": "m", "revision": "main"}, "should match pattern"),
    ],
    ids=str,
)
def test_an_embedder_has_exactly_one_place(place: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        EmbedderSettings.model_validate(place)


class Recorded:
    """An encoder that records its batches and blocks while its gate is closed."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gate = Event()
        self.gate.set()
        self.started = Event()
        self.thread = 0
        self.failing = False

    def encode(self, texts: list[str]) -> Vectors:
        self.started.set()
        assert self.gate.wait(20)
        self.thread = get_ident()
        self.batches.append(texts)
        if self.failing:
            raise RuntimeError("out of memory")
        return [[float(len(text))] for text in texts]

    async def until_blocked(self) -> None:
        """Wait until the worker encodes a batch, which finishes when the gate opens."""
        await anyio.to_thread.run_sync(self.started.wait)


Worker = tuple[LocalEmbedder, Recorded]


@asynccontextmanager
async def recording(folder: Path, **constants: object) -> AsyncGenerator[Worker]:
    """Open the real worker around a recorded encoder."""
    encoder = Recorded()
    (folder / "modules.json").touch()
    settings = with_constants(EmbedderSettings(folder=folder, query_prefix="", passage_prefix=""), **constants)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedding, "_loader", lambda *_: lambda: encoder.encode)
        async with open_embedder(settings) as local:
            assert isinstance(local, LocalEmbedder)
            encoder.batches.clear()
            yield local, encoder


@pytest.fixture
async def recorded(tmp_path: Path) -> AsyncGenerator[Worker]:
    async with recording(tmp_path, window=0.5, query_batch=4, passage_batch=2, queue=8) as opened:
        yield opened


@pytest.fixture
def blocked(recorded: Worker) -> tuple[LocalEmbedder, Recorded]:
    """The worker, whose next batch waits for the gate."""
    recorded[1].started.clear()
    recorded[1].gate.clear()
    return recorded


async def test_questions_that_arrive_together_are_encoded_together(recorded: Worker) -> None:
    local, encoder = recorded
    answers: dict[str, Vectors] = {}

    async def ask(text: str) -> None:
        answers[text] = await local.embed_queries([text])

    async with anyio.create_task_group() as tasks:
        for text in ("a", "bb", "ccc", "dddd"):
            tasks.start_soon(ask, text)
    assert encoder.batches == [["a", "bb", "ccc", "dddd"]]
    assert answers == {"a": [[1.0]], "bb": [[2.0]], "ccc": [[3.0]], "dddd": [[4.0]]}
    assert encoder.thread != get_ident()


async def test_questions_go_before_passages_and_like_lengths_together(
    blocked: Worker,
) -> None:
    local, encoder = blocked
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.embed_passages, ["a long passage", "p", "another long one", "pp"])
        await encoder.until_blocked()
        tasks.start_soon(local.embed_queries, ["question"])
        await anyio.wait_all_tasks_blocked()
        encoder.gate.set()
    assert encoder.batches == [["p", "pp"], ["question"], ["a long passage", "another long one"]]


async def test_a_question_waits_for_no_more_than_a_few_long_passages(tmp_path: Path) -> None:
    text = "x" * (BATCH_BYTES // 2)
    async with recording(tmp_path) as (local, encoder):
        await local.embed_passages([text] * 20 + [text * 5])
        await local.embed_passages(["short"] * 20)
    batches = [len(batch) for batch in encoder.batches]
    assert max(len("".join(batch)) for batch in encoder.batches if len(batch) > 1) <= BATCH_BYTES
    assert (sum(batches), max(batches)) == (41, 8)


async def test_passages_of_two_workers_come_back_in_order(tmp_path: Path) -> None:
    texts = ["x" * n for n in (30, 5, 17, 1, 22, 9, 40, 13, 2)]
    async with recording(tmp_path, workers=2, passage_batch=2) as (local, encoder):
        assert await local.embed_passages(texts) == [[float(len(text))] for text in texts]
    assert max(len(batch) for batch in encoder.batches) <= 2


async def test_a_cancelled_request_is_not_encoded(blocked: Worker) -> None:
    local, encoder = blocked
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.embed_passages, ["first"])
        await encoder.until_blocked()
        with anyio.move_on_after(0.01):
            await local.embed_queries(["gone"])
        encoder.gate.set()
    await local.embed_queries(["next"])
    assert encoder.batches == [["first"], ["next"]]


async def test_a_failure_reaches_the_caller_and_the_worker_goes_on(recorded: Worker) -> None:
    local, encoder = recorded
    encoder.failing = True
    with pytest.raises(EmbeddingUnavailable, match="RuntimeError"):
        await local.embed_queries(["a"])
    encoder.failing = False
    assert await local.embed_queries(["a"]) == [[1.0]]


async def test_a_full_queue_refuses_at_once(blocked: Worker) -> None:
    local, encoder = blocked
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.embed_passages, ["first"])
        await encoder.until_blocked()
        for n in range(8):
            tasks.start_soon(local.embed_queries, [str(n)])
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(EmbeddingUnavailable):
            await local.embed_queries(["one too many"])
        encoder.gate.set()


async def test_closing_ends_the_thread_and_fails_waiting_requests(blocked: Worker) -> None:
    local, encoder = blocked
    failed: list[str] = []

    async def ask() -> None:
        with pytest.raises(EmbeddingUnavailable, match="closed"):
            await local.embed_queries(["waits"])
        failed.append("closed")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(local.embed_passages, ["first"])
        await encoder.until_blocked()
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(local.aclose)
        await anyio.wait_all_tasks_blocked()
        encoder.gate.set()
    assert failed == ["closed"]
    with pytest.raises(EmbeddingUnavailable, match="closed"):
        await local.embed_queries(["late"])
