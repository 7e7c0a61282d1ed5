"""`ingest batch` on a Ray of its own: the same points as `ingest load`, nothing done twice, nothing left behind."""

import json
import sqlite3
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from tests.ingest import samples, samples_office
from tests.ingest.commands import run as run_command
from tests.ingest.points import points_in
from tests.s3 import served_s3

pytestmark = [pytest.mark.services]

WITHIN_SECONDS = 900.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents in four formats, two versions of one of them, one that cannot be read and one without text."""
    folder = tmp_path_factory.mktemp("documents")
    for n in range(2):
        (folder / f"{n}.md").write_text(samples.MARKDOWN.replace("2.35", f"3.{n:02}"), "utf-8")
    (folder / "long.txt").write_text(
        "\n\n".join(f"제{n}조 수수료는 {n}원입니다. " + "가나다 " * 60 for n in range(30)), "utf-8"
    )
    (folder / "sheet.pdf").write_bytes(samples.pdf())
    (folder / "rates.xlsx").write_bytes(samples_office.xlsx())
    (folder / "locked.pdf").write_bytes(samples.pdf(password="1234"))
    (folder / "empty.txt").write_bytes(b"")
    entries = "".join(
        f"  - {{file: {name}, document_id: {document_id}, readers: [customers]}}\n"
        for name, document_id in (
            ("./0.md", "notice"), ("1.md", "notice"), ("long.txt", "long"), ("sheet.pdf", "sheet"),
            ("rates.xlsx", "rates"), ("locked.pdf", "locked"), ("empty.txt", "empty"),
        )
    )  # fmt: skip
    (folder / "documents.yaml").write_text("documents:\n" + entries, "utf-8")
    return folder


@pytest.fixture(scope="module")
def bucket(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The same folder in an S3-compatible store, and the variables that name it."""
    with served_s3() as variables:
        key, secret = variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]
        s3 = S3FileSystem(endpoint_url=variables["AWS_ENDPOINT_URL"], key=key, secret=secret, skip_instance_cache=True)
        s3.mkdir("bank")
        for file in folder.iterdir():
            s3.put_file(str(file), f"bank/notices/{file.name}")
        yield "s3://bank/notices", variables


run = partial(run_command, within_seconds=WITHIN_SECONDS)


def processes_of_ray() -> set[str]:
    """Return the processes of any Ray on this machine."""
    running = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:  # it has just ended
            continue
        if b"raylet" in command or b"gcs_server" in command or command.startswith(b"ray::"):
            running.add(entry.parent.name)
    return running


@pytest.mark.timeout(3000)  # Ray's processes import torch, each anew
def test_a_batch_makes_the_same_points_as_a_load_and_a_second_run_skips_what_is_done(
    weights: Path, folder: Path, tmp_path: Path, bucket: tuple[str, dict[str, str]]
) -> None:
    plain, spread, before = tmp_path / "plain", tmp_path / "spread", processes_of_ray()
    people = ("--uploaded-by", "kim", "--approved-by", "lee")
    place, variables = bucket
    assert run(weights, plain, "load", str(folder), *people)[0] == 1
    status, output = run(weights, spread, "batch", place, *people, "--object-store-mib", "80", variables=variables)
    assert status == 1, output
    assert "locked.pdf: encrypted" in output
    assert "empty.txt: empty_text" in output
    assert "active" in output
    assert "expired" in output
    assert points_in(spread) == points_in(plain)
    assert len(points_in(plain)) > 30
    assert left_out_in(spread) == left_out_in(plain)
    assert left_out_in(plain)["rates.xlsx"] == {"hidden_row": 1, "hidden_column": 1, "hidden_sheet": 1}
    with sqlite3.connect(spread / "bank.db") as database:
        left = database.execute("SELECT count(*) FROM ingest_jobs WHERE state NOT IN ('done', 'failed')").fetchone()
    assert left == (0,)
    status, output = run(weights, spread, "load", str(folder), *people)
    assert output.count("already loaded") == 5, output
    deadline = time.monotonic() + WITHIN_SECONDS
    while not processes_of_ray() <= before:
        assert time.monotonic() < deadline, "a process of Ray is left"
        time.sleep(0.01)


def left_out_in(data: Path) -> dict[str, dict[str, int]]:
    with sqlite3.connect(data / "bank.db") as database:
        rows = database.execute("SELECT file_name, left_out FROM document_versions WHERE left_out IS NOT NULL")
        return {file: json.loads(left_out) for file, left_out in rows}
