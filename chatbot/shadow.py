"""A shadow model: it gets the customers' questions after their answers; its answers are neither shown nor charged.

Its answers pass the same checks, and only the verdict is kept, to compare its share of grounded answers with that of
the model in service. Its calls have the lowest priority in vLLM. A process runs at most two of them at once and skips
further questions. An emergency stop or a withdrawal of the passages cancels the call.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, aclosing
from typing import Literal

import anyio
import structlog
from anyio.abc import TaskGroup

from chatbot.chat import Chat
from chatbot.errors import TooLarge, Unavailable
from chatbot.grounding import GroundingStream
from chatbot.models import Delta, Models, Sampling
from telemetry.supervision import contained

log = structlog.get_logger(__name__)

Verdict = Literal["grounded", "withheld", "uncited", "failed"]
"""All sentences are supported, one failed the checks, no sentence makes a claim, or the model did not finish."""

_AT_ONCE = 2
# vLLM serves lower numbers first; customers and roles have lower ones.
_LAST_PRIORITY = 1000


class Shadow:
    """Sends questions to the shadow group, if it has endpoints."""

    def __init__(self, models: Models, tasks: TaskGroup, *, hook: Callable[[Verdict], None]) -> None:
        self._models = models
        self._tasks = tasks
        self._hook = hook
        self._asked = 0

    def follow(
        self,
        prompt: Chat,
        checks: GroundingStream,
        *,
        sampling: Sampling,
        conversation_id: str,
        cache_salt: str,
        within: Callable[[], AbstractContextManager[anyio.CancelScope]],
    ) -> None:
        """Send the prompt to the shadow model in a background task, if the conversation is in its share.

        `checks` must be unused; `within` opens a cancel scope that is cancelled when the answer is revoked.
        """
        if self._asked >= _AT_ONCE or not self._models.pool.in_share(conversation_id, "shadow"):
            return
        self._asked += 1

        async def ask() -> None:
            try:
                with within():
                    if not any(member.available for member in self._models.pool.of_group("shadow")):
                        return
                    stream = self._models.stream(
                        prompt,
                        sampling=sampling,
                        conversation_id=conversation_id,
                        cache_salt=cache_salt,
                        priority=_LAST_PRIORITY,
                        groups=("shadow",),
                    )
                    async with aclosing(stream) as parts:
                        text = "".join([part.text async for part in parts if isinstance(part, Delta)])
                    self._hook(_verdict(text, checks))
            except (Unavailable, TooLarge) as exc:
                log.warning("shadow_answer_failed", error=type(exc).__name__)
                self._hook("failed")

        async def ask_alone() -> None:
            try:
                with contained("shadow"):
                    await ask()
            finally:
                self._asked -= 1

        self._tasks.start_soon(ask_alone)


def _verdict(text: str, checks: GroundingStream) -> Verdict:
    checks.feed(text)
    checks.close()
    if checks.withheld:
        return "withheld"
    return "grounded" if checks.grounded else "uncited"
