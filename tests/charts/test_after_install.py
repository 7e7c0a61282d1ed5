"""`helm test`: the pod's own script, run against scripted replies of a chatbot and a staff API."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.charts.rendering import CHART, NAME, ROOT, environment, named, render

READY = {"status": "ready", "index": "ok", "embedder": "ok", "sql": "ok", "redis": "ok", "models": "ok"}


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
        thread = Thread(target=server.serve_forever, args=(0.01,))
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


@pytest.mark.parametrize("part", ["index", "embedder", "sql", "redis", "models"])
def test_a_release_without_one_of_its_parts_fails_and_names_the_part(part: str) -> None:
    completed = run_test_pod({**READY, part: "unavailable"})
    assert completed.returncode == 1, completed.stdout + completed.stderr
    assert f"{part} unavailable" in completed.stdout


def test_a_pool_that_may_sleep_need_not_be_ready() -> None:
    assert run_test_pod({**READY, "models": "unavailable"}, "values-staging").returncode == 0
    assert run_test_pod({**READY, "redis": "unavailable"}, "values-staging").returncode == 1


ANSWER = {
    "text": "기본이율의 50%가 적용됩니다.",
    "finish_reason": "stop",
    "grounded": True,
    "citations": [{"n": 1, "document_id": "deposits-ko", "version": 2, "quote": "중도해지하면 기본이율의 50%"}],
}
QUESTION = ("--set", "test.question.text=중도해지 이율은?", "--set", "test.question.tokenSecret=customer")


def run_question(status: int, reply: object) -> subprocess.CompletedProcess[str]:
    """Run the question's container against a chatbot that replies so."""
    _, container = named(render("values", *QUESTION), "Pod", f"{NAME}-test")["spec"]["containers"]
    with scripted_server({"/v1/chat": (status, reply)}) as url:
        variables = {**environment(container), "URL": url, "TOKEN": "a-token\n", "PATH": os.environ["PATH"]}  # noqa: TID251
        command = [sys.executable, *container["command"][1:], *container["args"]]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=30)  # noqa: S603


def test_a_question_is_answered_with_a_cited_document() -> None:
    completed = run_question(200, ANSWER)
    assert completed.returncode == 0, completed.stderr
    assert "중도해지 이율은?" in completed.stdout
    assert "[1] deposits-ko, version 2: 중도해지하면 기본이율의 50%" in completed.stdout


@pytest.mark.parametrize(
    ("status", "reply", "reason"),
    [
        (200, {**ANSWER, "grounded": False}, "not a grounded answer: stop"),
        (200, {**ANSWER, "citations": []}, "not a grounded answer: stop"),
        (503, {"code": "model_unavailable"}, "refused with 503"),
        (401, {"code": "unauthenticated"}, "refused with 401"),
    ],
)
def test_a_question_without_a_cited_answer_fails_the_release(status: int, reply: object, reason: str) -> None:
    completed = run_question(status, reply)
    assert completed.returncode == 1
    assert reason in completed.stderr


def test_the_question_reads_fields_that_an_answer_has() -> None:
    contract = json.loads((ROOT / "tests/golden/openapi.chatbot.json").read_text("utf-8"))
    replies = contract["paths"]["/v1/chat"]["post"]["responses"]["200"]["content"]
    answer = replies["application/json"]["schema"]["properties"]
    script = (CHART / "files/ask.py").read_text("utf-8")
    assert set(re.findall(r"answer\[.(\w+).\]", script)) <= set(answer)
    assert set(re.findall(r"citation\[.(\w+).\]", script)) <= set(answer["citations"]["items"]["properties"])


def test_no_question_is_asked_unless_one_is_named() -> None:
    assert len(named(render(), "Pod", f"{NAME}-test")["spec"]["containers"]) == 1
