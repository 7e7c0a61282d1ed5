"""Format a replay as text, and request a replay from a running chat API, which may hold the embedded index."""

from datetime import UTC, datetime
from urllib.parse import quote

import aiohttp
import msgspec

from chatbot.audit import Opened, Versions
from chatbot.errors import ChatError, NotFound
from chatbot.proof.context import Replayed

_REMOTE_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=5)


def report(replayed: Replayed) -> str:
    """Format a replay: the rows, changed versions, and the findings."""
    lines = [f"answer {replayed.answer_id}"]
    if (opened := replayed.opened) is not None:
        asked_at = datetime.fromtimestamp(opened.at, UTC).isoformat(timespec="seconds")
        lines += [
            f"asked    {asked_at} by {opened.tenant}/{opened.sub} (groups: {', '.join(opened.groups) or 'none'})",
            f"made by  {made_by(opened, replayed.now)}",
            f"sampling {opened.sampling}, grounding {opened.grounding}",
        ]
    if (closed := replayed.closed) is not None:
        outcome = f"error {closed.error}" if closed.error else closed.finish_reason
        lines += [
            f"ended    {outcome}, grounded: {closed.grounded}"
            f"; {closed.prompt_tokens} + {closed.answer_tokens} tokens by {', '.join(closed.models) or 'no model'}"
            + (f"; {closed.rung}" if closed.rung else "")
        ]
    return "\n".join([*lines, "", *(f"{f.standing:<8} {f.what:<10} {f.detail}" for f in replayed.findings)])


def made_by(then: Opened, now: Versions) -> str:
    """Format the recorded versions, each with the current version if it differs."""
    pairs = {
        "model": (then.model, now.model),
        "prompt": (then.prompt_version, now.prompt),
        "index": (then.index_version, now.index),
        "embedder": (then.embedder, now.embedder),
    }
    return ", ".join(
        f"{name} {old}" + (f" (now {new})" if new and new != old else "") for name, (old, new) in pairs.items()
    )


async def replay_remotely(answer_id: str, *, url: str, token: str, question: str | None) -> Replayed:
    """Request a replay from the chat API at `url`.

    Raises:
        NotFound: no audit row has this answer's id, or it belongs to another tenant.
        ChatError: the API is unreachable, or rejects the request (with its message).
    """
    address = f"{url.rstrip('/')}/v1/admin/answers/{quote(answer_id, safe='')}/replay"
    headers = {"authorization": f"Bearer {token}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=_REMOTE_TIMEOUT, headers=headers) as http,
            http.post(address, json={"question": question}, allow_redirects=False) as response,
        ):
            reply = await response.read()
    except (aiohttp.ClientError, TimeoutError, ValueError) as exc:  # ValueError: invalid URL or header
        raise ChatError(f"{url} does not answer") from exc
    if response.status == NotFound.status:
        raise NotFound("no audit row names this answer")
    if response.status != 200:
        raise ChatError(f"{url} refuses ({response.status}): {reply[:400].decode(errors='replace')}")
    return msgspec.json.decode(reply, type=Replayed)
