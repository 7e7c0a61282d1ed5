"""Format a replay as text."""

from datetime import UTC, datetime

from chatbot.audit import Opened, Versions
from chatbot.proof.context import Replayed


def report(replayed: Replayed) -> str:
    """Format a replay: the rows, changed versions, and the findings."""
    lines = [f"answer {replayed.answer_id}"]
    if (opened := replayed.opened) is not None:
        asked_at = datetime.fromtimestamp(opened.at, UTC).isoformat(timespec="seconds")
        lines += [
            f"asked    {asked_at} by {opened.tenant}/{opened.sub} (groups: {', '.join(opened.groups) or 'none'})",
            f"made by  {version_list(opened, replayed.current_versions)}",
            f"sampling {opened.sampling}, grounding {opened.grounding}",
        ]
    if (closed := replayed.closed) is not None:
        outcome = f"error {closed.error}" if closed.error else closed.finish_reason
        lines += [
            f"ended    {outcome}, grounded: {closed.grounded}"
            f"; {closed.prompt_tokens} + {closed.answer_tokens} tokens by {', '.join(closed.models) or 'no model'}"
            + (f"; {closed.degradation_level}" if closed.degradation_level else "")
        ]
    lines += ["", *(f"{finding.standing:<8} {finding.what:<10} {finding.detail}" for finding in replayed.findings)]
    return "\n".join(lines)


def version_list(opened: Opened, current: Versions) -> str:
    """Format the recorded versions, each with the current version if it differs."""
    pairs = {
        "model": (opened.model, current.model),
        "prompt": (opened.prompt_version, current.prompt),
        "index": (opened.index_version, current.index),
        "embedder": (opened.embedder, current.embedder),
    }
    versions = []
    for name, (recorded, in_use) in pairs.items():
        change = f" (now {in_use})" if in_use and in_use != recorded else ""
        versions.append(f"{name} {recorded}{change}")
    return ", ".join(versions)
