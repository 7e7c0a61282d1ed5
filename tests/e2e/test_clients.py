"""The clients of docs/clients against the product: they ask, and resume after a disconnect."""

import json
import shutil
import sys
from pathlib import Path

import anyio
import pytest

from tests.e2e.browser import ANSWER, QUESTION, SLOWLY
from tests.e2e.conftest import Product, new_customer
from tests.e2e.relay import wired

pytestmark = [pytest.mark.anyio, pytest.mark.services]

FOLDER = Path(__file__).parents[2] / "docs" / "clients"
NODE = shutil.which("node")
PROGRAMS = {"client.py": sys.executable, "client.mjs": NODE}
MOST_LINES = 40


def client(name: str) -> list[str]:
    """Return the command that runs a client."""
    program, path = PROGRAMS[name], FOLDER / name
    if program is None:
        pytest.skip("node is not installed")
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES
    return [program, str(path)]


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_documented_client_shows_an_answer_across_a_broken_connection(name: str, product: Product) -> None:
    command, customer = client(name), new_customer()
    await product.tell(answer=ANSWER, probe=0.99, token_seconds=SLOWLY)
    async with product.client(customer) as http, wired(product.url) as wire:
        async with await anyio.open_process([*command, wire.url, product.token(customer), QUESTION]) as program:
            assert program.stdout is not None
            shown = await program.stdout.receive()
            wire.lead_to(product.url)
            async for piece in program.stdout:
                shown += piece
        await product.restore()
        answer, end = shown.decode().rstrip().rsplit("\n", 1)
        conversation = (await http.get("/v1/conversations")).json()["items"][0]["id"]
        messages = (await http.get(f"/v1/conversations/{conversation}")).json()["messages"]
    assert program.returncode == 0
    assert answer.strip() == messages[-1]["text"].strip()
    assert json.loads(end) == {"end": "stop", "sources": messages[-1]["sources"]}


@pytest.mark.parametrize("name", PROGRAMS)
async def test_a_documented_client_prints_the_reason_of_a_refusal(name: str, product: Product) -> None:
    command = client(name)
    refused = await anyio.run_process([*command, product.url, "no-token", QUESTION], check=False)
    assert refused.returncode != 0
    assert b"token" in refused.stderr
