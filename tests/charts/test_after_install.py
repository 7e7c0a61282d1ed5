"""`helm test`: the pod's own script, run against a chatbot and a staff API that say what they are told to say."""

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
def answering(replies: Mapping[str, tuple[int, object]]) -> Iterator[str]:
    """Give the address of a server that answers each path as told."""

    class Told(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = replies[self.path]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name of the one it overrides
            """Keep silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked(state: Mapping[str, str], values: str = "values") -> subprocess.CompletedProcess[str]:
    """Run the script of the test's pod where the chatbot is ready and says `state` of its parts."""
    (script,) = named(render(values), "Pod", f"{NAME}-test")["spec"]["containers"][0]["args"]
    replies: dict[str, tuple[int, object]] = {
        "/readyz": (200, state), "/openapi.json": (200, {}), "/v1/chat": (401, {}), "/v1/documents": (401, {}),
    }  # fmt: skip
    with answering(replies) as url:
        for address in (f"http://{NAME}-chatbot:8000", f"http://{NAME}-ingest:8001"):
            assert address in script
            script = script.replace(address, url)
        command = [sys.executable, "-c", script]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603


def test_a_release_with_all_its_parts_passes() -> None:
    done = asked(READY)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("part", ["index", "sql", "redis", "models"])
def test_a_release_without_one_of_its_parts_fails_and_says_which(part: str) -> None:
    done = asked({**READY, part: "unavailable"})
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{part} unavailable" in done.stdout


def test_a_pool_that_may_sleep_is_not_missed() -> None:
    assert asked({**READY, "models": "unavailable"}, "values-staging").returncode == 0
    assert asked({**READY, "redis": "unavailable"}, "values-staging").returncode == 1
