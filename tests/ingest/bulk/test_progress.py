"""The progress of a load: lines for a pipe, bars for a terminal."""

import io
from pathlib import Path

from rich.console import Console

from ingest.bulk.load import LoadOutcome
from ingest.bulk.manifest import SourceFile
from ingest.bulk.progress import ProgressLines, open_display
from tests.clock import Clock

OUTCOME = LoadOutcome(file=SourceFile(path=Path("a.md"), name="a.md"), passages=3)


def test_lines_say_how_approving_goes_only_where_it_takes_long() -> None:
    written: list[str] = []
    clock = Clock(100.0)
    lines = ProgressLines(written.append, clock)
    lines.begin(1000)
    lines.end(OUTCOME)
    for done in range(1, 1001):
        clock.now += 1 / 32
        lines.approved(done, 1000)
    assert written[:2] == ["loading 1000 documents", "[1/1000] a.md: 3 passages (3000.0 passages/s, 1 s left)"]
    assert written[2:] == [f"approved {done}/1000" for done in range(160, 1001, 160)]


def test_a_terminal_sees_a_bar_of_what_is_approved() -> None:
    terminal = io.StringIO()
    with open_display(Console(file=terminal, force_terminal=True, width=100)) as display:
        display.begin(2)
        for done in (1, 2):
            display.end(OUTCOME)
            display.approved(done, 2)
    output = terminal.getvalue()
    assert "approving" in output
    assert "2/2 documents" in output
    assert "6 passages" in output
