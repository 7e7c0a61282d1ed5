"""The routes of the chat API, one module per resource."""

from chatbot.api.routes import answers, chat, conversations, keys, limits, openai, probes, replays, stops

ROUTERS = (
    chat.router,
    answers.router,
    conversations.router,
    limits.router,
    openai.router,
    stops.router,
    keys.router,
    replays.router,
    probes.router,
)

__all__ = ["ROUTERS"]
