"""The wording check reads what a person reads, and nothing else."""

from pathlib import Path

import pytest

from scripts import prose

MODULE = '''
"""A value that is none."""
log.warning("worker_is_told")
log.warning("ok", note=f"anew")
name = "whoever"


def read():
    raise ValueError(f"a usage {name} is no JSON")
'''
PAGE = """
Meanwhile it waits.

```sh
echo meanwhile
```

`anew` and "for good" are what not to write.
"""


def found(name: str, text: str) -> list[str]:
    return [line.partition(": write")[0] for line in prose.findings(name, text)]


def test_docstrings_log_events_and_error_texts_are_read(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE, "utf-8")
    assert found("m", prose.prose_of(tmp_path / "module.py")) == [
        "m:2: 'is none'",
        "m:3: 'is told'",
        "m:9: 'is no JSON'",
    ]


def test_a_page_is_read_without_its_code_and_quotes(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE, "utf-8")
    assert found("p", prose.prose_of(tmp_path / "page.md")) == ["p:2: 'Meanwhile'"]


@pytest.mark.parametrize(
    ("subject", "wrong"),
    [
        ("streams, turns: name things by the field's terms", ""),
        ("Embed two long passages at a time", ""),
        ('Revert "requirements: drop tiktoken"', ""),
        ("grounding: an amount keeps its name", "begins without an imperative (after `component: `)"),
        ("fixed the tests", "begins without an imperative (after `component: `)"),
        ("docs: cut it.", "ends with a period"),
        (f"docs: cut {'x' * 62}", ""),
        (f"docs: cut {'x' * 63}", "longer than 72 characters"),
    ],
)
def test_a_commit_s_subject_is_short_and_imperative(subject: str, wrong: str) -> None:
    assert prose.wrong_subject(subject) == wrong


def test_every_module_that_waits_for_its_wording_exists_and_has_findings() -> None:
    for entry in prose.RULES["later"]:
        path = prose.ROOT / entry
        files = path.rglob("*.py") if path.is_dir() else [path]
        assert any(list(prose.findings(file.name, prose.prose_of(file))) for file in files), f"remove {entry}"
