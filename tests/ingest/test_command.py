import json
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from tests.forked import Forked
from tests.ingest import samples
from tests.ingest.bank import Bank
from tests.ingest.commands import WAIT_SECONDS, command, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty documents and a manifest of ten of them, two of which are versions of one."""
    folder = tmp_path / "documents"
    folder.mkdir()
    entries = []
    for n in range(20):
        (folder / f"{n}.md").write_text(samples.MARKDOWN.replace("2.35", f"3.{n:02}"), "utf-8")
        entries.append(f"  - {{file: {n}.md, document_id: d{max(n, 1)}, effective_from: 20{n + 10}-01-01}}")
    (folder / "documents.yaml").write_text("documents:\n" + "\n".join(entries[:10]), "utf-8")
    return folder


def states(data: Path) -> dict[str, int]:
    with sqlite3.connect(data / "bank.db") as database:
        return dict(database.execute("SELECT state, count(*) FROM document_versions GROUP BY state"))


def wait_for(process: Forked, log: Path, line: str) -> None:
    """Wait until a running command has written a line."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not log.exists() or line not in log.read_text("utf-8"):
        assert process.poll() is None, f"it ended before it wrote {line}"
        assert time.monotonic() < deadline, f"it never wrote {line}"
        time.sleep(0.005)


def test_a_broken_file_is_named_with_its_reason_and_the_rest_goes_on(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    (folder / "good.md").write_text(samples.MARKDOWN, "utf-8")
    (folder / "locked.pdf").write_bytes(samples.pdf(password="1234"))
    (folder / "empty.txt").write_bytes(b"")
    code, output = run(weights, tmp_path / "data", "load", str(folder))
    assert code == 1
    assert "locked.pdf: encrypted" in output
    assert "empty.txt: empty_text" in output
    assert "waiting for approval: 1, on the staff page, or by the same command with --approved-by NAME" in output
    assert states(tmp_path / "data") == {"indexed": 1, "failed": 2}
    code, output = run(weights, tmp_path / "data", "status")
    assert code == 0
    assert "locked.pdf: encrypted" in output
    assert "jobs: 1 done, 2 failed; the oldest that waits is 0 s old" in output
    code, output = run(weights, tmp_path / "data", "status", "--json")
    assert (code, json.loads(output)["jobs"]) == (0, {"done": 1, "failed": 2})
    code, output = run(weights, tmp_path / "data", "jobs")
    assert (code, output.count("\n"), "locked.pdf  failed at parse" in output) == (0, 2, True)
    code, output = run(weights, tmp_path / "data", "jobs", "--json")
    assert {found["version"]["reason"] for found in json.loads(output)} == {"encrypted", "empty_text"}
    with sqlite3.connect(tmp_path / "data" / "bank.db") as database:
        database.execute("UPDATE ingest_jobs SET state = 'dead' WHERE state = 'failed'")
    code, output = run(weights, tmp_path / "data", "retry")
    assert (code, output.count("queued")) == (0, 2)


def test_an_interrupted_load_continues_where_it_stopped(weights: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "documents.yaml").unlink()
    data, log = tmp_path / "data", tmp_path / "log"
    process = command(weights, data, log, "load", str(folder))
    wait_for(process, log, "[3/20]")
    process.send_signal(signal.SIGINT)
    status, output = process.wait(WAIT_SECONDS), log.read_text("utf-8")
    assert status == 130, output
    assert "continues where it stopped" in output
    before = states(data).get("indexed", 0)
    assert 3 <= before < 20
    code, output = run(weights, data, "load", str(folder))
    assert code == 0, output
    assert output.count("already loaded") >= before
    assert states(data) == {"indexed": 20}


def test_a_load_beside_a_process_that_holds_the_index_names_the_option_for_its_api(
    weights: Path, folder: Path, tmp_path: Path
) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    (folder / "documents.yaml").unlink()
    first = command(weights, data, log, "load", str(folder))
    wait_for(first, log, "[1/20]")
    first.send_signal(signal.SIGSTOP)
    try:
        code, output = run(weights, data, "load", str(folder))
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait(WAIT_SECONDS)
    assert code == 1
    assert "--url http://127.0.0.1:8001" in output
    assert output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["load", "nowhere"], "no such file or folder"),
        (["load", ".", "--uploaded-by", "lee", "--approved-by", "Lee"], "somebody else has to approve"),
        (["load", ".", "--url", "http://127.0.0.1:9"], "--url needs --token"),
        (["serve"], "set AUTH__ISSUER"),
    ],
)
def test_a_wrong_command_ends_with_one_sentence(
    weights: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, output = run(weights, tmp_path / "data", *arguments)
    assert code == 2
    assert sentence in output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", ["jobs", "rebuild"])
def test_a_command_in_another_folder_names_the_missing_database_and_creates_none(
    weights: Path, tmp_path: Path, name: str
) -> None:
    code, output = run(weights, tmp_path / "data", name)
    advice = "set DATA_DIR or DATABASE_URL, or run this in its folder"
    assert (code, output) == (1, f"ingest: the database {tmp_path}/data/bank.db does not exist: {advice}\n")
    assert not (tmp_path / "data").exists()


def test_load_goes_through_the_api_of_a_running_process(
    weights: Path, folder: Path, tmp_path: Path, bank: Bank
) -> None:
    through = ["--url", bank.url, "--token", bank.token("kim", "staff")]
    approver = ["--approved-by", "lee", "--approver-token", bank.token("lee", "approver")]
    code, output = run(weights, tmp_path / "elsewhere", "load", str(folder), *through, *approver)
    assert code == 0, output
    assert "[10/10]" in output
    assert "active" in output
    code, output = run(weights, tmp_path / "elsewhere", "load", str(folder), *through, *approver)
    assert (code, output.count("already loaded")) == (0, 10), output
    korean = tmp_path / '예금 "약관".md'
    for rate, result in (("4.00", "new document"), ("4.01", "version 2")):
        korean.write_text(samples.MARKDOWN.replace("2.35", rate), "utf-8")
        code, output = run(weights, tmp_path / "elsewhere", "load", str(korean), *through)
        assert (code, result in output) == (0, True), output
    assert bank.stop(signal.SIGTERM) == 0
    assert states(bank.data) == {"approved": 10, "indexed": 2}
    with sqlite3.connect(bank.data / "bank.db") as database:
        sent = database.execute("SELECT DISTINCT file_name FROM document_versions WHERE state = 'indexed'").fetchall()
    assert sent == [(korean.name,)]
