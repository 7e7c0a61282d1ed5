"""Commands of `chatbot` ask for the settings that they use, and name what is missing."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from chatbot.__main__ import app
from ingest.__main__ import app as ingest


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
def test_the_audit_of_a_database_without_tables_is_told_to_migrate(tmp_path: Path) -> None:
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
