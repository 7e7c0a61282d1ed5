"""Conversations in Redis: each belongs to one (tenant, sub), is bounded, and is forgotten after a while.

The owner is part of every key, so somebody else's conversation is simply not there. Messages form a tree by
`parent_id`; they are kept in the order they were written.
"""

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, Protocol, TypeVar, cast
from urllib.parse import quote

import msgspec
from pydantic import BaseModel, PositiveInt
from redis.asyncio import Redis

from chatbot.errors import BadRequest, NotFound
from chatbot.events import Citation, Notice, PassageRef, Source
from chatbot.redis_client import RedisBreaker

TITLE_LENGTH = 60
CHANGED = re.compile(r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


class HistorySettings(BaseModel, frozen=True):
    """How long a conversation is kept after its last message, and how much of it.

    `begin_within` seconds after an id was given out it may still begin its conversation (Redis was away when it should
    have); as long, a deletion is remembered.
    """

    keep_seconds: PositiveInt = 30 * 86400
    begin_within: PositiveInt = 86400
    most_messages: PositiveInt = 400
    most_conversations: PositiveInt = 1000


class HistoryMessage(Protocol):
    """A message of a conversation, whoever vouches for it."""

    @property
    def role(self) -> Literal["user", "assistant"]: ...

    @property
    def text(self) -> str: ...


SaidT = TypeVar("SaidT", bound=HistoryMessage)


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose conversations."""

    tenant: str
    sub: str


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What the customer thought of an answer; the comment is masked."""

    rating: Literal["up", "down"]
    reasons: tuple[str, ...]
    comment: str
    at: float


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question or an answer, as the customer saw it; `passages` stand behind its sources, in their order.

    `answered_by` names the answer that a question began last, which may still be running.
    """

    id: str
    parent_id: str | None
    role: Literal["user", "assistant"]
    text: str
    at: float
    answer_id: str | None = None
    answered_by: str | None = None
    sources: tuple[Source, ...] = ()
    passages: tuple[PassageRef, ...] = ()
    citations: tuple[Citation, ...] = ()
    notices: tuple[Notice, ...] = ()
    finish_reason: str | None = None
    grounded: bool | None = None
    feedback: Feedback | None = None


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

    def message(self, message_id: str | None) -> StoredMessage:
        """Return one of its messages.

        Raises:
            NotFound: it has no such message, or none any more.
        """
        for message in self.messages:
            if message.id == message_id:
                return message
        raise NotFound("the conversation has no such message")


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
    """Loads, appends, lists, rates and deletes a customer's conversations, one round trip each."""

    def __init__(self, redis: Redis, breaker: RedisBreaker, settings: HistorySettings) -> None:
        self._redis = redis
        self._breaker = breaker
        self._settings = settings
        folder = files("chatbot.conversations") / "lua"
        self._append = redis.register_script((folder / "history_append.lua").read_text("utf-8"))
        self._list = redis.register_script((folder / "history_list.lua").read_text("utf-8"))
        self._rate = redis.register_script((folder / "history_rate.lua").read_text("utf-8"))
        self._delete = redis.register_script((folder / "history_delete.lua").read_text("utf-8"))

    async def load(self, owner: Owner, conversation_id: str) -> Conversation:
        """Return a conversation.

        Raises:
            NotFound: there is none, or it is somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        found, _ = await self._load(owner, conversation_id)
        if found is None:
            raise NotFound("there is no such conversation")
        return found

    async def load_or_begin(self, owner: Owner, conversation_id: str, *, now: float) -> Conversation:
        """Return a conversation, or a new one of that id where nothing is kept under it.

        Raises:
            NotFound: its customer has deleted it.
            StoreUnavailable: Redis cannot be asked.
        """
        found, deleted = await self._load(owner, conversation_id)
        if deleted:
            raise NotFound("there is no such conversation")
        return found or Conversation.new(conversation_id, now=now)

    async def _load(self, owner: Owner, conversation_id: str) -> tuple[Conversation | None, bool]:
        keys = Keys(owner, conversation_id)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(keys.conversation, ["title", "created_at", "updated_at"])
            pipe.lrange(keys.messages, 0, -1)
            pipe.hgetall(keys.answers)
            pipe.exists(keys.deleted)
            (title, created_at, updated_at), stored, feedback, deleted = await self._breaker.call(pipe.execute)
        if created_at is None:
            return None, bool(deleted)
        messages = messages_of(stored, feedback)
        return Conversation(conversation_id, title.decode(), float(created_at), float(updated_at), messages), False

    async def containing(self, owner: Owner, answer_id: str) -> Conversation:
        """Return the conversation in which the answer was given.

        Raises:
            NotFound: there is none, or it is somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        key = Keys(owner, "").of_answer(answer_id)
        conversation_id = cast("bytes | None", await self._breaker.call(lambda: self._redis.get(key)))
        if conversation_id is None:
            raise NotFound("there is no such answer")
        return await self.load(owner, conversation_id.decode())

    async def rate(self, owner: Owner, conversation_id: str, answer_id: str, feedback: Feedback) -> None:
        """Keep what the customer thought of an answer; the latest counts.

        Raises:
            NotFound: the conversation has no such answer.
            StoreUnavailable: Redis cannot be asked.
        """
        keys = [Keys(owner, conversation_id).answers]
        arguments: list[str | bytes] = [answer_id, msgspec.json.encode(feedback)]
        if not await self._breaker.call(lambda: self._rate(keys=keys, args=arguments)):
            raise NotFound("there is no such answer")

    async def append(
        self, owner: Owner, conversation_id: str, messages: Sequence[StoredMessage], *, now: float
    ) -> bool:
        """Append messages; a question creates its conversation unless that was deleted, an answer never does.

        Returns False, and writes nothing, where the conversation is not there and is not created.

        Raises:
            StoreUnavailable: Redis cannot be asked.
        """
        keys, settings = Keys(owner, conversation_id), self._settings
        creates = int(messages[0].role == "user")
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
        """Remove every trace of a conversation; that its id was deleted is remembered for a while.

        Raises:
            NotFound: there is none, or it is somebody else's.
            StoreUnavailable: Redis cannot be asked.
        """
        keys = Keys(owner, conversation_id)
        arguments: list[str | int] = [conversation_id, self._settings.begin_within, keys.base]
        if not await self._breaker.call(lambda: self._delete(keys=keys.all, args=arguments)):
            raise NotFound("there is no such conversation")


class Keys:
    """The keys of an owner's conversation; quoted, so that no name can imitate another's key."""

    def __init__(self, owner: Owner, conversation_id: str) -> None:
        self.base = f"history:{{{quote(owner.tenant, safe='')}}}:{quote(owner.sub, safe='')}"
        self.index = f"{self.base}:conversations"
        self.conversation = f"{self.base}:conversation:{conversation_id}"
        self.messages = f"{self.base}:messages:{conversation_id}"
        self.answers = f"{self.base}:answers:{conversation_id}"
        self.deleted = f"{self.base}:deleted:{conversation_id}"
        self.all = (self.conversation, self.messages, self.index, self.answers, self.deleted)

    def of_answer(self, answer_id: str) -> str:
        """Return the key that names the answer's conversation."""
        return f"{self.base}:answer:{answer_id}"


class ConversationIds:
    """Gives out ids that prove to whom and when: Redis need not have heard of one for its customer to go on with it.

    8 hexadecimal digits of Unix seconds, 10 of chance, 14 of an HMAC over them and the owner.
    """

    def __init__(self, key: str, *, begin_within: int) -> None:
        self._key = key.encode()
        self._begin_within = begin_within

    def new(self, owner: Owner, *, now: float) -> str:
        """Return an id that was never given out."""
        given = f"{int(now) & 0xFFFFFFFF:08x}{secrets.token_hex(5)}"
        return given + self._mac(owner, given)

    def may_begin(self, owner: Owner, conversation_id: str, *, now: float) -> bool:
        """Return whether the id was given to this owner lately."""
        given, mac = conversation_id[:18], conversation_id[18:]
        mine = hmac.compare_digest(mac.encode(), self._mac(owner, given).encode())
        return mine and now - int(given[:8], 16) < self._begin_within

    def _mac(self, owner: Owner, given: str) -> str:
        # As JSON: no choice of tenant and sub can be read as another owner's.
        signed = msgspec.json.encode(["conversation", owner.tenant, owner.sub, given])
        return hmac.digest(self._key, signed, "sha256").hex()[:14]


def messages_of(stored: Sequence[bytes], feedback: Mapping[bytes, bytes]) -> tuple[StoredMessage, ...]:
    """Return the messages, each with what was thought of it."""
    messages = [msgspec.json.decode(message, type=StoredMessage) for message in stored]
    rated = {name.decode(): msgspec.json.decode(given, type=Feedback) for name, given in feedback.items() if given}
    # A question that is answered again is written again, under its id, and so is what a broken connection sent twice.
    unique = {message.id: message for message in messages}
    return tuple(msgspec.structs.replace(m, feedback=rated[m.id]) if m.id in rated else m for m in unique.values())


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
