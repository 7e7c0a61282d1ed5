"""Valid bank files, and error messages for invalid ones, with the key and the remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from knowledge.bank import BankRefused, read_banks
from tests.bank import DAWN, write_bank


def test_a_tenant_has_its_own_keys_and_the_first_bank_s_others(tmp_path: Path) -> None:
    banks = read_banks(write_bank(tmp_path))
    dawn, dusk = banks.of("anybody"), banks.of("dusk")
    assert (dawn.names.en, dusk.names.en) == ("Dawn Bank", "Dusk Bank")
    assert (dawn.telephone, dusk.telephone) == ("1800-7000", "1800-9000")
    assert dusk.helplines == dawn.helplines
    assert banks.by_tenant(lambda bank: bank.names.ko)("dusk") == "노을은행"


def test_a_host_shows_one_bank_and_any_other_host_the_first(tmp_path: Path) -> None:
    banks = read_banks(write_bank(tmp_path))
    assert [banks.of_host(host).names.en for host in ("CHAT.dusk.example", "chat.dawn.example", "10.0.0.1")] == [
        "Dusk Bank", "Dawn Bank", "Dawn Bank",
    ]  # fmt: skip


LIGHT = DAWN["colours"]["light"]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"names": {"ko": "새벽은행"}}, "names.en: Field required"),
        ({"name": "x"}, "name: Extra inputs are not permitted"),
        ({"telephone": "call us"}, "telephone: "),
        ({"helplines": None}, "helplines: "),
        ({"logo": "none.svg"}, "logo: "),
        ({"logo": "bank.yaml"}, "save it as one of them"),
        ({"opening": {"ko": "{name}입니다", "en": "x"}}, "opening.ko: {name} is not a placeholder here: write {bank}"),
        ({"refusals": {"rude": {"ko": "x", "en": "x"}}}, "refusals.rude"),
        ({"refusals": {"advice": {"ko": "x"}}}, "refusals.advice.en: Field required"),
        ({"colours": {"light": LIGHT | {"brand": "red"}}}, "colours.light.brand: "),
        ({"tenants": {"dusk": {"names": {"ko": "노을은행"}}}}, "tenants.dusk.names.en: Field required"),
        ({"tenants": ["dusk"]}, "tenants: write below each tenant"),
        ({"tenants": {"dusk": {"hosts": ["CHAT.dawn.example"]}}}, "hosts: a host is listed twice"),
    ],
)
def test_a_wrong_file_is_refused_by_its_key(tmp_path: Path, changed: dict[str, Any], sentence: str) -> None:
    file = write_bank(tmp_path, **changed)
    with pytest.raises(BankRefused) as refused:
        read_banks(file)
    assert str(file) in str(refused.value)
    assert sentence in str(refused.value)


@pytest.mark.parametrize("content", ["names: [", "- x\n", "", "\ufeff\x00"])
def test_an_invalid_bank_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bank.yaml").write_text(content, "utf-8")
    with pytest.raises(BankRefused, match=r"bank\.yaml"):
        read_banks(tmp_path / "bank.yaml")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BankRefused, match="cannot be read"):
        read_banks(tmp_path / "bank.yaml")


def test_the_example_of_the_documentation_is_a_bank_s_file(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "bank.md").read_text("utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    described = yaml.safe_load(example)
    (tmp_path / "logo.svg").write_text("<svg/>", "utf-8")
    (tmp_path / "bank.yaml").write_text(example, "utf-8")
    assert set(read_banks(tmp_path / "bank.yaml").first.model_fields_set) == set(described) - {"tenants"}
