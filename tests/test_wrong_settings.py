"""A setting with a wrong value ends the start of either service with a line that names it, and tells no secret."""

from collections.abc import Callable
from functools import partial

import pytest
import typer

from chatbot.__main__ import settings_or_exit as chat_settings
from chatbot.models import ModelsMisconfigured
from chatbot.settings import Settings as ChatSettings
from ingest.__main__ import settings_or_exit as staff_settings
from ingest.settings import Settings as StaffSettings

SERVICES: dict[str, Callable[[], ChatSettings | StaffSettings]] = {
    "chatbot": partial(chat_settings, ChatSettings),
    "ingest": staff_settings,
}
BOTH = [
    ("DATABASE_URL", ""),
    ("DATABASE_URL", "postgres://bank:hunter2@db/bank"),
    ("DATABASE_URL", "postgresql://bank:hunter2@db/bank"),
    ("DATABASE_URL", "postgresql+psycopg2://bank:hunter2@db/bank"),
    ("DATABASE_URL", "postgresql+asyncpg://bank:hunter2@db:port/bank"),
    ("DATABASE_URL", "postgresql+asyncpg://bank:hunter2@db/bank?sslmode=require"),
    ("DATABASE_URL", "sqlite:///bank.db"),
    ("REDIS_URL", ""),
    ("REDIS_URL", "redis:6379"),
    ("REDIS_URL", "redis://:hunter2#1@redis:6379/0"),
    ("REDIS_URL", "redis://:hunter2/1@redis:6379/0"),
    ("REDIS_URL", "redis://:[hunter2]@redis:6379/0"),
    ("REDIS_URL", "redis://:hunter2℀@redis:6379/0"),
    ("REDIS_URL", "http://redis:6379"),
    ("QDRANT_URL", "qdrant:6333"),
    ("LOG_LEVEL", "verbose"),
    ("EMBEDDER__EXTRA_BODY", "{'truncate': true}"),
]
CHAT = [
    ("AUDIT_KEY", ""),
    ("ADMISSION__WEIGHTS", "bank=2"),
    ("LLM_CHAT_TEMPLATE_KWARGS", "{'enable_thinking': False}"),
    ("DRAIN_SECONDS", "-1"),
    ("TURN__LONGEST_ANSWER", "3m"),
]
WRONG = [*((service, *wrong) for service in SERVICES for wrong in BOTH), *(("chatbot", *wrong) for wrong in CHAT)]


AUTH = {
    "AUTH__ISSUER": "https://login.example.com",
    "AUTH__AUDIENCE": "bank",
    "AUTH__JWKS_URL": "https://login.example.com/keys",
}


@pytest.fixture(autouse=True)
def right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"REDIS_URL": "redis://:hunter2@redis:6379/0", "AUDIT_KEY": "k" * 32, **AUTH}.items():
        monkeypatch.setenv(name, value)


def error_lines(service: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines with which a service ends whose settings are wrong."""
    with pytest.raises(typer.Exit) as ended:
        SERVICES[service]()
    assert ended.value.exit_code == 2
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("service", "name", "value"), WRONG)
def test_a_wrong_value_ends_the_start_with_its_name(
    service: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    (line, *_) = error_lines(service, capsys)
    assert line.startswith(f"{service}: {name}")
    assert "hunter2" not in line


WRONG_AUTH: list[tuple[dict[str, str | None], str]] = [
    ({"AUTH__ROLE_MAP": '{"Chat Staff": ["boss"]}'}, "AUTH__ROLE_MAP__CHAT STAFF__0: Input should be 'customer'"),
    ({"AUTH__ROLE_MAP": '{"Staff": ["staff"]}', "AUTH__ROLES": '["customer"]'}, "AUTH: AUTH__ROLE_MAP gives staff"),
    ({"AUTH__ROLE_MAP": '{"Chat Staff": '}, "AUTH__ROLE_MAP: Input should be a valid dictionary"),
    ({"AUTH__ISSUERS": '[{"issuer": '}, "AUTH__ISSUERS: Input should be a valid tuple"),
    ({"AUTH__ROLEMAP": "{}"}, "AUTH__ROLEMAP: Extra inputs are not permitted"),
    ({"AUTH__ROLES_CLAIM": "https://a.example/roles"}, 'AUTH__ROLES_CLAIM: https://a.example/roles is one name'),
    ({"AUTH__ISSUERS": '[{"issuer": "https://a.example"}]'}, "AUTH__ISSUERS: set 0.roles, which is missing"),
    ({"AUTH__TENANT": "a", "AUTH__TENANT_CLAIM": "tid"}, "AUTH: set AUTH__TENANT or AUTH__TENANT_CLAIM, not both"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("service", "variables", "sentence"),
    [
        *((service, *wrong) for service in SERVICES for wrong in WRONG_AUTH),
        ("chatbot", {"BANK_FILE": None}, "set BANK_FILE:"),
        ("chatbot", {"REDIS_URL": None}, "set REDIS_URL: Redis keeps history, answer logs and the token ledger."),
        ("chatbot", {name: None for name in AUTH}, "set AUTH__ISSUER: Tokens of this issuer"),
        ("ingest", {"AUTH__ISSUER": None}, "set AUTH__ISSUER: Tokens of this issuer"),
        ("ingest", {"OIDC__ISSUER": "https://login.example.com"}, "set OIDC__CLIENT_ID: The page is registered"),
        ("chatbot", {"AUTH__ISSUERS": '[{"issuer": "https://b.example.com"}]'}, "AUTH__ISSUERS: set 0.audience, which"),
    ],
)
def test_a_missing_or_wrong_group_ends_the_start_with_a_remedy(
    service: str,
    variables: dict[str, str | None],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        if value is None:
            monkeypatch.delenv(name)
        else:
            monkeypatch.setenv(name, value)
    lines = error_lines(service, capsys)
    assert any(line.startswith(f"{service}: {sentence}") for line in lines), lines
    assert "Field required" not in "".join(lines)


@pytest.mark.parametrize(("urls", "sentence"), [("", "set MODELS_FILE or LLM_URLS"), ("llm:8000", "LLM_URLS__0: ")])
def test_models_that_are_not_named_are_a_sentence(urls: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_URLS", urls)
    monkeypatch.setenv("LLM_TOKENIZER", "/models/a")
    with pytest.raises(ModelsMisconfigured, match=sentence):
        _ = ChatSettings().models
