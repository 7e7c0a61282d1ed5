"""Documents become passages; those of a costly shape by work that grows as their text does, or not at all."""

from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ingest.parsing import ParserSettings, Unreadable, open_parser
from ingest.parsing.chunking import (
    CHARACTERS_A_TOKEN,
    LONGEST_HEADING,
    MOST_PASSAGES,
    Chunk,
    Chunker,
    Chunking,
    ChunkSettings,
    chunk_document,
    open_chunker,
)
from ingest.parsing.parsed import Format, Page, Parsed, Reason
from ingest.parsing.read import read_document
from ingest.parsing.text import parse_markdown
from tests.shapes import SHAPES


@pytest.fixture
def chunker(chunking: Chunking) -> Chunker:
    return open_chunker(chunking)


def split(chunker: Chunker, *pages: str) -> list[Chunk]:
    numbered = tuple(Page(number=n, markdown=text) for n, text in enumerate(pages, start=1))
    return chunker.split(Parsed(format=Format.PDF, title=None, pages=numbered))


def test_a_long_title_is_cut_and_stays_whole_in_the_passages(chunker: Chunker) -> None:
    title = "정기예금 금리 안내 " * 50
    parsed = parse_markdown(f"# {title}\n\n연 2.35%")
    document = chunk_document(parsed, chunker)
    assert document.title is not None
    assert len(document.title) == 300
    assert document.title.endswith("…")
    assert sum(chunk.text.count("안내") for chunk in document.chunks) == 50


PARAGRAPH = "Deposits are protected up to one hundred million won per person and bank. "


def test_every_passage_keeps_to_the_limit_but_for_its_heading_and_no_text_is_lost(chunker: Chunker) -> None:
    chunks = split(chunker, "# Rules\n\n" + PARAGRAPH * 20)
    assert all(chunker.count(chunk.text) <= 300 + len("# Rules\n\n") for chunk in chunks)
    assert sum(chunk.text.count("one hundred million won") for chunk in chunks) == 20


@pytest.mark.parametrize("text", ["{}", "| 이름 | 한도 |\n| --- | --- |\n| 예금 | {} |"])
def test_no_figure_is_cut_in_two_where_no_blank_is_near(chunker: Chunker, text: str) -> None:
    figures = [f"{7_654_321 * n:,}원" for n in range(1, 90)]
    for start in range(0, 300, 7):
        chunks = split(chunker, text.format("가" * start + "이며한도".join(figures)))
        assert len(chunks) > 2
        assert [figure for figure in figures if not any(figure in chunk.text for chunk in chunks)] == []


def test_a_section_begins_a_passage_and_is_named_by_its_headings(chunker: Chunker) -> None:
    chunks = split(chunker, f"# Deposits\n\n## Rates\n\n{PARAGRAPH}\n\n## Terms\n\n{PARAGRAPH}")
    assert [chunk.section for chunk in chunks] == ["Deposits > Rates", "Deposits > Terms"]
    assert chunks[0].text.startswith("# Deposits\n\n## Rates")


def test_small_sections_share_a_passage_named_by_their_common_heading(chunker: Chunker) -> None:
    (chunk,) = split(chunker, "# Fees\n\n## Cash\n\nFree.\n\n## Wire\n\n5 won.")
    assert chunk.section == "Fees"
    assert "5 won." in chunk.text


def test_a_carriage_return_ends_a_line_as_it_does_for_markdown(chunker: Chunker) -> None:
    chunks = split(
        chunker, f"# Deposits\r\r{PARAGRAPH}\r\n\r\n# Fees\r\rFree of charge for every customer of the bank."
    )
    assert "".join(chunk.text for chunk in chunks).count("\r") == 0
    assert {chunk.section for chunk in chunks} == {"Deposits", "Fees"}


def test_a_heading_never_stands_alone(chunker: Chunker) -> None:
    chunks = split(chunker, f"# Contents\n\n# Rates\n\n{PARAGRAPH * 3}\n\n# End")
    assert not any(all(line.startswith("#") or not line for line in chunk.text.split("\n")) for chunk in chunks)


def test_a_row_longer_than_a_passage_is_cut_and_each_part_says_what_it_is_about(chunker: Chunker) -> None:
    table = f"| Item | Rule |\n| --- | --- |\n| Early end | {PARAGRAPH * 12} |"
    chunks = split(chunker, f"# Rules\n\n{table}")
    parts = [chunk for chunk in chunks if "Deposits are" in chunk.text]
    assert len(parts) > 2
    assert all("Item: Early end" in chunk.text for chunk in parts)


def test_a_passage_knows_the_page_on_which_it_begins(chunker: Chunker) -> None:
    chunks = split(chunker, f"# One\n\n{PARAGRAPH * 3}", f"# Two\n\n{PARAGRAPH * 3}")
    assert [(chunk.section, chunk.page) for chunk in chunks] == [("One", 1), ("Two", 2)]


def test_a_heading_of_any_length_names_its_section_by_its_beginning(chunker: Chunker) -> None:
    (chunk, *_) = split(chunker, f"# {'Deposits ' * 1000}\n\n{PARAGRAPH}")
    assert chunk.section.startswith("Deposits Deposits")
    assert (len(chunk.section), chunk.section[-1]) == (200, "…")


def test_text_without_any_letter_gives_no_passage(chunker: Chunker) -> None:
    assert split(chunker, "---\n\n***") == []


@given(before=st.integers(0, 12), rows=st.integers(2, 80), after=st.integers(0, 12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_passage_with_rows_has_their_header(chunker: Chunker, before: int, rows: int, after: int) -> None:
    body = "\n".join(f"| row {n} | {n / 10:.2f} % |" for n in range(1, rows + 1))
    text = f"# Rates\n\n{PARAGRAPH * before}\n\n| Term | Rate |\n| --- | --- |\n{body}\n\n{PARAGRAPH * after}"
    chunks = split(chunker, text)
    assert sum(chunk.text.count("| row ") for chunk in chunks) == rows
    assert all(chunker.count(chunk.text) <= 320 for chunk in chunks)
    assert all("| Term | Rate |\n| --- | --- |" in chunk.text for chunk in chunks if "| row " in chunk.text)


@pytest.mark.parametrize(("reads", "tokens"), [(None, 300), (512, 300), (256, 192), (128, 96), (1, 1)])
def test_a_passage_fits_into_what_the_embedder_reads(reads: int | None, tokens: int) -> None:
    assert ChunkSettings().chunking(Path("weights"), max_tokens=reads).tokens == tokens


SIZE = 50_000  # bytes
LARGE = 7_000_000
REFUSALS = {Reason.TOO_LARGE, Reason.TOO_SLOW, Reason.HOSTILE, Reason.EMPTY_TEXT}


class CountedTokenizer:
    """Counts the characters that a tokenizer encodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.characters = 0

    def encode(self, text: str, *, add_special_tokens: bool) -> object:
        self.characters += len(text)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)


def parsed(name: str, size: int, folder: Path) -> Parsed | None:
    (file := folder / name).write_bytes(SHAPES[name](size))
    try:
        return read_document(file)
    except Unreadable as refused:
        assert refused.reason in REFUSALS  # noqa: PT017  either is right
        return None


@pytest.mark.parametrize("name", [name for name in SHAPES if not name.endswith((".html", ".xlsx"))])
def test_the_work_of_cutting_is_linear(
    name: str, chunker: Chunker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document = parsed(name, SIZE, tmp_path)
    if document is None:
        return
    monkeypatch.setattr(chunker, "_tokenizer", tokenizer := CountedTokenizer(chunker._tokenizer))
    chunks = chunker.split(document)
    assert tokenizer.characters <= 12 * document.characters + 20_000
    longest = 2 * 300 * CHARACTERS_A_TOKEN + LONGEST_HEADING
    assert all(len(chunk.text) <= longest and len(chunk.section) <= 6 * (LONGEST_HEADING + 3) for chunk in chunks)


def test_a_document_of_too_many_passages_is_refused(chunker: Chunker, tmp_path: Path) -> None:
    document = parsed("paragraphs.txt", MOST_PASSAGES * 600, tmp_path)
    assert document is not None
    with pytest.raises(Unreadable, match="split the document") as refused:
        chunker.split(document)
    assert refused.value.reason is Reason.TOO_LARGE


@pytest.mark.long
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.anyio
async def test_a_large_document_is_cut_or_refused_in_its_limits(name: str, chunking: Chunking, tmp_path: Path) -> None:
    (file := tmp_path / name).write_bytes(SHAPES[name](LARGE))
    async with open_parser(ParserSettings()) as parser:
        with anyio.fail_after(65):
            try:
                document = await parser.chunk(file, chunking)
            except Unreadable as refused:
                assert refused.reason in REFUSALS  # noqa: PT017  either is right
            else:
                assert 0 < len(document.chunks) <= MOST_PASSAGES
