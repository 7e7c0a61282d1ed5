"""The clients of docs/api.md, as they stand there, against the product: they ask, and read on after a cut."""

import json
import re
import shutil
import sys
from pathlib import Path

import anyio
import pytest

from tests.e2e.browser import ANSWER, QUESTION, SLOWLY
from tests.e2e.conftest import Product, new_customer
from tests.e2e.relay import wired

pytestmark = [pytest.mark.anyio, pytest.mark.services]

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
NODE = shutil.which("node")
PROGRAMS = {
    "python": ("client.py", sys.executable),
    "javascript": ("client.mjs", NODE),
}
MOST_LINES = 40


def client(language: str, folder: Path) -> list[str]:
    """Write a client of the page into a folder; return the command that runs it."""
    name, program = PROGRAMS[language]
    if program is None:
        pytest.skip("node is not installed")
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert found is not None
    assert len(found[1].splitlines()) <= MOST_LINES
    (folder / name).write_text(found[1], "utf-8")
    return [program, str(folder / name)]


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_client_of_the_page_shows_an_answer_with_its_sources_through_a_cut(
    language: str, product: Product, tmp_path: Path
) -> None:
    command, customer = client(language, tmp_path), new_customer()
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


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_client_of_the_page_says_why_it_was_refused(language: str, product: Product, tmp_path: Path) -> None:
    command = client(language, tmp_path)
    refused = await anyio.run_process([*command, product.url, "no-token", QUESTION], check=False)
    assert refused.returncode != 0
    assert b"token" in refused.stderr
