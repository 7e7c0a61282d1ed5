"""What is wrong with the settings of identity ends the start of either service with one sentence that names the key."""

import pytest
import typer
from typer.testing import CliRunner

from chatbot.__main__ import app as chatbot
from ingest.__main__ import app as ingest

GOOD = {
    "REDIS_URL": "redis://127.0.0.1",
    "AUDIT_KEY": "k" * 32,
    "AUTH__ISSUER": "https://sso.example",
    "AUTH__JWKS_URL": "https://sso.example/keys",
}
WRONG = [
    ({"AUTH__ROLE_MAP": '{"Chat Staff": ["boss"]}'}, "AUTH__ROLE_MAP__CHAT STAFF__0: Input should be 'customer'"),
    ({"AUTH__ROLE_MAP": '{"Chat Staff": ["staff"]}', "AUTH__ROLES": '["customer"]'}, "AUTH__ROLE_MAP gives staff"),
    ({"AUTH__ROLE_MAP": '{"Chat Staff": '}, "AUTH__ROLE_MAP: Input should be a valid dictionary"),
    ({"AUTH__ISSUERS": '[{"issuer": '}, "AUTH__ISSUERS: Input should be a valid tuple"),
    ({"AUTH__ROLEMAP": "{}"}, "AUTH__ROLEMAP: Extra inputs are not permitted"),
    ({"AUTH__ROLES_CLAIM": "https://a.example/roles"}, 'AUTH__ROLES_CLAIM: https://a.example/roles is one name'),
    ({"AUTH__ISSUERS": '[{"issuer": "https://a.example"}]'}, "AUTH__ISSUERS: set 0.roles, which is missing"),
    ({"AUTH__TENANT": "a", "AUTH__TENANT_CLAIM": "tid"}, "set AUTH__TENANT or AUTH__TENANT_CLAIM, not both"),
]  # fmt: skip


@pytest.mark.parametrize("program", [chatbot, ingest], ids=["chatbot", "ingest"])
@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_a_wrong_setting_of_identity_is_one_sentence(
    program: typer.Typer, wrong: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (GOOD | wrong).items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(program, ["serve"])
    assert done.exit_code == 2
    assert sentence in done.output
    assert "Traceback" not in done.output
