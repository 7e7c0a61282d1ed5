"""The program of the process that reads files (`ingest.parsing.process`)."""

from contextlib import suppress
from pathlib import Path

from ingest.parsing.pdf import is_pdf
from ingest.parsing.pdf_shapes import known_shapes
from ingest.parsing.process import ParseRequest, read_as_requested, serve


def load_shapes(request: ParseRequest) -> None:
    """Have the first PDF draw the shapes of letters, which takes a second, once for all forks."""
    if request.page is not None:
        return  # it is drawn, and no letter compared
    with suppress(OSError), Path(request.path).open("rb") as file:  # the fork says of one that cannot be opened
        if is_pdf(file.read(1024)):
            known_shapes()


if __name__ == "__main__":
    serve(read_as_requested, before_fork=load_shapes)
