"""Conversations in Redis: each belongs to one (tenant, sub), is bounded, and is forgotten after a while.

The owner is part of every key, so somebody else's conversation is simply not there. Messages form a tree by
`parent_id`; they are kept in the order they were written.
"""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, Protocol, TypeVar
from urllib.parse import quote

import msgspec
from pydantic import BaseModel, PositiveInt
from redis.asyncio import Redis

from chatbot.errors import BadRequest, NotFound
from chatbot.events import Citation, Source
from chatbot.redis_breaker import RedisBreaker

TITLE_LENGTH = 60
CHANGED = re.compile(r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


class HistorySettings(BaseModel, frozen=True):
    """How long a conversation is kept after its last message, and how much of it."""

    keep_seconds: PositiveInt = 30 * 86400
    most_messages: PositiveInt = 400
    most_conversations: PositiveInt = 1000


class Said(Protocol):
    """A message of a conversation, whoever vouches for it."""

    @property
    def role(self) -> Literal["user", "assistant"]: ...

    @property
    def text(self) -> str: ...


SaidT = TypeVar("SaidT", bound=Said)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose conversations."""

    tenant: str
    sub: str


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question or an answer, as the customer saw it."""

    id: str
    parent_id: str | None
    role: Literal["user", "assistant"]
    text: str
    at: float
    answer_id: str | None = None
    sources: tuple[Source, ...] = ()
    citations: tuple[Citation, ...] = ()
    finish_reason: str | None = None


class Conversation(msgspec.Struct, frozen=True):
    """A conversation with its messages, oldest first."""

    id: str
    title: str
    created_at: float
    updated_at: float
    messages: tuple[StoredMessage, ...] = ()

    @classmethod
    def new(cls, conversation_id: str, *, now: float) -> "Conversation":
        """Return one without a message, which exists nowhere yet."""
        return cls(conversation_id, "", now, now)


class Summary(msgspec.Struct, frozen=True):
    """A conversation as it is listed."""

    id: str
    title: str
    created_at: float
    updated_at: float


class Page(msgspec.Struct, frozen=True):
    """Conversations, the last changed first, and where the next page begins (None: this was the last)."""

    conversations: tuple[Summary, ...]
    next_cursor: str | None


class History:
    """Loads, appends, lists and deletes a customer's conversations, one round trip each."""

    def __init__(self, redis: Redis, breaker: RedisBreaker, settings: HistorySettings) -> None:
        self._redis = redis
        self._breaker = breaker
        self._settings = settings
        folder = files("chatbot") / "lua"
        self._append = redis.register_script((folder / "history_append.lua").read_text("utf-8"))
        self._list = redis.register_script((folder / "history_list.lua").read_text("utf-8"))

    async def load(self, owner: Owner, conversation_id: str) -> Conversation:
        """Return a conversation.

        Raises:
            NotFound: there is none, or it is somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        keys = Keys(owner, conversation_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(keys.conversation, ["title", "created_at", "updated_at"])
            pipe.lrange(keys.messages, 0, -1)
            (title, created_at, updated_at), stored = await self._breaker.call(pipe.execute)
        if created_at is None:
            raise NotFound("there is no such conversation")
        messages = [msgspec.json.decode(message, type=StoredMessage) for message in stored]
        # A command that was sent again over a broken connection may have written a message twice.
        unique = {message.id: message for message in messages}
        return Conversation(
            conversation_id, title.decode(), float(created_at), float(updated_at), tuple(unique.values())
        )

    async def append(
        self, owner: Owner, conversation_id: str, messages: Sequence[StoredMessage], *, now: float
    ) -> bool:
        """Append messages; a first question (without a parent) creates the conversation.

        Returns False, and writes nothing, where the conversation is not there: its customer has deleted it meanwhile.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        keys, settings = Keys(owner, conversation_id), self._settings
        creates = int(messages[0].parent_id is None)
        bounds = [settings.keep_seconds, settings.most_messages, settings.most_conversations]
        encoded = [msgspec.json.encode(message) for message in messages]
        arguments: list[str | int | bytes] = [conversation_id, creates, title_of(messages[0].text), repr(now)]
        arguments += [*bounds, keys.base, *encoded]
        written = await self._breaker.call(lambda: self._append(keys=keys.all, args=arguments))
        return bool(written)

    async def list(self, owner: Owner, *, limit: int, cursor: str | None = None) -> Page:
        """Return the owner's conversations from `cursor` on, the last changed first.

        Raises:
            BadRequest: the cursor is none of ours.
            StoreUnavailable: Redis cannot be asked.
        """
        keys = Keys(owner, "")
        last_id, changed = ("", "") if cursor is None else read_cursor(cursor)
        # One more than asked for: whether there is a next page costs no second trip.
        arguments: list[str | int] = [keys.base, limit + 1, last_id, changed]
        found = await self._breaker.call(lambda: self._list(keys=[keys.index], args=arguments))
        summaries = tuple(
            Summary(row[0].decode(), row[2].decode(), float(row[3]), float(row[1])) for row in found[:limit]
        )
        more = len(found) > limit
        return Page(summaries, make_cursor(found[limit - 1][0], found[limit - 1][1]) if more else None)

    async def delete(self, owner: Owner, conversation_id: str) -> None:
        """Remove every trace of a conversation.

        Raises:
            NotFound: there is none, or it is somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        keys = Keys(owner, conversation_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(keys.conversation, keys.messages)
            pipe.zrem(keys.index, conversation_id)
            deleted, _ = await self._breaker.call(pipe.execute)
        if not deleted:
            raise NotFound("there is no such conversation")


class Keys:
    """The keys of an owner's conversation; quoted, so that no name can imitate another's key."""

    def __init__(self, owner: Owner, conversation_id: str) -> None:
        self.base = f"history:{{{quote(owner.tenant, safe='')}}}:{quote(owner.sub, safe='')}"
        self.index = f"{self.base}:conversations"
        self.conversation = f"{self.base}:conversation:{conversation_id}"
        self.messages = f"{self.base}:messages:{conversation_id}"
        self.all = (self.conversation, self.messages, self.index)


def title_of(text: str) -> str:
    """Return the first line of a question, short enough for a list."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else f"{line[: TITLE_LENGTH - 1]}…"


def make_cursor(conversation_id: bytes, changed: bytes) -> str:
    return base64.urlsafe_b64encode(changed + b" " + conversation_id).decode()


def read_cursor(cursor: str) -> tuple[str, str]:
    """Return the id and the change time of the last conversation listed.

    Raises:
        BadRequest: it is none of ours.
    """
    try:
        decoded = base64.urlsafe_b64decode(cursor).decode()
    except (binascii.Error, ValueError):
        decoded = ""
    changed, _, conversation_id = decoded.partition(" ")
    if not CHANGED.fullmatch(changed):
        raise BadRequest("this cursor is not one that a list has given")
    return conversation_id, changed


def path_to(messages: Sequence[StoredMessage], message_id: str | None) -> tuple[StoredMessage, ...]:
    """Return the branch that ends in `message_id`, from its oldest kept message on."""
    by_id = {message.id: message for message in messages}
    branch: list[StoredMessage] = []
    while message_id is not None and message_id in by_id:
        branch.append(by_id.pop(message_id))
        message_id = branch[-1].parent_id
    return tuple(reversed(branch))


def window(messages: Sequence[SaidT], tokens_of: Callable[[str], int], budget: int) -> tuple[SaidT, ...]:
    """Return the newest messages that fit `budget` tokens together, in order, beginning with a question."""
    kept: list[SaidT] = []
    for message in reversed(messages):
        budget -= tokens_of(message.text)
        if budget < 0:
            break
        kept.append(message)
    while kept and kept[-1].role == "assistant":
        kept.pop()
    return tuple(reversed(kept))
