"""Documents of the shapes that are most expensive to parse (wide, long, deep, one word), of about `size` bytes."""

from collections.abc import Callable
from typing import Final

from openpyxl import Workbook

from tests.ingest.parsing.reading import saved

_COLUMNS = 16_384  # a worksheet's limit
_CELL = 32_767  # characters; a cell's limit


def _repeated(text: str, size: int) -> bytes:
    encoded = text.encode()
    return encoded * (size // len(encoded))


def _table(header: str, rows: str) -> bytes:
    columns = header.count("|") - 1
    return f"{header}\n|{'---|' * columns}\n{rows}\n".encode()


def _wide_csv(size: int) -> bytes:
    columns = size // 20
    rows = (",".join(f"{kind}{n % 10_000}" for n in range(columns)) for kind in ("name", "v", "w"))
    return "\n".join(rows).encode()


def _wide_head_and_many_rows(size: int) -> bytes:
    columns = size // 2 // 8
    return _table("|" + "header|" * columns, "| 1 | 2 |\n" * (size // 2 // 10))


def _mail(*, subject: str, body: str) -> bytes:
    return f"From: a@bank.example\nTo: b@bank.example\nSubject: {subject}\n\n{body}".encode()


def _workbook(rows: list[list[str]]) -> bytes:
    book = Workbook(write_only=True)
    sheet = book.create_sheet()
    for row in rows:
        sheet.append(row)
    return saved(book)


def _html(open_tag: str, size: int) -> bytes:
    return f"<!doctype html><html><body><p>Rates</p>{open_tag * (size // len(open_tag))}deposit".encode()


SHAPES: Final[dict[str, Callable[[int], bytes]]] = {
    "wide.csv": _wide_csv,
    "long.csv": lambda size: b"name,rate\n" + _repeated("deposit,2.35\n", size),
    "one_cell.csv": lambda size: b"name,rule\ndeposit," + _repeated("free of charge ", size) + b"\n",
    "word.txt": lambda size: _repeated("deposit", size),
    "korean_word.txt": lambda size: _repeated("정기예금이자율", size),
    "unknown_word.txt": lambda size: b"deposit " + _repeated("𒀀𒀁𒀂", size),
    "digits.txt": lambda size: b"deposit " + _repeated("1234567890", size),
    "line.txt": lambda size: _repeated("deposits are free of charge. ", size),
    "korean_line.txt": lambda size: _repeated("예금은 수수료가 없습니다. ", size),
    "lines.txt": lambda size: _repeated("deposit\n", size),
    "blank_lines.txt": lambda size: b"deposit" + b"\n" * size + b"free",
    "paragraphs.txt": lambda size: _repeated("Deposits are protected up to one hundred million won.\n\n", size),
    "hashes.md": lambda size: b"# Rates\n\ntext\n\n" + b"#" * size,
    "hash_lines.md": lambda size: b"# Rates\n\ntext\n\n" + _repeated("#\n", size),
    "headings.md": lambda size: _repeated("# a\n", size),
    "headings_and_text.md": lambda size: _repeated("## deposit\n\nfree\n\n", size),
    "long_heading.md": lambda size: b"# " + _repeated("deposit ", size) + b"\n\ntext\n",
    "deep_headings.md": lambda size: _repeated("".join(f"{'#' * n} level {n}\n\ntext\n\n" for n in range(1, 7)), size),
    "pipes.md": lambda size: b"# Rates\n\n" + b"|" * size,
    "pipe_lines.md": lambda size: b"# Rates\n\n" + _repeated("|\n", size),
    "stars.md": lambda size: b"# Rates\n\ntext\n\n" + b"*" * size,
    "star_words.md": lambda size: b"# Rates\n\n" + _repeated("*a ", size),
    "brackets.md": lambda size: b"# Rates\n\n" + b"[" * size + b"a",
    "backticks.md": lambda size: b"# Rates\n\n" + _repeated("`a ", size),
    "links.md": lambda size: b"# Rates\n\n" + _repeated("[a](b ", size),
    "quotes.md": lambda size: b"# Rates\n\n" + b">" * size + b" deposit",
    "quote_lines.md": lambda size: b"# Rates\n\n" + _repeated("> > > deposit\n", size),
    "list.md": lambda size: b"# Rates\n\n" + _repeated("- deposit\n", size),
    "deep_list.md": lambda size: b"# Rates\n\n" + "".join(
        f"{' ' * (n % 200)}- deposit\n" for n in range(size // 112)
    ).encode(),
    "fences.md": lambda size: b"# Rates\n\n" + _repeated("```\n", size),
    "references.md": lambda size: b"# Rates\n\n" + _repeated("[a]: b\n", size),
    "table.md": lambda size: _table("| name | rate |", "| deposit | 2.35 % |\n" * (size // 21)),
    "tables.md": lambda size: _repeated("# a\n\n| n | r |\n| --- | --- |\n| d | 2 |\n\n", size),
    "wide_table.md": lambda size: _table("|" + "name|" * (size // 14), "|" + "rate|" * (size // 14)),
    "wide_head.md": _wide_head_and_many_rows,
    "long_head.md": lambda size: _table("| name | " + "rule " * 50 + "|", "| deposit | 2 |\n" * (size // 16)),
    "one_cell.md": lambda size: _table("| name | rule |", "| deposit | " + "free of charge " * (size // 15) + "|"),
    "subject.eml": lambda size: _mail(subject="deposit " * (size // 8), body="Deposits are free of charge."),
    "folded_subject.eml": lambda size: _mail(
        subject="deposit\n " * (size // 9) + "end", body="Deposits are free of charge."
    ),
    "body.eml": lambda size: _mail(subject="Rates", body="deposit " * (size // 8)),
    "headers.eml": lambda size: b"From: a@bank.example\n" + _repeated("X-A: b\n", size) + b"Subject: Rates\n\nfree\n",
    "divs.html": lambda size: _html("<div>", size),
    "lists.html": lambda size: _html("<ul><li>a", size),
    "tables.html": lambda size: _html("<table><tr><td>a", size),
    "bolds.html": lambda size: _html("<b>", size),
    "cells.html": lambda size: _html("<td>a</td>", size).replace(b"<p>Rates</p>", b"<table><tr>"),
    "title.html": lambda size: b"<!doctype html><html><head><title>" + _repeated("deposit ", size)
    + b"</title></head><body><p>free of charge</p></body></html>",
    "wide.xlsx": lambda size: _workbook(
        [[f"name {n}" for n in range(_COLUMNS)]] + [["2.35"] * _COLUMNS] * max(1, size // (_COLUMNS * 40))
    ),
    "long.xlsx": lambda size: _workbook([["name", "rate"], *[["deposit", "2.35"]] * (size // 80)]),
    "cells.xlsx": lambda size: _workbook([["name", "rule"], *[["deposit", "free " * (_CELL // 5)]] * (size // _CELL)]),
}  # fmt: skip
