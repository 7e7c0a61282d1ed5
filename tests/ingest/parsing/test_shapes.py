"""Documents of every costly shape become passages or are refused, by work that grows as their text does."""

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from ingest.parsing import Chunking, ParserSettings, Unreadable, open_parser
from ingest.parsing.chunking import CHARACTERS_A_TOKEN, LONGEST_HEADING, MOST_PASSAGES, Chunker, open_chunker
from ingest.parsing.parsed import Parsed, Reason
from ingest.parsing.read import read_document
from tests.ingest.parsing.shapes import SHAPES

pytestmark = pytest.mark.anyio

SIZE = 50_000  # bytes
LARGE = 7_000_000
REFUSALS = {Reason.TOO_LARGE, Reason.TOO_SLOW, Reason.HOSTILE, Reason.EMPTY_TEXT}


class CountedTokenizer:
    """Counts the characters that a tokenizer encodes."""

    def __init__(self, chunker: Chunker, monkeypatch: pytest.MonkeyPatch) -> None:
        self._tokenizer = chunker._tokenizer
        self.characters = 0
        monkeypatch.setattr(chunker, "_tokenizer", self)

    def encode(self, text: str, *, add_special_tokens: bool) -> object:
        self.characters += len(text)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)


@pytest.fixture
def chunker(chunking: Chunking, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Chunker, CountedTokenizer]]:
    chunker = open_chunker(chunking)
    with monkeypatch.context() as patch:
        yield chunker, CountedTokenizer(chunker, patch)


def parsed(name: str, size: int, folder: Path) -> Parsed | None:
    (file := folder / name).write_bytes(SHAPES[name](size))
    try:
        return read_document(file)
    except Unreadable as refused:
        assert refused.reason in REFUSALS  # noqa: PT017  either is right
        return None


@pytest.mark.parametrize("name", [name for name in SHAPES if not name.endswith((".html", ".xlsx"))])
def test_the_work_of_cutting_grows_as_the_text_does_and_no_passage_or_heading_is_without_bound(
    name: str, chunker: tuple[Chunker, CountedTokenizer], tmp_path: Path
) -> None:
    document = parsed(name, SIZE, tmp_path)
    if document is None:
        return
    cut, tokenizer = chunker
    chunks = cut.split(document)
    assert tokenizer.characters <= 12 * document.characters + 20_000
    longest = 2 * 300 * CHARACTERS_A_TOKEN + LONGEST_HEADING
    assert all(len(chunk.text) <= longest and len(chunk.section) <= 6 * (LONGEST_HEADING + 3) for chunk in chunks)


def test_a_document_of_too_many_passages_is_refused_before_they_are_all_made(
    chunker: tuple[Chunker, CountedTokenizer], tmp_path: Path
) -> None:
    cut, _ = chunker
    document = parsed("paragraphs.txt", MOST_PASSAGES * 600, tmp_path)
    assert document is not None
    with pytest.raises(Unreadable, match="split the document") as refused:
        cut.split(document)
    assert refused.value.reason is Reason.TOO_LARGE


async def test_a_document_that_is_being_cut_is_left_at_once(chunking: Chunking, tmp_path: Path) -> None:
    (file := tmp_path / "line.txt").write_bytes(SHAPES["line.txt"](LARGE))
    async with open_parser(ParserSettings()) as parser, anyio.create_task_group() as group:
        server = await parser.start()
        forks = anyio.Path(f"/proc/{server}/task/{server}/children")
        group.start_soon(parser.chunk, file, chunking)
        with anyio.fail_after(60):
            while not await forks.read_text():
                await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPES)
async def test_a_large_document_of_any_shape_becomes_passages_or_is_refused_within_its_limits(
    name: str, chunking: Chunking, tmp_path: Path
) -> None:
    (file := tmp_path / name).write_bytes(SHAPES[name](LARGE))
    async with open_parser(ParserSettings()) as parser:
        with anyio.fail_after(65):
            try:
                document = await parser.chunk(file, chunking)
            except Unreadable as refused:
                assert refused.reason in REFUSALS  # noqa: PT017  either is right
            else:
                assert 0 < len(document.chunks) <= MOST_PASSAGES
