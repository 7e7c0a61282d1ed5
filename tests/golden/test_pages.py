"""The reference pages say what the code says, and every setting and number says what it is."""

import re
from pathlib import Path

import pytest

from chatbot.settings import Settings as ChatSettings
from ingest.settings import Settings as StaffSettings
from tests.golden import pages

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
SERVICES = pytest.mark.parametrize("model", [ChatSettings, StaffSettings], ids=["chatbot", "ingest"])


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_reference_page_is_what_the_code_says(name: str, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-golden"):
        (pages.DOCS / name).write_text(pages.PAGES[name](), "utf-8")
    text = (pages.DOCS / name).read_text("utf-8")
    assert text == pages.PAGES[name](), f"docs/{name} differs from the code: `{pages.COMMAND}` writes it anew"


@SERVICES
def test_every_setting_says_what_it_means_and_a_number_its_unit(
    model: type[ChatSettings] | type[StaffSettings],
) -> None:
    for variable, field, _ in pages.settings(model):
        unit, meaning = pages.unit_and_meaning(field.description or "")
        assert len(meaning) > 5, f"{variable} has no description"
        is_number = re.match("integer|number", pages.kind_of(field)) is not None
        assert is_number == bool(unit), (
            f"{variable}: its description begins with a unit where it is a number, only then"
        )


def test_the_readme_names_existing_settings_with_their_defaults() -> None:
    defaults = {
        f"`{name}`": pages.default_of(name, value)
        for model in (ChatSettings, StaffSettings)
        for name, _, value in pages.settings(model)
    }
    rows = re.findall(r"^\| (`[A-Z][A-Z_]+`(?:, `[A-Z_]+`)*) \| .* \| (.*?) ?\|$", README, re.MULTILINE)
    assert len(rows) >= 8
    for variables, default in rows:
        known = [defaults[name] for name in variables.split(", ") if name in defaults]
        assert known, f"no setting is called {variables}"
        if re.fullmatch("(`[^`]+`(, |$))+", default):
            assert default == ", ".join(known), f"the README's default of {variables}"
