"""The program of the process that reads files (`ingest.parsing.process`)."""

from ingest.parsing.pdf_shapes import known_shapes
from ingest.parsing.process import read_as_requested, serve

if __name__ == "__main__":
    known_shapes()  # once for all forks
    serve(read_as_requested)
