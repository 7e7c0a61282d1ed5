"""`helm test`: the pod's own script, run against scripted replies of a chatbot and a staff API."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.charts.rendering import NAME, named, render

READY = {"status": "ready", "index": "ok", "sql": "ok", "redis": "ok", "models": "ok"}


@contextmanager
def scripted_server(replies: Mapping[str, tuple[int, object]]) -> Iterator[str]:
    """Run a server that replies to each path with its (status, JSON body); yield its URL."""

    class ScriptedReplies(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = replies[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name in the base class
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), ScriptedReplies) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def run_test_pod(state: Mapping[str, str], values: str = "values") -> subprocess.CompletedProcess[str]:
    """Run the script of the release's test pod; the chatbot replies to `/readyz` with `state`."""
    (script,) = named(render(values), "Pod", f"{NAME}-test")["spec"]["containers"][0]["args"]
    replies: dict[str, tuple[int, object]] = {
        "/readyz": (200, state), "/openapi.json": (200, {}), "/v1/chat": (401, {}), "/v1/documents": (401, {}),
    }  # fmt: skip
    with scripted_server(replies) as url:
        for address in (f"http://{NAME}-chatbot:8000", f"http://{NAME}-ingest:8001"):
            assert address in script
            script = script.replace(address, url)
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603


def test_a_release_with_all_its_parts_passes() -> None:
    completed = run_test_pod(READY)
    assert completed.returncode == 0, completed.stdout + completed.stderr


@pytest.mark.parametrize("part", ["index", "sql", "redis", "models"])
def test_a_release_without_one_of_its_parts_fails_and_names_the_part(part: str) -> None:
    completed = run_test_pod({**READY, part: "unavailable"})
    assert completed.returncode == 1, completed.stdout + completed.stderr
    assert f"{part} unavailable" in completed.stdout


def test_a_pool_that_may_sleep_need_not_be_ready() -> None:
    assert run_test_pod({**READY, "models": "unavailable"}, "values-staging").returncode == 0
    assert run_test_pod({**READY, "redis": "unavailable"}, "values-staging").returncode == 1
