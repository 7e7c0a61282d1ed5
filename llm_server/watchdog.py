"""Detects a hung engine, whose front end still answers `/health`, and distinguishes it from a busy or idle one.

vLLM counts the tokens that it generates. While the count rises, the engine works. If it stops, the engine is idle,
reads a long prompt, or hangs; a request for one token decides, because a hung engine never answers it.
"""

import aiohttp
import anyio

_TOKENS = "vllm:generation_tokens_total"
_POLL_SECONDS = 1.0
_METRICS_SECONDS = 5.0


async def wait_for_hang(http: aiohttp.ClientSession, model: str, *, every: float, patience: float) -> None:
    """Return once the engine has generated nothing for `patience` seconds after a request for a token.

    The count is read at intervals of `every` seconds; `http` has the server's base URL.
    """
    last_count: float | None = None
    while True:
        await anyio.sleep(every)
        count = await _generated_tokens(http)
        if count is not None and count != last_count:
            last_count = count
            continue
        with anyio.move_on_after(patience) as waiting:
            await _wait_for_progress(http, model, last_count, min(every, _POLL_SECONDS))
        if waiting.cancelled_caught:
            return


async def _wait_for_progress(http: aiohttp.ClientSession, model: str, last_count: float | None, every: float) -> None:
    """Return once the server has answered a request for one token, or generated a token for another request."""

    async def ask() -> None:
        """Repeat the request until it is answered, with any status."""
        body = {"model": model, "prompt": "1", "max_tokens": 1}
        while True:
            try:
                async with http.post("/v1/completions", json=body) as reply:
                    await reply.read()
            except (aiohttp.ClientError, OSError):
                await anyio.sleep(every)
            else:
                break
        tasks.cancel_scope.cancel()

    async def watch_count() -> None:
        while (await _generated_tokens(http)) in (last_count, None):  # noqa: ASYNC110  another process cannot set an event
            await anyio.sleep(every)
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(watch_count)


async def _generated_tokens(http: aiohttp.ClientSession) -> float | None:
    """Return the total tokens that the server's engines have generated; None if its metrics are unavailable."""
    try:
        with anyio.fail_after(_METRICS_SECONDS):
            async with http.get("/metrics") as reply:
                text = await reply.text("utf-8", "replace")
    except (aiohttp.ClientError, OSError):
        return None
    values = [line.rpartition(" ")[2] for line in text.splitlines() if line.partition("{")[0] == _TOKENS]
    try:
        return sum(map(float, values)) if values else None
    except ValueError:
        return None
