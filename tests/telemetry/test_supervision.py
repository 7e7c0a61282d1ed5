"""A background task that fails is counted and restarted; one that returns or is cancelled is not."""

import anyio
import pytest

from telemetry.supervision import supervise

pytestmark = pytest.mark.anyio


async def test_a_task_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def skip(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(anyio, "sleep", skip)
    runs, failures = 0, list[str]()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs <= 8:
            raise KeyError(runs)

    with anyio.fail_after(5):
        await supervise("sweep", work, failures.append)
    assert (runs, failures) == (9, ["sweep"] * 8)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


async def test_a_cancelled_task_is_not_started_again() -> None:
    runs, failures = 0, list[str]()

    async def work() -> None:
        nonlocal runs
        runs += 1
        await anyio.sleep_forever()

    with anyio.move_on_after(0.05):
        await supervise("sweep", work, failures.append)
    assert (runs, failures) == (1, [])
