import io
from pathlib import Path

from rich.console import Console

from ingest.bulk import LoadOutcome, SourceFile, open_display

OUTCOME = LoadOutcome(file=SourceFile(path=Path("a.md"), name="a.md"), passages=3)


def test_a_terminal_shows_a_line_for_each_document_and_a_bar_of_approvals() -> None:
    terminal = io.StringIO()
    with open_display(Console(file=terminal, force_terminal=True, width=100)) as display:
        display.begin(2)
        display.end(OUTCOME)
        display.end(OUTCOME)
        display.begin_approvals(2)
        display.approved(2)
    output = terminal.getvalue()
    assert "[2/2] a.md: 3 passages" in output
    assert output.rindex("approving") < output.rindex("2/2")
