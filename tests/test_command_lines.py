"""Every command has a help with exit codes, asks for the settings that it uses, and names what is missing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from chatbot.__main__ import app
from evals.__main__ import app as evals
from ingest.__main__ import app as ingest
from llm_server.__main__ import app as llm_server

PROGRAMS = {"chatbot": app, "evals": evals, "ingest": ingest, "llm-server": llm_server}


def commands_of(program: Any, *names: str) -> Iterator[list[str]]:
    """Yield a program and each of its commands as arguments."""
    yield [*names]
    for name, command in getattr(program, "commands", {}).items():
        yield from commands_of(command, *names, name)


HELPS = [(name, rest) for name, program in PROGRAMS.items() for rest in commands_of(typer.main.get_command(program))]


@pytest.mark.parametrize("command", HELPS, ids=[" ".join((name, *rest)) for name, rest in HELPS])
def test_each_help_names_the_exit_codes_in_80_columns(command: tuple[str, list[str]]) -> None:
    name, arguments = command
    result = CliRunner().invoke(PROGRAMS[name], [*arguments, "--help"], terminal_width=80, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "Exit codes: 0 done; 1 " in result.output
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_its_version(name: str) -> None:
    result = CliRunner().invoke(PROGRAMS[name], ["--version"], prog_name=name)
    assert (result.exit_code, result.output) == (0, f"{name} 0.1.0\n")


@pytest.fixture
def own_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the logging configuration: a program sets it for its whole process, which is the tests' here."""
    for program in ("chatbot", "ingest"):
        monkeypatch.setattr(f"{program}.__main__.configure_logs", lambda **_: None)


@pytest.mark.usefixtures("own_logs")
@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["stop", "--by", "lee", "--reason", "a test"], {}),
        (["keys", "list"], {}),
        (["audit", "verify"], {"AUDIT_KEY": "k" * 32}),
    ],
)
def test_a_command_requires_only_the_settings_that_it_uses(
    arguments: list[str], settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AUDIT_KEY", "AUTH__ISSUER", "BANK_FILE", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    env = {"DATA_DIR": str(tmp_path), **settings}
    for command in (["migrate"], arguments):
        result = CliRunner().invoke(app, command, env=env)
        assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("own_logs")
@pytest.mark.parametrize(
    "arguments", [["keys", "list"], ["stop", "--by", "lee", "--reason", "a test"], ["audit", "verify"]]
)
def test_a_command_in_another_folder_names_the_missing_database_and_makes_none(
    arguments: list[str], tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, arguments, env={"DATA_DIR": str(tmp_path / "data"), "AUDIT_KEY": "k" * 32})
    assert result.exit_code == 2
    assert f"the database {tmp_path}/data/bank.db does not exist" in result.output
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("own_logs")
def test_audit_verify_of_a_database_without_tables_names_migrate(tmp_path: Path) -> None:
    (tmp_path / "bank.db").touch()
    env = {"DATA_DIR": str(tmp_path), "AUDIT_KEY": "k" * 32}
    result = CliRunner().invoke(app, ["audit", "verify"], env=env)
    assert (result.exit_code, result.output) == (
        2,
        "chatbot: the database has no tables yet: run `chatbot migrate` first\n",
    )


@pytest.mark.usefixtures("own_logs")
@pytest.mark.parametrize("program", [app, ingest], ids=["chatbot", "ingest"])
def test_a_database_that_is_away_is_one_sentence(program: typer.Typer) -> None:
    env = {"DATABASE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/none"}
    result = CliRunner().invoke(program, ["migrate"], env=env)
    assert result.exit_code == 1
    assert "could not be migrated" in result.output
