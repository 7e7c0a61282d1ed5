"""`helm test`: the pod's own script, run against scripted replies of a chatbot and a staff API."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.charts.rendering import CHART, NAME, ROOT, environment, named, render
from tests.charts.replies import scripted_replies

READY = {"status": "ready", "index": "ok", "embedder": "ok", "sql": "ok", "redis": "ok", "models": "ok"}


def run_test_pod(state: Mapping[str, str], values: str = "values") -> subprocess.CompletedProcess[str]:
    """Run the script of the release's test pod; the chatbot replies to `/readyz` with `state`."""
    (script,) = named(render(values), "Pod", f"{NAME}-test")["spec"]["containers"][0]["args"]
    replies: dict[str, tuple[int, object]] = {
        "/readyz": (200, state), "/openapi.json": (200, {}), "/v1/chat": (401, {}), "/v1/documents": (401, {}),
    }  # fmt: skip
    with scripted_replies(replies) as url:
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
    with scripted_replies({"/v1/chat": (status, reply)}) as url:
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
        (200, {**ANSWER, "finish_reason": "refused"}, "not an answer from documents: refused"),
        (200, {**ANSWER, "citations": []}, "not an answer from documents: stop"),
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
