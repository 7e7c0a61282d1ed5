"""What a load shows while it goes on: lines for a pipe, bars for a terminal."""

import io
from pathlib import Path

from rich.console import Console

from ingest.bulk.load import LoadOutcome
from ingest.bulk.manifest import Offering
from ingest.bulk.progress import Lines, showing
from tests.ingest.conftest import Clock

OUTCOME = LoadOutcome(offering=Offering(path=Path("a.md"), name="a.md"), passages=3)


def test_lines_say_how_approving_goes_only_where_it_takes_long() -> None:
    said: list[str] = []
    clock = Clock(100.0)
    lines = Lines(said.append, clock)
    lines.begin(1000)
    lines.end(OUTCOME)
    for done in range(1, 1001):
        clock.now += 1 / 32
        lines.approved(done, 1000)
    assert said[:2] == ["loading 1000 documents", "[1/1000] a.md: 3 passages (3000.0 passages/s, 1 s left)"]
    assert said[2:] == [f"approved {done}/1000" for done in range(160, 1001, 160)]


def test_a_terminal_sees_a_bar_of_what_is_approved() -> None:
    screen = io.StringIO()
    with showing(Console(file=screen, force_terminal=True, width=100)) as show:
        show.begin(2)
        for done in (1, 2):
            show.end(OUTCOME)
            show.approved(done, 2)
    shown = screen.getvalue()
    assert "approving" in shown
    assert "2/2 documents" in shown
    assert "6 passages" in shown
