"""Conversations in Redis: each belongs to one (tenant, sub), is bounded, and expires.

The owner is part of each key, so another customer's conversation is not found. Messages form a tree by `parent_id` and
are stored in the order in which they were written.
"""

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import ClassVar, Literal, Protocol, TypeVar, cast
from urllib.parse import quote

import msgspec
import structlog
from pydantic import BaseModel, Field, PositiveInt
from redis.asyncio import Redis

from chatbot.errors import BadRequest, NotFound
from chatbot.events import Citation, Notice, PassageRef, RelatedPassage, Source
from chatbot.reads import Reads
from chatbot.redis_client import RedisBreaker
from knowledge.identity import Principal

log = structlog.get_logger(__name__)

TITLE_LENGTH = 60
CHANGE_TIME = re.compile(r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?")


class HistorySettings(BaseModel, frozen=True):
    """The retention and the size limits of conversations."""

    keep_seconds: PositiveInt = Field(
        30 * 86400, description="seconds: A conversation is kept for this long after its last message."
    )
    # seconds: how long an issued id may begin its conversation (after an outage), and how long a deletion is stored
    begin_within: ClassVar[int] = 86400
    most_messages: ClassVar[int] = 400  # messages: the most per conversation
    most_conversations: ClassVar[int] = 1000  # conversations: the most per customer
    page_messages: ClassVar[int] = 100  # messages: the most per page
    page_bytes: ClassVar[int] = 256 * 1024  # bytes: the most per page


class HistoryMessage(Protocol):
    """A message of a conversation: stored, or untrusted and sent by the client."""

    @property
    def role(self) -> Literal["user", "assistant"]: ...

    @property
    def text(self) -> str: ...


MessageT = TypeVar("MessageT", bound=HistoryMessage)


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """A customer's rating of an answer; the comment is masked, `at` is in Unix seconds."""

    rating: Literal["up", "down"]
    reasons: tuple[str, ...]
    comment: str
    at: float


class StoredMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question or an answer, as the customer saw it; `at` is in Unix seconds.

    `passages` are the passages of the sources, in order. For a question, `answered_by` is its latest answer, which may
    still be running, `refused` is the canned reply in place of an answer ("": none), `context` has the ids of the
    earlier messages in its prompt, and `standalone` is the rewritten question ("": not rewritten).
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
    related: tuple[RelatedPassage, ...] = ()
    notices: tuple[Notice, ...] = ()
    finish_reason: str | None = None
    grounded: bool | None = None
    feedback: Feedback | None = None
    refused: str = ""
    context: tuple[str, ...] = ()
    standalone: str = ""


class Conversation(msgspec.Struct, frozen=True):
    """A conversation with its messages, oldest first; times in Unix seconds."""

    id: str
    title: str
    created_at: float
    updated_at: float
    messages: tuple[StoredMessage, ...] = ()

    @classmethod
    def new(cls, conversation_id: str, *, now: float) -> "Conversation":
        """Return a new conversation, which is not stored yet."""
        return cls(conversation_id, "", now, now)

    def message(self, message_id: str | None) -> StoredMessage:
        """Return a message by its id.

        Raises:
            NotFound: the conversation does not have the message, or no longer has it.
        """
        for message in self.messages:
            if message.id == message_id:
                return message
        raise NotFound("the conversation has no such message")


class ConversationPage(Conversation, frozen=True):
    """A part of a conversation, and the cursor of earlier messages (None: there are none)."""

    next_cursor: str | None = None


Enough = Callable[[Sequence[StoredMessage]], bool]
"""Returns whether the newest messages, loaded so far and oldest first, are enough."""


def load_all(_: Sequence[StoredMessage]) -> bool:
    """Return False: no part of the messages is enough."""
    return False


class Summary(msgspec.Struct, frozen=True):
    """A conversation in a list; times in Unix seconds."""

    id: str
    title: str
    created_at: float
    updated_at: float


class ConversationList(msgspec.Struct, frozen=True):
    """A page of conversations, last changed first, and the cursor of the next page (None: this is the last page)."""

    conversations: tuple[Summary, ...]
    next_cursor: str | None


class ListedConversation(msgspec.Struct, frozen=True):
    """A conversation as returned by `history_list.lua`; `changed` is the exact text of its last change's time."""

    id: str
    changed: str
    title: str
    created_at: str


class History:
    """Loads, appends, lists, rates and deletes customers' conversations.

    Messages are read in pages of bounded size, newest first; a customer's reads run one at a time. A read raises
    `RateLimited` or `Overloaded` beyond the limits. Every method raises `StoreUnavailable` while Redis is unavailable.
    """

    def __init__(
        self, redis: Redis, breaker: RedisBreaker, settings: HistorySettings, *, reads: Reads | None = None
    ) -> None:
        """`reads` enforces read limits; without it reads are unlimited, as in commands beside the service."""
        self._redis = redis
        self._breaker = breaker
        self._settings = settings
        self._reads = reads
        folder = files("chatbot.conversations") / "lua"
        self._append = redis.register_script((folder / "history_append.lua").read_text("utf-8"))
        self._page = redis.register_script((folder / "history_page.lua").read_text("utf-8"))
        self._list = redis.register_script((folder / "history_list.lua").read_text("utf-8"))
        self._rate = redis.register_script((folder / "history_rate.lua").read_text("utf-8"))
        self._delete = redis.register_script((folder / "history_delete.lua").read_text("utf-8"))

    async def page(self, owner: Principal, conversation_id: str, *, cursor: str | None = None) -> ConversationPage:
        """Return the newest messages of a conversation, or the messages before `cursor`.

        Pages may overlap if messages were added between the reads; deduplicate by id, and the newest page wins.

        Raises:
            NotFound: the customer has no such conversation.
            BadRequest: invalid cursor.
        """
        before = None if cursor is None else message_index(cursor)
        part = await self._read_part(owner, conversation_id, before)
        if isinstance(part, Absent):
            raise NotFound("there is no such conversation")
        feedback = await self._feedback(owner, conversation_id, part.messages)
        messages = with_feedback(newest_versions(part.messages), feedback)
        next_cursor = str(part.first_index) if part.first_index > 0 else None
        return ConversationPage(conversation_id, part.title, part.created_at, part.updated_at, messages, next_cursor)

    async def load(self, owner: Principal, conversation_id: str, *, is_enough: Enough = load_all) -> Conversation:
        """Return a conversation; load its newest messages until `is_enough` returns True, by default all of them.

        Raises:
            NotFound: the customer has no such conversation.
        """
        conversation, _ = await self._load(owner, conversation_id, is_enough)
        if conversation is None:
            raise NotFound("there is no such conversation")
        return conversation

    async def load_or_begin(
        self, owner: Principal, conversation_id: str, *, now: float, is_enough: Enough = load_all
    ) -> Conversation:
        """Return a conversation like `load`, or a new one if none is stored.

        Raises:
            NotFound: the customer has deleted the conversation.
        """
        conversation, deleted = await self._load(owner, conversation_id, is_enough)
        if deleted:
            raise NotFound("there is no such conversation")
        return conversation or Conversation.new(conversation_id, now=now)

    async def _load(
        self, owner: Principal, conversation_id: str, is_enough: Enough
    ) -> tuple[Conversation | None, bool]:
        """Return the conversation or None, and whether it was recently deleted."""
        messages: tuple[StoredMessage, ...] = ()
        before: int | None = None
        while True:
            part = await self._read_part(owner, conversation_id, before)
            if isinstance(part, Absent):
                return None, part.deleted
            messages = newest_versions([*part.messages, *messages])
            before = part.first_index
            if before == 0 or is_enough(messages):
                break
        messages = with_feedback(messages, await self._feedback(owner, conversation_id, messages))
        return Conversation(conversation_id, part.title, part.created_at, part.updated_at, messages), False

    async def _read_part(self, owner: Principal, conversation_id: str, before: int | None) -> "Part | Absent":
        """Read up to a page of the messages before an index, or of the newest messages; meter their bytes."""
        options = {
            "before": -1 if before is None else before,
            "most_messages": self._settings.page_messages,
            "most_bytes": self._settings.page_bytes,
        }
        keys, args = ConversationKeys(owner, conversation_id), [msgspec.msgpack.encode(options)]
        async with nullcontext() if self._reads is None else self._reads.exclusive_read(owner.customer_id):
            reply = await self._breaker.call(lambda: self._page(keys=keys.for_scripts, args=args))
            if self._reads is not None:
                self._reads.count(owner.customer_id, sum(len(data) for data in reply[4:]))
        if len(reply) == 1:
            return Absent(deleted=bool(reply[0]))
        title, created_at, updated_at, first_index, *stored = reply
        decoded = [_decode_message(data) for data in stored]
        readable = [message for message in decoded if message is not None]
        return Part(title.decode(), float(created_at), float(updated_at), first_index, readable)

    async def _feedback(
        self, owner: Principal, conversation_id: str, messages: Sequence[StoredMessage]
    ) -> dict[str, Feedback]:
        """Return the feedback on the messages by answer id."""
        answers = [message.id for message in messages if message.answer_id is not None]
        if not answers:
            return {}
        key = ConversationKeys(owner, conversation_id).answers
        stored = cast("list[bytes | None]", await self._breaker.call(lambda: self._redis.hmget(key, answers)))
        pairs = zip(answers, stored, strict=True)
        return {answer_id: msgspec.json.decode(data, type=Feedback) for answer_id, data in pairs if data}

    async def load_by_answer(self, owner: Principal, answer_id: str) -> Conversation:
        """Return the conversation of an answer, with at least the messages from the answer's question on.

        Raises:
            NotFound: the customer has no such answer.
        """
        key = answer_key(owner, answer_id)
        conversation_id = cast("bytes | None", await self._breaker.call(lambda: self._redis.get(key)))
        if conversation_id is None:
            raise NotFound("answer not found")
        return await self.load(owner, conversation_id.decode(), is_enough=partial(contains_exchange, answer_id))

    async def rate(self, owner: Principal, conversation_id: str, answer_id: str, feedback: Feedback) -> None:
        """Store the feedback on an answer, replacing earlier feedback.

        Raises:
            NotFound: the conversation has no such answer.
        """
        keys = [ConversationKeys(owner, conversation_id).answers]
        args = [msgspec.msgpack.encode({"answer_id": answer_id}), msgspec.json.encode(feedback)]
        if not await self._breaker.call(lambda: self._rate(keys=keys, args=args)):
            raise NotFound("answer not found")

    async def append(
        self, owner: Principal, conversation_id: str, messages: Sequence[StoredMessage], *, now: float
    ) -> bool:
        """Append messages; if the first is a question, create a missing conversation unless it was deleted.

        Return False, and write nothing, if the conversation does not exist and is not created.
        """
        keys = ConversationKeys(owner, conversation_id)
        options = {
            "conversation_id": conversation_id,
            "may_create": messages[0].role == "user",
            "title": title_of(messages[0].text),
            "now": repr(now),
            "keep_seconds": self._settings.keep_seconds,
            "most_messages": self._settings.most_messages,
            "most_conversations": self._settings.most_conversations,
            "owner": keys.owner,
        }
        args = [msgspec.msgpack.encode(options), *(msgspec.json.encode(message) for message in messages)]
        return bool(await self._breaker.call(lambda: self._append(keys=keys.for_scripts, args=args)))

    async def list(self, owner: Principal, *, limit: int, cursor: str | None = None) -> ConversationList:
        """Return up to `limit` of the owner's conversations after `cursor`, last changed first.

        Raises:
            BadRequest: invalid cursor.
        """
        last_id, last_change = ("", "") if cursor is None else read_cursor(cursor)
        # One more than requested shows whether there is a next page.
        options = {"owner": owner_prefix(owner), "limit": limit + 1, "last_id": last_id, "last_change": last_change}
        keys, args = [conversations_key(owner)], [msgspec.msgpack.encode(options)]
        reply = await self._breaker.call(lambda: self._list(keys=keys, args=args))
        listed = msgspec.msgpack.decode(reply, type=list[ListedConversation])
        page = listed[:limit]
        has_next_page = len(listed) > limit
        next_cursor = make_cursor(page[-1].id, page[-1].changed) if has_next_page else None
        summaries = tuple(Summary(c.id, c.title, float(c.created_at), float(c.changed)) for c in page)
        return ConversationList(summaries, next_cursor)

    async def delete(self, owner: Principal, conversation_id: str) -> None:
        """Delete a conversation; only the mark that its id is deleted stays, for `begin_within` seconds.

        Raises:
            NotFound: the customer has no such conversation.
        """
        keys = ConversationKeys(owner, conversation_id)
        options = {
            "conversation_id": conversation_id,
            "remember_seconds": self._settings.begin_within,
            "owner": keys.owner,
        }
        args = [msgspec.msgpack.encode(options)]
        if not await self._breaker.call(lambda: self._delete(keys=keys.for_scripts, args=args)):
            raise NotFound("there is no such conversation")


def owner_prefix(owner: Principal) -> str:
    """Return the prefix of an owner's keys; names are quoted, so that they cannot imitate another owner's prefix."""
    return f"history:{{{quote(owner.tenant, safe='')}}}:{quote(owner.sub, safe='')}"


def conversations_key(owner: Principal) -> str:
    """Return the key of an owner's list of conversations."""
    return f"{owner_prefix(owner)}:conversations"


def answer_key(owner: Principal, answer_id: str) -> str:
    """Return the key that holds the conversation id of an answer."""
    return f"{owner_prefix(owner)}:answer:{answer_id}"


class ConversationKeys:
    """The keys of one conversation; `for_scripts` has them in the order of the scripts' KEYS."""

    def __init__(self, owner: Principal, conversation_id: str) -> None:
        self.owner = owner_prefix(owner)
        self.conversation = f"{self.owner}:conversation:{conversation_id}"
        self.messages = f"{self.owner}:messages:{conversation_id}"
        self.answers = f"{self.owner}:answers:{conversation_id}"
        self.deleted = f"{self.owner}:deleted:{conversation_id}"
        self.for_scripts = (self.conversation, self.messages, conversations_key(owner), self.answers, self.deleted)


class ConversationIds:
    """Issues ids that prove their owner and time, so that a conversation may begin with an id that Redis does not have.

    An id has 8 hexadecimal digits of Unix seconds, 10 random ones, and 14 of an HMAC-SHA256 over these and the owner.
    """

    def __init__(self, key: str, *, begin_within: int) -> None:
        self._key = key.encode()
        self._begin_within = begin_within

    def new(self, owner: Principal, *, now: float) -> str:
        """Return a new id."""
        stamp = f"{int(now) & 0xFFFFFFFF:08x}{secrets.token_hex(5)}"
        return stamp + self._mac(owner, stamp)

    def may_begin(self, owner: Principal, conversation_id: str, *, now: float) -> bool:
        """Return whether the id was issued to this owner less than `begin_within` seconds ago."""
        stamp, mac = conversation_id[:18], conversation_id[18:]
        if not hmac.compare_digest(mac.encode(), self._mac(owner, stamp).encode()):
            return False
        issued_at = int(stamp[:8], 16)
        return now - issued_at < self._begin_within

    def _mac(self, owner: Principal, stamp: str) -> str:
        # JSON makes the encoding of tenant and sub unambiguous.
        signed = msgspec.json.encode(["conversation", owner.tenant, owner.sub, stamp])
        return hmac.digest(self._key, signed, "sha256").hex()[:14]


@dataclass(frozen=True, slots=True)
class Absent:
    """The conversation does not exist; `deleted`: it was deleted within `begin_within` seconds."""

    deleted: bool


@dataclass(frozen=True, slots=True)
class Part:
    """Messages of a conversation, oldest first; `first_index` is the index of the first of them."""

    title: str
    created_at: float
    updated_at: float
    first_index: int
    messages: list[StoredMessage]


def newest_versions(messages: Iterable[StoredMessage]) -> tuple[StoredMessage, ...]:
    """Return the last version of each message.

    A message is stored twice if its question is answered again or a Redis command is repeated.
    """
    return tuple({message.id: message for message in messages}.values())


def with_feedback(messages: Iterable[StoredMessage], ratings: Mapping[str, Feedback]) -> tuple[StoredMessage, ...]:
    """Return the messages with the feedback of each answer."""
    return tuple(msgspec.structs.replace(m, feedback=ratings[m.id]) if m.id in ratings else m for m in messages)


def contains_exchange(answer_id: str, messages: Sequence[StoredMessage]) -> bool:
    """Return whether the messages include an answer and its question."""
    by_id = {message.id: message for message in messages}
    answer = by_id.get(answer_id)
    return answer is not None and (answer.parent_id is None or answer.parent_id in by_id)


def message_index(cursor: str) -> int:
    """Parse the message index from a page's cursor.

    Raises:
        BadRequest: invalid cursor.
    """
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 9):
        raise BadRequest("invalid cursor: send the `next_cursor` of a page")
    return int(cursor)


def _decode_message(data: bytes) -> StoredMessage | None:
    """Decode a message, without its notices if one is of an unknown kind; return None if it is unreadable."""
    try:
        try:
            return msgspec.json.decode(data, type=StoredMessage)
        except msgspec.ValidationError:
            fields = msgspec.json.decode(data).items()
            return msgspec.convert({name: value for name, value in fields if name != "notices"}, StoredMessage)
    except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError):
        log.error("history_message_unreadable")  # noqa: TRY400  it may quote customer text
        return None


def title_of(text: str) -> str:
    """Return a question as one line of at most `TITLE_LENGTH` characters."""
    line = " ".join(text.split())
    return line if len(line) <= TITLE_LENGTH else f"{line[: TITLE_LENGTH - 1]}…"


def make_cursor(conversation_id: str, changed: str) -> str:
    return base64.urlsafe_b64encode(f"{changed} {conversation_id}".encode()).decode()


def read_cursor(cursor: str) -> tuple[str, str]:
    """Parse the id and the change time of the last listed conversation.

    Raises:
        BadRequest: invalid cursor.
    """
    try:
        decoded = base64.urlsafe_b64decode(cursor).decode()
    except (binascii.Error, ValueError):
        decoded = ""
    changed, _, conversation_id = decoded.partition(" ")
    if not CHANGE_TIME.fullmatch(changed):
        raise BadRequest("invalid cursor: send the `next_cursor` of a list")
    return conversation_id, changed


def path_to(messages: Sequence[StoredMessage], message_id: str | None) -> tuple[StoredMessage, ...]:
    """Return the branch that ends in `message_id`, beginning with its oldest stored message."""
    by_id = {message.id: message for message in messages}
    branch: list[StoredMessage] = []
    while message_id is not None and message_id in by_id:
        branch.append(by_id.pop(message_id))
        message_id = branch[-1].parent_id
    return tuple(reversed(branch))


def allowed_in_prompt(
    branch: Sequence[StoredMessage], is_withdrawn: Callable[[PassageRef], bool]
) -> tuple[StoredMessage, ...]:
    """Return the messages that a prompt may repeat: no question with a canned reply, and no such reply.

    An answer with a withdrawn passage is left out too, with its question, which would otherwise seem unanswered.
    """
    answers = {message.parent_id: message for message in branch if message.role == "assistant"}
    excluded: set[str] = set()
    for message in branch:
        if message.role != "user":
            continue
        answer = answers.get(message.id)
        has_withdrawn_passage = answer is not None and any(is_withdrawn(passage) for passage in answer.passages)
        if message.refused or has_withdrawn_passage:
            excluded.add(message.id)
            if answer is not None:
                excluded.add(answer.id)
    return tuple(message for message in branch if message.id not in excluded)


def window(messages: Sequence[MessageT], tokens_of: Callable[[str], int], budget: int) -> tuple[MessageT, ...]:
    """Return the newest messages that fit into `budget` tokens, in order, beginning with a question.

    If the newest exchange does not fit, keep only its question, because a follow-up may refer to it.
    """
    newest_first: list[MessageT] = []
    exchange: list[MessageT] = []
    for message in reversed(messages):
        exchange.append(message)
        if message.role == "assistant":
            continue
        tokens = sum(tokens_of(part.text) for part in exchange)
        if tokens > budget and not newest_first:
            exchange = [message]
            tokens = tokens_of(message.text)
        if tokens > budget:
            break
        newest_first += exchange
        budget -= tokens
        exchange = []
    return tuple(reversed(newest_first))
