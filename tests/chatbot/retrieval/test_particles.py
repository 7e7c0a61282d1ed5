"""Particles follow what is said before them, and no text has one behind a value that it cannot know."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatbot.retrieval.particles import with_particle

ROOT = Path(__file__).parents[3]
SERVICES = ("chatbot", "ingest", "knowledge", "edge", "telemetry", "llm_server")
# A value in a text, its closing quote, and a particle whose form depends on the sound of the value; (으)로 is no form.
VARYING = re.compile(
    r"\{[A-Za-z_][^{}\n]{0,60}\}[\"'’”」』)\]]?(?:은|는|이|가|을|를|과|와|으?로|\(으\)로|[은을]\([는를]\)|이\(가\))(?=[\s.,?!]|\Z)"
)


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("예금", "예금은 예금이 예금을 예금과 예금으로"),
        ("카드", "카드는 카드가 카드를 카드와 카드로"),
        ("서울", "서울은 서울이 서울을 서울과 서울로"),
        ("1599-0000", "1599-0000은 1599-0000이 1599-0000을 1599-0000과 1599-0000으로"),
        ("1588-5001", "1588-5001은 1588-5001이 1588-5001을 1588-5001과 1588-5001로"),
        ("2", "2는 2가 2를 2와 2로"),
        ("13", "13은 13이 13을 13과 13으로"),
        ("4", "4는 4가 4를 4와 4로"),
        ("5", "5는 5가 5를 5와 5로"),
        ("6", "6은 6이 6을 6과 6으로"),
        ("7", "7은 7이 7을 7과 7로"),
        ("8", "8은 8이 8을 8과 8로"),
        ("9", "9는 9가 9를 9와 9로"),
        ("3.1%", "3.1%는 3.1%가 3.1%를 3.1%와 3.1%로"),
        ("OTP", "OTP는 OTP가 OTP를 OTP와 OTP로"),
        ("ATM", "ATM은 ATM이 ATM을 ATM과 ATM으로"),
        ("URL", "URL은 URL이 URL을 URL과 URL로"),
        ("QR", "QR은 QR이 QR을 QR과 QR로"),
        ("IBAN", "IBAN은 IBAN이 IBAN을 IBAN과 IBAN으로"),
        ("Dollar", "Dollar는 Dollar가 Dollar를 Dollar와 Dollar로"),
        ("Saving", "Saving은 Saving이 Saving을 Saving과 Saving으로"),
        ("창구(10)", "창구(10)은 창구(10)이 창구(10)을 창구(10)과 창구(10)으로"),
        ("‘정기예금’", "‘정기예금’은 ‘정기예금’이 ‘정기예금’을 ‘정기예금’과 ‘정기예금’으로"),
        ("…", "…는 …가 …를 …와 …로"),
    ],
)  # fmt: skip
def test_a_particle_follows_the_last_sound(word: str, written: str) -> None:
    assert " ".join(with_particle(word, particle) for particle in ("은", "이", "을", "과", "으로")) == written
    assert " ".join(with_particle(word, particle) for particle in ("는", "가", "를", "와", "로")) == written


def test_a_particle_of_one_form_stays() -> None:
    assert [with_particle("예금", particle) for particle in ("도", "")] == ["예금도", "예금"]


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each file of the services that may hold a text with a value."""
    for path in sorted(path for service in SERVICES for path in (ROOT / service).rglob("*")):
        if path.suffix in {".js", ".md", ".yaml", ".html", ".txt", ".json", ".py"}:
            yield path.name, path.read_text("utf-8")


def test_no_text_puts_a_varying_particle_behind_a_value() -> None:
    of_files = list(texts())
    assert {"texts.js", "system.ko.md", "canned_replies.py"} <= {name for name, _ in of_files}
    assert [(name, match.group()) for name, text in of_files for match in VARYING.finditer(text)] == []
