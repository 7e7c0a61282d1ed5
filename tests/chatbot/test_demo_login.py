"""The demo login gives a token to everybody who asks, so it exists on loopback only."""

from pathlib import Path

import jwt
import pytest
from typer.testing import CliRunner

from chatbot.__main__ import app
from chatbot.api import AUDIENCE, demo_signer, key_pair
from chatbot.settings import check_demo_host
from run import CannotRun, prepare_identity, read_settings


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "127.0.0.2", "10.0.0.1", "localhost.example", "", "127.1", "2130706433", "[::1]"],  # noqa: S104  refused
)
def test_any_address_but_loopback_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"HOST=127\.0\.0\.1"):
        check_demo_host(host)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_is_allowed(host: str) -> None:
    check_demo_host(host)


def test_there_is_no_demo_login_without_its_key_file(tmp_path: Path) -> None:
    private, _ = key_pair(tmp_path)
    assert demo_signer(None) is None
    assert demo_signer(private) is not None


OF_A_BANK = {"AUTH__ISSUER": "https://login.bank.example", "DEMO_KEY_FILE": "/run/demo.key"}


@pytest.mark.parametrize("identity", [{}, OF_A_BANK])
def test_no_demo_login_off_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, identity: dict[str, str]) -> None:
    for name in OF_A_BANK:
        monkeypatch.delenv(name, raising=False)
    for name, value in identity.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(CannotRun, match="DEMO_KEY_FILE"):
        prepare_identity(tmp_path, "127.0.0.2")


def test_make_run_names_a_wrong_setting_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURN__ANSWER", "sometimes")
    with pytest.raises(CannotRun, match=r"TURN__ANSWER: .* \(docs/settings.md lists"):
        read_settings()


def test_a_token_is_signed_with_the_key_in_the_data_folder(tmp_path: Path) -> None:
    named, chosen = tmp_path / "named", tmp_path / "chosen"
    public = {folder: key_pair(folder)[1].read_text("ascii") for folder in (named, chosen)}
    runner = CliRunner(env={"DATA_DIR": str(named)})
    for arguments, folder in ([], named), (["--data-dir", str(chosen)], chosen):
        printed = runner.invoke(app, ["token", *arguments]).output.strip()
        assert jwt.decode(printed, public[folder], algorithms=["ES256"], audience=AUDIENCE)["sub"] == "guest"


def test_a_token_in_another_folder_names_the_missing_data_folder_and_makes_none(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["token", "--data-dir", str(tmp_path / "data")])
    assert (result.exit_code, "DATA_DIR" in result.output, list(tmp_path.iterdir())) == (2, True, [])


def test_the_first_token_makes_the_key_in_an_existing_folder(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["token", "--data-dir", str(tmp_path)]).exit_code == 0, "compose.yaml relies on it"
    assert len(list(tmp_path.glob("demo-key*"))) == 2
