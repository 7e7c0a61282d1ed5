"""The staff API over a test's services, with its worker, and a maker of tokens."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import anyio
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from starlette.datastructures import State

from evals.sample_bank import sample_banks
from ingest.app import create_app
from ingest.services import Services
from ingest.worker import Worker
from knowledge.identity import Authenticator, AuthSettings, KeyFile
from knowledge.service_keys import ServiceKeys
from tests.ingest.keys import ISSUER, key_and_token

Token = Callable[..., str]


@dataclass(frozen=True)
class Staff:
    """The API with its worker, and a maker of tokens."""

    http: AsyncClient
    token: Token

    def headers(self, sub: str = "kim", *roles: str, tenant: str = "hanbit") -> dict[str, str]:
        return {"authorization": f"Bearer {self.token(sub, *(roles or ('staff',)), tenant=tenant)}"}

    async def upload(self, data: bytes, **fields: str) -> Response:
        return await self.http.post(
            "/v1/documents", files={"file": ("안내.md", data)}, data=fields, headers=self.headers()
        )

    async def hand_in(self, data: bytes, **fields: str) -> str:
        """Upload and return the id of the job."""
        received = await self.upload(data, **fields)
        assert received.status_code == 202, received.text
        return str(received.json()["job_id"])

    async def index(self, data: bytes, **fields: str) -> None:
        """Upload and wait until the document is a draft."""
        assert await self.done(await self.hand_in(data, **fields)) == "done"

    async def done(self, job_id: str) -> str:
        with anyio.fail_after(30):
            while True:
                job = (await self.http.get(f"/v1/jobs/{job_id}", headers=self.headers())).json()
                if job["state"] in ("done", "failed"):
                    return str(job["state"])
                await anyio.sleep(0.03)


def with_tokens(services: Services, folder: Path, keys: ServiceKeys | None = None) -> tuple[Services, Token]:
    """Return the services with an authenticator, and a maker of the tokens that it accepts beside `keys`."""
    token, file = key_and_token(folder)
    settings = AuthSettings(issuer=ISSUER, public_key_file=file)
    of_key = keys.principal if keys is not None else None
    authenticator = Authenticator({ISSUER: KeyFile(file.read_bytes())}, settings, principal_of_key=of_key)
    return replace(services, authenticator=authenticator), token


_APPS: dict[int, FastAPI] = {}


def _app(services: Services) -> FastAPI:
    """Return the API over these services, with the routes of an earlier one: the first request builds them."""
    assert services.sign_in is None
    most_bytes = services.blobs.most_bytes
    if most_bytes not in _APPS:
        _APPS[most_bytes] = create_app(services, sample_banks())
    app = copy(_APPS[most_bytes])
    app.state = State({"services": services})
    return app


@asynccontextmanager
async def open_staff(
    services: Services, folder: Path, keys: ServiceKeys | None = None, *, works: bool = True
) -> AsyncGenerator[Staff]:
    """Open the API, with a worker; the keys that sign tokens lie in `folder`, `keys` are those of machines."""
    services, token = with_tokens(services, folder, keys)
    transport = ASGITransport(app=_app(services))
    async with AsyncClient(transport=transport, base_url="http://staff") as http, anyio.create_task_group() as group:
        if works:
            group.start_soon(Worker(services).run)
        yield Staff(http, token)
        group.cancel_scope.cancel()
