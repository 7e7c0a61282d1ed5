"""Serves a service's page: its own files, the shared files in `edge/web`, and the bank's branding."""

import json
import os
from html import escape
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import Scope

from knowledge.bank import Bank, Banks

_NO_CACHE = {"cache-control": "no-cache"}


class _FreshFiles(StaticFiles):
    """Static files that a browser revalidates on each use, so that it never mixes modules of two releases."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers.update(_NO_CACHE)
        return response


def serve_page(app: FastAPI, package: str, banks: Banks, *, demo: bool = False, sign_in: bool = False) -> None:
    """Serve the folder `web` of `package` below `/web`, and its `index.html` at `/`, as the page of the host's bank.

    `{{demo}}` in the page becomes "offered" if the demo sign-in is available, and `{{sign_in}}` if the identity
    provider's is; otherwise they become empty.
    """
    web = Path(str(files(package) / "web"))
    neutral = Path(str(files("edge") / "web" / "icon.svg"))
    index = (web / "index.html").read_text("utf-8")

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return _no_cache_response(page_of(index, _bank(request), demo=demo, sign_in=sign_in), "text/html")

    @app.get("/web/bank.js", include_in_schema=False)
    async def script(request: Request) -> Response:
        return _no_cache_response(script_of(_bank(request)), "text/javascript")

    @app.get("/web/bank.css", include_in_schema=False)
    async def style(request: Request) -> Response:
        return _no_cache_response(style_of(_bank(request)), "text/css")

    @app.get("/web/logo", include_in_schema=False)
    async def logo(request: Request) -> Response:
        picture = _bank(request).logo_file
        if picture is None:
            return FileResponse(neutral, headers=_NO_CACHE)
        return _no_cache_response(picture.content, picture.media_type)

    def _bank(request: Request) -> Bank:
        return banks.of_host(request.headers.get("host", "").partition(":")[0])

    # Mounted after the routes, because it matches every other path below /web.
    app.mount("/web", _FreshFiles(directory=web, packages=[("edge", "web")]), name="web")


def _no_cache_response(content: str | bytes, media_type: str) -> Response:
    return Response(content, headers=_NO_CACHE, media_type=media_type)


def page_of(index: str, bank: Bank, *, demo: bool, sign_in: bool) -> str:
    """Fill in the page's placeholders: the bank's Korean name, its telephone number, and the ways to sign in."""
    bank_data = {"bank": bank.names.ko, "telephone": bank.telephone, "tel": dial_string(bank.telephone)}
    for name, value in {**bank_data, "demo": "offered" * demo, "sign_in": "offered" * sign_in}.items():
        index = index.replace(f"{{{{{name}}}}}", escape(value))
    return index


def dial_string(telephone: str) -> str:
    """Return a telephone number in the format of a `tel:` URL."""
    return "".join(character for character in telephone if character in "+0123456789")


def script_of(bank: Bank) -> str:
    """Return the module `bank.js`: the bank's data for the pages' scripts."""
    bank_data = bank.model_dump(mode="json", include={"names", "telephone", "opening", "questions", "helplines"})
    return f"export const BANK = {json.dumps(bank_data, ensure_ascii=False)};\n"


def style_of(bank: Bank) -> str:
    """Return `bank.css`: the brand's colours."""
    light, dark = bank.colours.light.css(), bank.colours.dark.css()
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
