"""A model hub on loopback with one model: the API that huggingface_hub (HF_ENDPOINT) calls."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.tiny_embedder import copy_unconverted

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A hub with one model: its listing with digests, and its files behind a redirect, like the real one."""

    folder: Path
    url: str = ""
    sent: list[str] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    spoilt: str = ""

    def tree(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "1_Pooling", "oid": "x", "size": 0}]
        for path in sorted(self.folder.rglob("*.*")):
            data, name = path.read_bytes(), str(path.relative_to(self.folder))
            sha1 = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": sha1}
            if path.suffix == ".safetensors":
                entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            entries.append(entry)
        unwanted = ("pytorch_model.bin", "onnx/model.json", "README.md")
        return entries + [{"type": "file", "path": path, "size": 1, "oid": "none"} for path in unwanted]

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.keys.add(request.headers.get("authorization"))
        if path == f"/api/models/bank/tiny/tree/{REVISION}":
            return web.json_response(self.tree())
        if path == f"/api/models/bank/tiny/revision/{REVISION}":  # huggingface_hub asks this first
            return web.json_response({"id": "bank/tiny", "modelId": "bank/tiny", "sha": REVISION, "siblings": []})
        if request.method == "HEAD":
            return self._head(path.removeprefix(f"/bank/tiny/resolve/{REVISION}/"))
        name = path.removeprefix(f"/bank/tiny/resolve/{REVISION}/").removeprefix("/cdn/")
        if not path.startswith("/cdn/"):
            raise web.HTTPFound(f"/cdn/{name}")
        self.sent.append(name)
        file = self.folder / name
        data = file.read_bytes() if file.exists() else b"?"
        return web.Response(body=data[:-1] + b"?" if name == self.spoilt else data)

    def _head(self, name: str) -> web.Response:
        """Return the headers that huggingface_hub reads before a download: the commit, the digest and the size."""
        entry = next(entry for entry in self.tree() if entry["path"] == name)
        digest = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"X-Repo-Commit": REVISION, "ETag": f'"{digest}"', "X-Linked-Etag": f'"{digest}"'}
        return web.Response(
            headers={**headers, "X-Linked-Size": str(entry["size"]), "Content-Length": str(entry["size"])}
        )


@asynccontextmanager
async def serving_hub(folder: Path, model: Path) -> AsyncGenerator[Hub]:
    """Serve a hub with a copy of a model."""
    copy_unconverted(model, folder / "tiny")
    hub = Hub(folder / "tiny")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hub.answer)
    async with TestServer(app) as server:
        hub.url = str(server.make_url("/")).rstrip("/")
        yield hub
