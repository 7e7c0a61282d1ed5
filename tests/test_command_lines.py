"""What all commands have: a version, exit codes in each help, and a sentence for a wrong argument."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import chatbot.__main__
import evals.__main__
import ingest.__main__
import llm_server.__main__

PROGRAMS = {
    "chatbot": chatbot.__main__.app,
    "evals": evals.__main__.app,
    "ingest": ingest.__main__.app,
    "llm-server": llm_server.__main__.app,
}


def commands_of(app: typer.Typer) -> Iterator[list[str]]:
    """Yield each command of an app as arguments, the app itself first."""
    yield []
    for command in app.registered_commands:
        callback = command.callback
        assert callback is not None
        yield [command.name or callback.__name__.replace("_", "-")]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        for below in commands_of(group.typer_instance):
            yield [str(group.name), *below]


HELPS = [(name, arguments) for name, app in PROGRAMS.items() for arguments in commands_of(app)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_prints_its_version(name: str) -> None:
    result = CliRunner().invoke(PROGRAMS[name], ["--version"], prog_name=name)
    assert (result.exit_code, result.output) == (0, f"{name} 0.1.0\n")


@pytest.mark.parametrize(("name", "arguments"), HELPS, ids=[" ".join((name, *rest)) for name, rest in HELPS])
def test_each_help_names_the_exit_codes_in_80_columns(name: str, arguments: list[str]) -> None:
    result = CliRunner().invoke(PROGRAMS[name], [*arguments, "--help"], terminal_width=80, env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "Exit codes: 0 done; 1 " in result.output
    assert max(map(len, result.output.splitlines())) <= 80


@pytest.fixture
def own_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the logging configuration: a program sets it for its whole process, which is the tests' here."""
    monkeypatch.setattr("chatbot.__main__.configure_logs", lambda **_: None)


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
        result = CliRunner().invoke(PROGRAMS["chatbot"], command, env=env)
        assert result.exit_code == 0, result.output


@pytest.mark.usefixtures("own_logs")
def test_the_audit_of_a_database_without_tables_is_told_to_migrate(tmp_path: Path) -> None:
    env = {"DATA_DIR": str(tmp_path), "AUDIT_KEY": "k" * 32}
    result = CliRunner().invoke(PROGRAMS["chatbot"], ["audit", "verify"], env=env)
    assert (result.exit_code, result.output) == (
        2,
        "chatbot: the database has no tables yet: run `chatbot migrate` first\n",
    )
