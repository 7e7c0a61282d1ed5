"""A model on trial: asked what customers asked, after they have their answer; nobody is shown or pays for what it says.

What it says goes through the checks of the customer's own answer, and only their verdict is kept, so that its share of
grounded answers can be read beside that of the model in service.  It waits behind everybody else inside vLLM, and a
process asks it little at a time: what comes while it is busy is not asked. An emergency stop, or a withdrawal of what
the answer stands on, ends it as it would the customer's.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal

import anyio
import structlog
from anyio.abc import TaskGroup

from chatbot.errors import TooLarge
from chatbot.grounding import GroundingStream
from chatbot.models import EndpointFailed, Models, Sampling
from chatbot.tokenizer import Rendered

log = structlog.get_logger(__name__)

Verdict = Literal["grounded", "withheld", "uncited", "failed"]
"""Whether every sentence held, one failed the checks, none claimed anything, or the model did not finish."""

_AT_ONCE = 2


class Shadow:
    """Asks the shadow group, if there is one."""

    def __init__(self, models: Models, tasks: TaskGroup, *, hook: Callable[[Verdict], None]) -> None:
        self._models = models
        self._tasks = tasks
        self._hook = hook
        self._asked = 0

    def follow(
        self,
        prompt: Rendered,
        checks: GroundingStream,
        *,
        sampling: Sampling,
        conversation_id: str,
        cache_salt: str,
        within: Callable[[], AbstractContextManager[anyio.CancelScope]],
    ) -> None:
        """Ask the shadow the same, beside everything else, if the conversation is of its share.

        `checks` are fresh; what `within` opens is cancelled when the bank takes back what the answer stands on.
        """
        if self._asked >= _AT_ONCE or not self._models.pool.in_share(conversation_id, "shadow"):
            return
        self._asked += 1

        async def ask() -> None:
            try:
                with within():
                    said = await self._models.shadow_answer(
                        prompt, sampling=sampling, conversation_id=conversation_id, cache_salt=cache_salt
                    )
                    if said is not None:
                        self._hook(_verdict(said, checks))
            except (EndpointFailed, TooLarge) as exc:
                log.warning("shadow_failed", error=type(exc).__name__)
                self._hook("failed")
            finally:
                self._asked -= 1

        self._tasks.start_soon(ask)


def _verdict(said: str, checks: GroundingStream) -> Verdict:
    checks.feed(said)
    checks.close()
    if checks.withheld:
        return "withheld"
    return "grounded" if checks.grounded else "uncited"
