"""`python -m evals.performance.unlogged serve`: the chat API without an answer log, of which `make bench` measures the
cost."""

from chatbot.__main__ import app
from chatbot.errors import StoreUnavailable
from chatbot.streams import AnswerLog


async def _refuse(*_: object, **__: object) -> bool:
    raise StoreUnavailable


if __name__ == "__main__":
    AnswerLog.open = _refuse  # type: ignore[method-assign]  # the answer goes on as in an outage of Redis
    app()
