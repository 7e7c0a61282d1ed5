"""The file of a bank other than the sample bank, and a check that a text shows no trace of the sample bank."""

from pathlib import Path
from typing import Any

import yaml

from evals.sample_bank import sample_banks

LOGO = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="3" fill="#7a1f3d"/></svg>'
DAWN: dict[str, Any] = {
    "names": {"ko": "새벽은행", "en": "Dawn Bank"},
    "telephone": "1800-7000",
    "logo": "dawn.svg",
    "colours": {
        "light": {"brand": "#7a1f3d", "brand_strong": "#5a132b", "on_brand": "#ffffff", "accent": "#e0a800"},
        "dark": {"brand": "#f2a9bf", "brand_strong": "#f8cdd9", "on_brand": "#2a0713", "accent": "#e0a800"},
    },
    "opening": {"ko": "{bank}의 인공지능이 답합니다.", "en": "An AI of {bank} answers."},
    "questions": {"ko": ["새벽 예금은 어떤 상품인가요?"], "en": ["What is the Dawn deposit?"]},
    "refusals": {"advice": {"ko": "{bank}은 상품을 골라 드리지 않습니다.", "en": "{bank} recommends no product."}},
    "helplines": {
        "crisis": {"ko": "마음의전화 02-111-2222", "en": "the Heartline 02-111-2222"},
        "emergency": "119",
        "debt": {"ko": "채무상담소(02-333-4444)", "en": "the debt office (02-333-4444)"},
    },
    "glossary": [["모으기통장", "샘물 정기예금"]],
    "hosts": ["chat.dawn.example"],
}
DUSK = {
    "names": {"ko": "노을은행", "en": "Dusk Bank"},
    "telephone": "1800-9000",
    "logo": None,
    "hosts": ["chat.dusk.example"],
}
"""The differing keys of another tenant's bank."""


def write_bank(folder: Path, **changed: object) -> Path:
    """Write the file of Dawn Bank, with Dusk Bank as the tenant `dusk`, and its logo; return the file."""
    (folder / "dawn.svg").write_text(LOGO, "utf-8")
    described = {**DAWN, "tenants": {"dusk": DUSK}, **changed}
    file = folder / "bank.yaml"
    file.write_text(yaml.safe_dump(described, allow_unicode=True), "utf-8")
    return file


def of_the_sample_bank(text: str) -> list[str]:
    """Return the sample bank's names, numbers, colours and texts that occur in a text."""
    bank = sample_banks().first
    assert bank.logo_file is not None
    marks = ["한빛", "hanbit", bank.telephone, bank.telephone.replace("-", ""), bank.helplines.debt.ko]
    marks += [palette.brand for palette in (bank.colours.light, bank.colours.dark)]
    marks += [*bank.questions.ko, *bank.questions.en, bank.logo_file.content.decode()]
    return [mark for mark in marks if mark.lower() in text.lower()]
