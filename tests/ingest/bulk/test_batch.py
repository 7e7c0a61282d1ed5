"""`ingest batch` on a Ray of its own: the same points as `ingest load`, nothing done twice, nothing left behind."""

import json
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from tests.ingest import samples, samples_office
from tests.ingest.commands import command
from tests.ingest.commands import run as run_command
from tests.ingest.points import points_in
from tests.s3 import served_s3

pytestmark = [pytest.mark.services]

WITHIN_SECONDS = 900.0
MANY = 40


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
    assert output.count("was there") == 5, output
    until(lambda: processes_of_ray() <= before, "a process of Ray is left")


def left_out_in(data: Path) -> dict[str, dict[str, int]]:
    with sqlite3.connect(data / "bank.db") as database:
        rows = database.execute("SELECT file_name, left_out FROM document_versions WHERE left_out IS NOT NULL")
        return {file: json.loads(left_out) for file, left_out in rows}


def jobs_done(data: Path) -> set[tuple[object, ...]]:
    """Return the jobs that are done, with when and at which attempt; none while the database is not there."""
    try:
        with closing(sqlite3.connect(f"file:{data / 'bank.db'}?mode=ro", uri=True, timeout=10)) as database:
            done = "SELECT id, attempts, updated_at FROM ingest_jobs WHERE state = 'done'"
            return set(database.execute(done).fetchall())
    except sqlite3.OperationalError:
        return set()


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


@pytest.mark.long
@pytest.mark.timeout(3000)  # Ray starts twice
def test_a_killed_batch_that_is_started_again_does_what_is_left_and_makes_the_same_points(
    weights: Path, tmp_path: Path
) -> None:
    folder, plain, spread, before = tmp_path / "many", tmp_path / "plain", tmp_path / "spread", processes_of_ray()
    folder.mkdir()
    for n in range(MANY):
        (folder / f"{n:02}.md").write_text(samples.MARKDOWN.replace("2.35", f"3.{n:02}"), "utf-8")
    people, one_by_one = ("--uploaded-by", "kim", "--approved-by", "lee"), {"PIPELINE__AT_ONCE": "1"}
    assert run(weights, plain, "load", str(folder), *people)[0] == 0
    arguments = ["batch", str(folder), *people, "--object-store-mib", "80"]
    killed = command(weights, spread, tmp_path / "log", *arguments, variables=one_by_one)
    until(lambda: bool(jobs_done(spread)) or killed.poll() is not None, "no document is ever done")
    assert killed.poll() is None, (tmp_path / "log").read_text("utf-8")
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    done = jobs_done(spread)
    assert 0 < len(done) < MANY, "the kill met a batch that was over"
    until(lambda: processes_of_ray() <= before, "Ray outlives the batch that started it")
    status, output = run(weights, spread, *arguments)
    assert status == 0, output
    # One more where the kill came between the draft and the end of its job.
    assert output.count("was there") - len(done) in {0, 1}, output
    again = jobs_done(spread)
    assert done <= again, "what was done is done again"
    assert len(again) == MANY
    assert points_in(spread) == points_in(plain)


def test_help_teaches(weights: Path, tmp_path: Path) -> None:
    status, output = run(weights, tmp_path, "batch", "--help")
    assert status == 0
    for hint in ("s3://", "--approved-by", "--address", "skipped", "BLOB_URL", "requirements/batch.lock"):
        assert hint in output


def test_the_approver_is_never_the_uploader(weights: Path, tmp_path: Path) -> None:
    status, output = run(weights, tmp_path, "batch", "x", "--uploaded-by", "kim", "--approved-by", "Kim")
    assert (status, "somebody else" in output) == (2, True)


def test_a_place_that_is_not_there_is_one_sentence(weights: Path, tmp_path: Path) -> None:
    status, output = run(weights, tmp_path / "data", "batch", str(tmp_path / "nowhere"))
    assert status == 2
    assert "there is no such file or folder" in output


def test_a_ray_that_does_not_start_is_one_sentence(weights: Path, folder: Path, tmp_path: Path) -> None:
    more_than_there_is = str(1024**3)
    status, output = run(weights, tmp_path / "data", "batch", str(folder), "--object-store-mib", more_than_there_is)
    assert status == 1
    assert "ingest: Ray does not start: " in output
    assert "Traceback" not in output
