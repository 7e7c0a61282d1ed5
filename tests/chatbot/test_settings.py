"""A bank's file that cannot be read ends the start with what to do."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from chatbot.settings import Settings
from tests.bank import write_bank

REQUIRED = {"REDIS_URL": "redis://127.0.0.1", "AUDIT_KEY": "k" * 32, "AUTH__ISSUER": "i", "AUTH__PUBLIC_KEY_FILE": "k"}


@pytest.fixture(autouse=True)
def _required(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)


def test_the_bank_s_file_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BANK_FILE")
    with pytest.raises(ValidationError, match="bank_file"):
        Settings()


def test_a_wrong_file_ends_the_start_with_its_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BANK_FILE", str(write_bank(tmp_path, telephone="call us")))
    with pytest.raises(ValidationError, match="telephone"):
        Settings()
