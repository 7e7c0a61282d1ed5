"""An upload goes to the store of originals through a file on disk: memory stays flat, and nothing is left."""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from httpx2 import ASGITransport, AsyncClient, Response

from evals.sample_bank import sample_banks
from ingest.app import create_app
from ingest.services import Services
from tests.ingest import samples
from tests.ingest.documents import stream
from tests.ingest.staff import with_tokens

MIB = 1024 * 1024
KIND = "multipart/form-data; boundary=xyz"
END = b"--xyz--\r\n"


def a_field(name: str, value: str) -> bytes:
    return f'--xyz\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def file_head(name: str = "안내.md", *, of: str = "file") -> bytes:
    return f'--xyz\r\nContent-Disposition: form-data; name="{of}"; filename="{name}"\r\n\r\n'.encode()


def a_file(data: bytes = b"# A", name: str = "안내.md", *, of: str = "file") -> bytes:
    return file_head(name, of=of) + data + b"\r\n"


BROKEN: list[tuple[list[bytes], int]] = [
    ([a_file(), a_field("effective_from", "soon"), END], 422),
    ([a_file(), a_field("document_id", "a/b"), END], 422),
    ([a_file(), a_field("readers", ""), END], 422),
    ([a_field("title", "x"), END], 422),
    ([a_field("file", "x"), END], 422),
    ([], 422),
    ([b"no form"], 400),
    ([a_file(), a_file(), END], 400),
    ([a_file(of="picture"), END], 422),
    ([a_file(), a_field("title", "x" * (16 * 1024 + 1)), END], 400),
    ([a_file(), *[a_field("readers", "x")] * 201, END], 400),
    ([b"--xyz\r\nContent-Type: text/plain\r\n\r\nx\r\n", END], 400),
]


@dataclass(frozen=True)
class Desk:
    """The staff API without a worker, and its store."""

    http: AsyncClient
    services: Services
    originals: Path

    async def send(self, body: AsyncIterator[bytes], *, kind: str = KIND) -> Response:
        return await self.http.post("/v1/documents", content=body, headers={"content-type": kind})

    def stored(self) -> list[str]:
        return [path.name for path in self.originals.rglob("*") if path.is_file()]


@pytest.fixture
async def desk(services: Services, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncGenerator[Desk]:
    services, token = with_tokens(services, tmp_path)
    services.blobs.most_bytes = getattr(request, "param", services.blobs.most_bytes)
    transport = ASGITransport(app=create_app(services, sample_banks()))
    headers = {"authorization": f"Bearer {token('kim', 'staff')}"}
    async with AsyncClient(transport=transport, base_url="http://staff", headers=headers) as http:
        yield Desk(http, services, tmp_path / "data" / "blobs")


def resident() -> int:
    """Return the process's resident memory in bytes."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.anyio
async def test_a_hundred_mebibytes_go_through_in_flat_memory(desk: Desk) -> None:
    piece, seen = os.urandom(MIB), list[int]()

    async def body() -> AsyncIterator[bytes]:
        yield file_head()
        for _ in range(100):
            seen.append(resident())
            yield piece
        yield b"\r\n" + END

    accepted = await desk.send(body())
    assert accepted.status_code == 202, accepted.text
    assert max(seen) - seen[1] < 16 * MIB
    (original,) = desk.stored()
    assert (desk.originals / original[:2] / original).stat().st_size == 100 * MIB


@pytest.mark.anyio
@pytest.mark.parametrize("desk", [MIB], indirect=True)
async def test_the_limit_holds_while_bytes_arrive_and_leaves_nothing(desk: Desk) -> None:
    sent = list[int]()

    async def endless() -> AsyncIterator[bytes]:
        yield file_head()
        while True:
            sent.append(64 * 1024)
            yield b"x" * 64 * 1024

    refused = await desk.send(endless())
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert sum(sent) <= 2 * MIB + 2 * 64 * 1024
    assert desk.stored() == []
    desk.services.blobs.most_bytes = 3
    assert (await desk.send(stream(a_file(b"abcd"), END))).status_code == 413
    assert desk.stored() == []
    assert (await desk.send(stream(a_file(b"abc"), END))).status_code == 202


@pytest.mark.anyio
async def test_a_length_that_is_too_large_is_refused_before_a_byte_is_read(desk: Desk) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        pytest.fail("it was read")
        yield b""

    declared = {"content-length": str(102 * MIB), "content-type": KIND}
    refused = await desk.http.post("/v1/documents", content=nothing(), headers=declared)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["x-content-type-options"] == "nosniff"


@pytest.mark.anyio
async def test_fields_count_before_and_after_the_file(desk: Desk) -> None:
    fields = [a_field("readers", "gold"), a_field("title", "안내"), a_field("product", "")]
    after = [a_field("readers", "vip"), a_field("document_id", "fees")]
    accepted = await desk.send(stream(*fields, a_file(samples.MARKDOWN.encode(), "C:\\x\\안내.md"), *after, END))
    assert accepted.status_code == 202, accepted.text
    (version,) = await desk.services.catalogue.versions("hanbit", "fees")
    assert (version.metadata.readers, version.metadata.title) == (("gold", "vip"), "안내")
    assert (version.metadata.product, version.file_name) == (None, "안내.md")


@pytest.mark.anyio
async def test_a_malformed_form_is_refused_and_leaves_nothing(desk: Desk) -> None:
    for body, status in BROKEN:
        refused = await desk.send(stream(*body))
        assert refused.status_code == status, (body, refused.text)
        assert refused.headers["content-type"] == "application/problem+json"
        assert desk.stored() == []
    kinds = {"application/json": 422, "multipart/form-data": 400, f"multipart/form-data; boundary={'x' * 999}": 400}
    for kind, status in kinds.items():
        assert (await desk.send(stream(a_file(), END), kind=kind)).status_code == status
