"""A service's page: its own files and those of `edge/web`, which the pages of both services share."""

import os
from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

_NO_CACHE = {"cache-control": "no-cache"}


class _FreshFiles(StaticFiles):
    """Files that a browser revalidates each time, so that it never mixes modules of two releases."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_NO_CACHE)
        return response


def serve_page(app: FastAPI, package: str) -> None:
    """Serve the folder `web` of `package` below `/web`, and its `index.html` at `/`."""
    web = str(files(package) / "web")
    app.mount("/web", _FreshFiles(directory=web, packages=[("edge", "web")]), name="web")

    @app.get("/", include_in_schema=False)
    async def page(_request: Request) -> Response:
        return FileResponse(f"{web}/index.html", headers=_NO_CACHE)
