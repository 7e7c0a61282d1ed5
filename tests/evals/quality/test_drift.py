"""The weekly report: real metrics of the chatbot, from its own address and from a real Prometheus."""

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx2
import msgspec
import pytest
from prometheus_client import CollectorRegistry, Counter, MetricsHandler
from typer.testing import CliRunner

from chatbot.drift import BinCounter, Reference, build_reference
from chatbot.metrics import Metrics
from evals.__main__ import app
from tests.conftest import free_port
from tests.drift import ENDED, window

PROMETHEUS = shutil.which("prometheus")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    reference = build_reference(window(7, 2000), ENDED, embedder="e5", now=1_700_000_000.0)
    file = tmp_path_factory.mktemp("drift") / "reference.json"
    file.write_bytes(msgspec.json.encode(reference))
    return file, reference


@pytest.fixture
def metrics(reference: tuple[Path, Reference]) -> Metrics:
    """What a chatbot shows before its first question."""
    metrics = Metrics()
    metrics.drift_reference(reference[1])
    return metrics


@pytest.fixture
def served(metrics: Metrics) -> Iterator[str]:
    with serving(metrics.registry) as address:
        yield address


@contextmanager
def serving(registry: CollectorRegistry) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), MetricsHandler.factory(registry))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


def count_week(metrics: Metrics, reference: Reference) -> int:
    """Count a week in which customers ask three times as much in English; return the sum of all counts."""
    counts = BinCounter(reference).count(window(8, 1000, english=0.6))
    counts.update({("outcome", name): count for name, count in ENDED.items()})
    metrics.drift_counted(reference.id, counts)
    return counts.total()


def evals(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["drift", *arguments])
    return result.exit_code, result.output


def test_the_report_names_the_bins_that_moved(
    metrics: Metrics, served: str, reference: tuple[Path, Reference], tmp_path: Path
) -> None:
    file, window_then = reference
    count_week(metrics, window_then)
    status, printed = evals("--reference", str(file), "--against", served)
    assert status == 0, printed
    lines = [line for line in printed.splitlines() if line.startswith("| `")]
    assert lines[0].startswith("| `language` | 0.")
    assert "| DRIFTED | 1,000 | ko 8" in lines[0]
    assert all("| stable | 1,000 |" in line for line in lines[1:]), printed
    assert len(lines) == len(window_then.features)
    assert "(document 0)" in printed
    assert f"against the reference {window_then.id} of 2023-11-14 (2,000 questions)" in printed
    page = tmp_path / "drift.html"
    assert evals("--reference", str(file), "--against", served, "--output", str(page)) == (0, "")
    assert page.read_text("utf-8").count('class="bad"') == 1
    assert "<td>DRIFTED<td>1,000" in page.read_text("utf-8")


def test_a_page_that_comes_in_several_parts_is_read_to_its_end(
    metrics: Metrics, reference: tuple[Path, Reference]
) -> None:
    file, window_then = reference
    count_week(metrics, window_then)
    others_first = CollectorRegistry()
    before = Counter("others", "Takes half a megabyte", ["name"], registry=others_first)
    for n in range(20_000):
        before.labels(name=str(n))
    others_first.register(metrics.registry)
    with serving(others_first) as address:
        status, printed = evals("--reference", str(file), "--against", address)
    assert status == 0, printed
    assert "| DRIFTED | 1,000 | ko 8" in printed


def test_a_quiet_week_is_not_judged(metrics: Metrics, served: str, reference: tuple[Path, Reference]) -> None:
    file, window_then = reference
    metrics.drift_counted(window_then.id, BinCounter(window_then).count(window(8, 100)))
    status, printed = evals("--reference", str(file), "--against", served)
    assert status == 0
    assert "DRIFTED" not in printed
    assert printed.count("| too few questions |") == len(window_then.features)


@pytest.mark.parametrize("wrong", ["reference", "address", "others"])
def test_an_expected_error_is_one_sentence(
    wrong: str, served: str, reference: tuple[Path, Reference], tmp_path: Path
) -> None:
    file, window_then = reference
    against = served
    if wrong == "reference":
        file = tmp_path / "none.json"
    elif wrong == "address":
        against = f"http://127.0.0.1:{free_port()}"
    else:
        file = tmp_path / "other.json"
        file.write_bytes(msgspec.json.encode(msgspec.structs.replace(window_then, made_at=2.0)))
    status, printed = evals("--reference", str(file), "--against", against)
    assert status == 2
    expected = {"reference": "is no reference", "address": "does not answer", "others": "nobody has counted"}
    assert expected[wrong] in printed


@pytest.mark.services
@pytest.mark.skipif(PROMETHEUS is None, reason="needs prometheus: scripts/chart_parts brings it")
def test_a_real_prometheus_adds_up_the_same(
    metrics: Metrics, served: str, reference: tuple[Path, Reference], tmp_path: Path
) -> None:
    file, window_then = reference
    address = served.removeprefix("http://").removesuffix("/metrics")
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: chatbot, static_configs: [{{targets: ['{address}'], "
        "labels: {namespace: bank}}]}]\n",
        "utf-8",
    )
    url = f"http://127.0.0.1:{free_port()}"
    arguments = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
    listen = f"--web.listen-address={url.removeprefix('http://')}"
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(  # noqa: S603  our own arguments
            [str(PROMETHEUS), *arguments, listen], stdout=log, stderr=log
        ) as process,
    ):
        try:
            until_scraped(url, "count(chatbot_drift_questions_total)", process)
            total = count_week(metrics, window_then)
            until_scraped(url, f"sum(chatbot_drift_questions_total) == {total}", process)
            status, printed = evals("--reference", str(file), "--against", url, "--namespace", "bank", "--days", "0.01")
            other = evals("--reference", str(file), "--against", url, "--namespace", "other")
        finally:
            process.terminate()
            process.wait(20)
    assert status == 0, printed
    (line,) = [line for line in printed.splitlines() if "DRIFTED" in line or "`language`" in line]
    assert line.startswith("| `language` | 0."), printed
    assert other[0] == 2


def until_scraped(url: str, query: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until Prometheus finds something."""
    deadline = time.monotonic() + 60
    with httpx2.Client() as http:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if http.get(f"{url}/api/v1/query", params={"query": query}).json()["data"]["result"]:
                    return
            except (httpx2.TransportError, ValueError, KeyError):
                pass
            time.sleep(0.1)
    pytest.fail("Prometheus never found it")
