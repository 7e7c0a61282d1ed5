"""The program of the process that reads files (`ingest.parsing.process`)."""

from ingest.parsing.process import read_as_requested, serve

if __name__ == "__main__":
    serve(read_as_requested)
