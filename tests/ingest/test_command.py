import json
import re
import signal
import sqlite3
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from evals.sample_bank import SAMPLE_BANK
from tests.conftest import free_port
from tests.forked import Forked
from tests.ingest import samples
from tests.ingest.commands import WAIT_SECONDS, command, run
from tests.ingest.keys import ISSUER, key_and_token


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty documents and a manifest that knows two of them as versions of one."""
    folder = tmp_path / "documents"
    folder.mkdir()
    entries = []
    for n in range(40):
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
    assert "decisions have not reached" not in output
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


def test_status_counts_what_is_where_and_says_how_far_work_is_behind(weights: Path, tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "some"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.md").write_text(samples.MARKDOWN + str(n), "utf-8")
    assert run(weights, data, "load", str(folder), "--approved-by", "lee")[0] == 0
    with sqlite3.connect(data / "bank.db") as database:
        passages = database.execute("SELECT sum(passages) FROM document_versions").fetchone()[0]
        waiting = "UPDATE ingest_jobs SET state = ?, created_at = ? WHERE document_id = ?"
        names = [row[0] for row in database.execute("SELECT document_id FROM document_versions ORDER BY 1")]
        for name, state, ago in zip(names[:2], ("queued", "running"), (3600, 60), strict=True):
            database.execute(waiting, (state, time.time() - ago, name))
        database.execute("UPDATE document_versions SET visible_from = visible_from - 60")
        database.execute("UPDATE document_versions SET window_written = 0 WHERE document_id = ?", names[:1])
    code, output = run(weights, data, "status")
    assert code == 0, output
    assert ["active", "3", str(passages)] in [line.replace("│", " ").split() for line in output.splitlines()]
    lag = re.search(r"jobs: 1 queued, 1 running, 1 done; the oldest that waits is (\d+) s old", output)
    assert lag is not None, output
    assert 3600 <= int(lag[1]) <= 3600 + WAIT_SECONDS
    assert "1 decisions have not reached the index yet" in output


def test_an_interrupted_load_goes_on_where_it_stopped(weights: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "documents.yaml").unlink()
    data, log = tmp_path / "data", tmp_path / "log"
    process = command(weights, data, log, "load", str(folder))
    wait_for(process, log, "[3/40]")
    process.send_signal(signal.SIGINT)
    status, output = process.wait(WAIT_SECONDS), log.read_text("utf-8")
    assert status == 130, output
    assert "continues where it stopped" in output
    before = states(data).get("indexed", 0)
    assert 3 <= before < 40
    code, output = run(weights, data, "load", str(folder))
    assert code == 0, output
    assert output.count("already loaded") >= before
    assert states(data) == {"indexed": 40}
    code, output = run(weights, data, "rebuild")
    assert code == 0, output
    assert "0 of 40 versions written again" in output


def test_while_a_process_holds_the_index_the_command_says_how_to_load_through_it(
    weights: Path, folder: Path, tmp_path: Path
) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    (folder / "documents.yaml").unlink()
    first = command(weights, data, log, "load", str(folder))
    wait_for(first, log, "[1/40]")
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
    where = "run this command in the folder that has it, or set DATA_DIR or DATABASE_URL"
    assert (code, output) == (1, f"ingest: there is no database {tmp_path}/data/bank.db: {where}\n")
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_not_a_database_is_one_sentence(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "bank.db").write_bytes(b"not a database" * 100)
    code, output = run(weights, tmp_path, "status")
    assert code == 1
    assert f"{tmp_path}/bank.db cannot be migrated ((sqlite3.DatabaseError) file is not a database): check" in output
    assert "Traceback" not in output


def test_a_database_that_cannot_be_read_is_one_sentence(weights: Path, tmp_path: Path) -> None:
    assert run(weights, tmp_path, "migrate")[0] == 0
    with sqlite3.connect(tmp_path / "bank.db") as database:
        database.execute("DROP TABLE document_versions")
    code, output = run(weights, tmp_path, "rebuild")
    assert (code, output) == (1, "ingest: The catalogue cannot be reached right now\n")


def test_an_address_that_is_none_is_one_sentence(weights: Path, folder: Path, tmp_path: Path) -> None:
    code, output = run(weights, tmp_path, "load", str(folder), "--url", "127.0.0.1:8001", "--token", "x")
    assert code == 1
    assert "--url is not the address of an API" in output
    assert "Traceback" not in output


def test_load_goes_through_the_api_of_a_running_process(weights: Path, folder: Path, tmp_path: Path) -> None:
    tokens, public = key_and_token(tmp_path)
    port = str(free_port())
    auth = {
        "AUTH__ISSUER": ISSUER,
        "AUTH__PUBLIC_KEY_FILE": str(public),
        "INGEST_PORT": port,
        "BANK_FILE": str(SAMPLE_BANK),
    }
    server = command(weights, tmp_path / "data", tmp_path / "log", "serve", variables=auth)
    try:
        wait_for_port(int(port))
        through = ["--url", f"http://127.0.0.1:{port}", "--token", tokens("kim", "staff")]
        approver = ["--approved-by", "lee", "--approver-token", tokens("lee", "approver")]
        code, output = run(weights, tmp_path / "elsewhere", "load", str(folder), *through, *approver)
        assert code == 0, output
        assert "[10/10]" in output
        assert "active" in output
        code, output = run(weights, tmp_path / "elsewhere", "load", str(folder), *through, *approver)
        assert (code, output.count("already loaded")) == (0, 10), output
        (korean := tmp_path / '예금 "약관".md').write_text(samples.MARKDOWN.replace("2.35", "4.00"), "utf-8")
        code, output = run(weights, tmp_path / "elsewhere", "load", str(korean), *through)
        assert (code, "new document" in output) == (0, True), output
        korean.write_text(samples.MARKDOWN.replace("2.35", "4.01"), "utf-8")
        code, output = run(weights, tmp_path / "elsewhere", "load", str(korean), *through)
        assert (code, "version 2" in output) == (0, True), output
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(WAIT_SECONDS)
    assert server.returncode == 0
    assert states(tmp_path / "data") == {"approved": 10, "indexed": 2}
    with sqlite3.connect(tmp_path / "data" / "bank.db") as database:
        sent = database.execute("SELECT DISTINCT file_name FROM document_versions WHERE state = 'indexed'").fetchall()
    assert sent == [(korean.name,)]


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the server did not answer")
