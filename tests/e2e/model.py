"""Control of the scripted model server: its behaviour and the requests that it got."""

from typing import Any

import httpx2


async def tell(url: str, **behaviour: object) -> None:
    """Change its behaviour."""
    async with httpx2.AsyncClient() as http:
        (await http.post(f"{url}/script", json=behaviour)).raise_for_status()


async def restore(url: str) -> None:
    """Reset its behaviour."""
    async with httpx2.AsyncClient() as http:
        (await http.delete(f"{url}/script")).raise_for_status()


async def running(url: str) -> int:
    """Return how many generations it runs now."""
    return int((await _stats(url))["running"])


async def requests(url: str) -> list[dict[str, Any]]:
    """Return the requests that it got, oldest first."""
    asked: list[dict[str, Any]] = (await _stats(url))["requests"]
    return asked


async def _stats(url: str) -> dict[str, Any]:
    async with httpx2.AsyncClient() as http:
        stats: dict[str, Any] = (await http.get(f"{url}/stats")).json()
    return stats
