import uuid
from datetime import date
from functools import partial

import msgspec
import pytest
from redis.asyncio import Redis

from chatbot.conversations.history import (
    Conversation,
    ConversationIds,
    Feedback,
    History,
    HistorySettings,
    StoredMessage,
    allowed_in_prompt,
    path_to,
    window,
)
from chatbot.errors import BadRequest, NotFound, RateLimited, StoreUnavailable
from chatbot.events import Citation, FinishReason, Notice, NoticeCode, PassageRef, Source
from chatbot.reads import Reads, ReadSettings
from chatbot.redis_client import RedisBreaker, RedisBreakerSettings
from knowledge.identity import Principal
from tests.chatbot.conftest import PATIENT
from tests.constants import settings_with

pytestmark = pytest.mark.anyio


def history_of(redis: Redis, **bounds: int) -> History:
    return History(redis, RedisBreaker(PATIENT), settings_with(HistorySettings, **bounds))


@pytest.fixture
def history(redis: Redis) -> History:
    return history_of(redis)


@pytest.fixture
def lee() -> Principal:
    return Principal(tenant=uuid.uuid4().hex, sub="lee")


def question(text: str = "예금 금리는?", *, parent: str | None = None, name: str = "q1") -> StoredMessage:
    return StoredMessage(id=name, parent_id=parent, role="user", text=text, at=100.0)


SOURCE = Source(
    n=1,
    document_id="d",
    version=2,
    title="정기예금",
    section="금리",
    page=None,
    effective_from=date(2026, 1, 1),
    score=0.5,
)
ANSWER = StoredMessage(
    id="a1",
    parent_id="q1",
    role="assistant",
    text="연 3.1%입니다.",
    at=101.5,
    answer_id="a1",
    sources=(SOURCE,),
    citations=(Citation(n=1, start=0, end=9, document_id="d", version=2, page=None, quote="연 3.1%"),),
    passages=(PassageRef(document_id="d", version=2, n=7),),
    notices=(Notice(code=NoticeCode.WITHHELD, text="한 문장을 뺐습니다."),),
    finish_reason=FinishReason.STOP,
    grounded=True,
)
UP = Feedback(rating="up", reasons=("clear",), comment="고마워요", at=102.0)
DOWN = Feedback(rating="down", reasons=(), comment="", at=103.0)


def answer(name: str, *, to: str) -> StoredMessage:
    return StoredMessage(id=name, parent_id=to, role="assistant", text="…", at=101.0, answer_id=name)


async def stored(redis: Redis, owner: Principal, conversation_id: str) -> list[str]:
    """Return the ids of the messages that are written of a conversation."""
    key = f"history:{{{owner.tenant}}}:{owner.sub}:messages:{conversation_id}"
    return [msgspec.json.decode(message)["id"] for message in await redis.lrange(key, 0, -1)]


async def keys_of(redis: Redis, owner: Principal) -> set[bytes]:
    return {key async for key in redis.scan_iter(match=f"*{owner.tenant}*")}


async def test_appended_messages_are_loaded_once(history: History, lee: Principal) -> None:
    assert await history.append(lee, "c1", [question()], now=100.25)
    assert await history.append(lee, "c1", [ANSWER], now=101.5)
    assert await history.load(lee, "c1") == Conversation("c1", "예금 금리는?", 100.25, 101.5, (question(), ANSWER))
    again = msgspec.structs.replace(ANSWER, text="…", finish_reason="cancelled")
    assert await history.append(lee, "c1", [again], now=2), "an answer stays as it was"
    assert (await history.load(lee, "c1")).messages == (question(), ANSWER)
    for _ in range(2):
        await history.append(lee, "c2", [question()], now=1)
    assert (await history.load(lee, "c2")).messages == (question(),), "what was written twice is read once"


async def test_unknown_fields_of_a_message_are_left_out(history: History, redis: Redis, lee: Principal) -> None:
    await history.append(lee, "c", [question(), ANSWER], now=100)
    later = msgspec.json.encode(ANSWER).replace(b'"withheld"', b'"of a later release"')
    [key] = [key async for key in redis.scan_iter(f"history:{{{lee.tenant}}}:lee:messages:*")]
    await redis.lset(key, 1, (later[:-1] + b',"since":2}').decode())
    await redis.rpush(key, b'{"id":7}', b"\xff no JSON", b"[]")
    loaded = await history.load(lee, "c")
    assert loaded.messages == (question(), msgspec.structs.replace(ANSWER, notices=()))


async def test_pages_are_bounded_and_lead_to_the_first_message(redis: Redis, lee: Principal) -> None:
    history = history_of(redis, page_bytes=1000, most_messages=12)
    for n in range(12):
        await history.append(lee, "c", [question("가" * (400 if n == 5 else 80), name=f"q{n}")], now=n)
    newest = await history.page(lee, "c")
    await history.append(lee, "c", [question("new", name="q12")], now=12)  # and the oldest leaves
    read, cursor = [message.id for message in newest.messages], newest.next_cursor
    while cursor is not None:
        page = await history.page(lee, "c", cursor=cursor)
        assert sum(len(msgspec.json.encode(m)) for m in page.messages) <= 1000 or len(page.messages) == 1
        read = [message.id for message in page.messages if message.id not in read] + read
        cursor = page.next_cursor
    assert read == [f"q{n}" for n in range(1, 12)]
    with pytest.raises(BadRequest):
        await history.page(lee, "c", cursor="-1")
    with pytest.raises(NotFound):
        await history.page(Principal(tenant=lee.tenant, sub="kim"), "c")


async def test_of_a_long_conversation_no_more_is_read_than_is_enough(redis: Redis, lee: Principal) -> None:
    history = history_of(redis, page_messages=3)
    for n in range(10):
        await history.append(lee, "c", [question(name=f"q{n}")], now=n)
    part = await history.load(lee, "c", is_enough=lambda messages: len(messages) >= 4)
    assert [message.id for message in part.messages] == [f"q{n}" for n in range(4, 10)]
    assert len((await history.load(lee, "c")).messages) == 10


async def test_reading_a_conversation_counts_against_the_byte_limit(redis: Redis, lee: Principal) -> None:
    reads = Reads(ReadSettings(bytes_per_minute=300))
    history = History(redis, RedisBreaker(PATIENT), HistorySettings(), reads=reads)
    await history.append(lee, "c", [question("가" * 100)], now=1)
    await history.load(lee, "c")
    with pytest.raises(RateLimited):
        await history.load(lee, "c")


async def test_somebody_elses_conversation_is_not_found(history: History, lee: Principal) -> None:
    await history.append(lee, "c1", [question()], now=1)
    tenant, other = lee.tenant, uuid.uuid4().hex
    owners = ((tenant, "kim"), (other, "lee"), (tenant, "lee:conversation"), (tenant, "lee}"), (tenant, "*"))
    for owner in (Principal(tenant=of, sub=sub) for of, sub in owners):
        for call in (history.load, history.delete):
            with pytest.raises(NotFound):
                await call(owner, "c1")
        assert (await history.list(owner, limit=10)).conversations == ()
    with pytest.raises(NotFound):
        await history.load(lee, "c1:messages")
    assert (await history.load(lee, "c1")).messages == (question(),)


async def test_a_deleted_conversation_leaves_its_id_only_and_stays_deleted(redis: Redis, lee: Principal) -> None:
    history = history_of(redis, begin_within=500)
    await history.append(lee, "c1", [question(), ANSWER], now=1)
    await history.rate(lee, "c1", "a1", UP)
    await history.delete(lee, "c1")
    [left] = await keys_of(redis, lee)
    assert left.endswith(b":deleted:c1")
    assert await redis.get(left) == b""
    assert await redis.ttl(left) in {499, 500}
    for late in (ANSWER, question(name="q2")):
        assert not await history.append(lee, "c1", [late], now=2)
    assert await keys_of(redis, lee) == {left}
    with pytest.raises(NotFound):
        await history.load_or_begin(lee, "c1", now=3)
    with pytest.raises(NotFound):
        await history.delete(lee, "c1")


async def test_an_answer_restores_a_lost_conversation(history: History, redis: Redis, lee: Principal) -> None:
    asked = msgspec.structs.replace(question(), answered_by="a1")
    await history.append(lee, "c1", [asked], now=1)
    await redis.delete(*await keys_of(redis, lee))
    for _ in range(2):  # however often it is sent
        assert await history.append(lee, "c1", [asked, ANSWER], now=2)
    assert await stored(redis, lee, "c1") == ["q1", "a1"]
    await history.delete(lee, "c1")
    assert not await history.append(lee, "c1", [asked, ANSWER], now=3), "forgotten is not deleted"


async def test_a_question_is_written_once_per_answer(history: History, redis: Redis, lee: Principal) -> None:
    asked = msgspec.structs.replace(question(), answered_by="a1")
    await history.append(lee, "c1", [asked], now=1)
    await history.append(lee, "c1", [question(text='"answered_by":"a1"', name="q2")], now=1)
    await history.append(lee, "c1", [msgspec.structs.replace(asked, answered_by="a2")], now=2)
    await history.append(lee, "c1", [asked, ANSWER], now=3)
    assert await stored(redis, lee, "c1") == ["q1", "q2", "q1", "a1"]


async def test_a_question_begins_an_unknown_conversation(history: History, lee: Principal) -> None:
    assert (await history.load_or_begin(lee, "c1", now=1)).messages == ()
    assert not await history.append(lee, "c1", [ANSWER], now=1)
    assert await history.append(lee, "c1", [question(parent="an answer that was not kept")], now=2)
    assert [m.id for m in (await history.load_or_begin(lee, "c1", now=3)).messages] == ["q1"]


async def test_only_the_latest_feedback_of_the_own_answer_counts(
    history: History, redis: Redis, lee: Principal
) -> None:
    await history.append(lee, "c1", [question(), ANSWER], now=1)
    for latest in (UP, DOWN):
        await history.rate(lee, "c1", "a1", latest)
        assert [message.feedback for message in (await history.load(lee, "c1")).messages] == [None, latest]
    before = await keys_of(redis, lee)
    for owner, conversation, name in (
        (Principal(tenant=lee.tenant, sub="kim"), "c1", "a1"),
        (lee, "c2", "a1"),
        (lee, "c1", "a2"),
        (lee, "c1", "q1"),
    ):
        with pytest.raises(NotFound):
            await history.rate(owner, conversation, name, UP)
    assert await keys_of(redis, lee) == before


async def test_an_answer_leads_to_its_conversation_however_far_back(redis: Redis, lee: Principal) -> None:
    history = history_of(redis, page_messages=2)
    await history.append(lee, "c1", [question(), ANSWER], now=1)
    await history.rate(lee, "c1", "a1", UP)
    for n in range(5):
        await history.append(lee, "c1", [question(name=f"later{n}")], now=n + 2)
    found = await history.load_by_answer(lee, "a1")
    assert found.message("a1") == msgspec.structs.replace(ANSWER, feedback=UP)
    assert found.message("q1") == question()
    for owner, name in ((Principal(tenant=lee.tenant, sub="kim"), "a1"), (lee, "a2"), (lee, "q1")):
        with pytest.raises(NotFound):
            await history.load_by_answer(owner, name)
    await history.delete(lee, "c1")
    with pytest.raises(NotFound):
        await history.load_by_answer(lee, "a1")


async def test_every_key_lives_as_long_as_its_conversation(redis: Redis, lee: Principal) -> None:
    history = history_of(redis, keep_seconds=500)
    await history.append(lee, "c1", [question(), ANSWER], now=1)
    for key in await keys_of(redis, lee):
        await redis.expire(key, 100)
    await history.append(lee, "c1", [question(name="q2", parent="a1")], now=2)
    assert {await redis.ttl(key) for key in await keys_of(redis, lee)} <= {499, 500}


async def test_the_list_has_the_last_changed_first_and_pages(history: History, lee: Principal) -> None:
    for n in range(7):
        await history.append(lee, f"c{n}", [question(f"질문\n{n} " + "가" * 100)], now=n + 0.1)
    await history.append(lee, "c2", [question("이어서", parent="q1", name="q2")], now=10)
    listed, cursor = [], None
    for size in (3, 3, 1):
        page = await history.list(lee, limit=3, cursor=cursor)
        assert len(page.conversations) == size
        listed += [summary.id for summary in page.conversations]
        cursor = page.next_cursor
    assert cursor is None
    assert listed == ["c2", "c6", "c5", "c4", "c3", "c1", "c0"]
    first = (await history.list(lee, limit=1)).conversations[0]
    assert (first.title, first.created_at, first.updated_at) == ("질문 2 " + "가" * 54 + "…", 2.1, 10)


async def test_a_page_goes_on_though_its_last_entry_went(history: History, lee: Principal) -> None:
    for n in range(6):
        await history.append(lee, f"c{n}", [question()], now=n)
    cursor = (await history.list(lee, limit=2)).next_cursor
    await history.append(lee, "c4", [question(parent="q1", name="q2")], now=50)
    after_change = await history.list(lee, limit=2, cursor=cursor)
    await history.delete(lee, "c4")
    after_delete = await history.list(lee, limit=2, cursor=cursor)
    assert [s.id for s in after_change.conversations] == [s.id for s in after_delete.conversations] == ["c3", "c2"]


async def test_only_the_newest_messages_and_conversations_are_stored(redis: Redis, lee: Principal) -> None:
    history = history_of(redis, most_messages=3, most_conversations=2)
    await history.append(lee, "c9", [question(name=f"q{n}") for n in range(5)], now=9)
    assert [m.id for m in (await history.load(lee, "c9")).messages] == ["q2", "q3", "q4"]
    for n in range(4):
        await history.append(lee, f"c{n}", [question()], now=10 + n)
    assert [s.id for s in (await history.list(lee, limit=10)).conversations] == ["c3", "c2"]
    assert len(await keys_of(redis, lee)) == 5
    for n in range(3):
        await history.append(lee, "c4", [question(name=f"q{n}"), answer(f"a{n}", to=f"q{n}")], now=20 + n)
    assert len([key for key in await keys_of(redis, lee) if b":answer:" in key]) == 2, "of the answers that are kept"
    for n in (5, 6):
        await history.append(lee, f"c{n}", [question()], now=30 + n)
    assert not [key for key in await keys_of(redis, lee) if b":answer" in key]


async def test_an_expired_conversation_is_not_listed(redis: Redis, lee: Principal) -> None:
    history = history_of(redis)
    for n in range(3):
        await history.append(lee, f"c{n}", [question()], now=n)
    for key in await keys_of(redis, lee):
        if key.endswith(b":c2"):
            await redis.delete(key)
    page = await history.list(lee, limit=1)
    assert [s.id for s in page.conversations] == ["c1"]
    assert [s.id for s in (await history.list(lee, limit=1, cursor=page.next_cursor)).conversations] == ["c0"]


async def test_without_redis_only_an_invalid_cursor_is_a_bad_request(nowhere: Redis, lee: Principal) -> None:
    history = History(nowhere, RedisBreaker(RedisBreakerSettings()), HistorySettings())
    for call in (
        partial(history.load, lee, "c1"),
        partial(history.append, lee, "c1", [question()], now=1),
        partial(history.list, lee, limit=1),
        partial(history.delete, lee, "c1"),
    ):
        with pytest.raises(StoreUnavailable):
            await call()
    for cursor in ("", "%%", "bm9uZQ==", "bmFuIGM=", "MV8wIGM=", "é", "AA"):
        with pytest.raises(BadRequest):
            await history.list(lee, limit=3, cursor=cursor)


def test_an_id_may_begin_a_conversation_lately_and_for_its_owner_only() -> None:
    ids, lee = ConversationIds("a key", begin_within=100), Principal(tenant="bank", sub="lee")
    given = ids.new(lee, now=1000.9)
    assert len(given) == 32
    assert int(given, 16)
    assert given != ids.new(lee, now=1000.9)
    assert ids.may_begin(lee, given, now=1099)
    assert not ids.may_begin(lee, given, now=1100)
    for other in (
        Principal(tenant="bank", sub="kim"),
        Principal(tenant="bank2", sub="lee"),
        Principal(tenant="bank2lee", sub=""),
        Principal(tenant="", sub="bank2lee"),
    ):
        assert not ids.may_begin(other, given, now=1001)
    later = f"{2000:08x}{given[8:]}"
    for forged in (later, uuid.uuid4().hex, "0" * 32, "", given[:-1], "é" * 32):
        assert not ids.may_begin(lee, forged, now=2000)
    assert not ConversationIds("another key", begin_within=100).may_begin(lee, given, now=1001)


@pytest.mark.parametrize(
    ("budget", "ids"),
    [(40, ["q1", "a1", "q2", "a2"]), (30, ["q2", "a2"]), (20, ["q2", "a2"]), (19, ["q2"]), (9, [])],
    ids=["everything", "no answer first", "the newest", "without a too long answer", "nothing"],
)
def test_a_window_begins_at_a_question_and_ends_at_the_newest(budget: int, ids: list[str]) -> None:
    talk = [question(name="q1"), answer("a1", to="q1"), question(name="q2"), answer("a2", to="q2")]
    assert [message.id for message in window(talk, lambda _: 10, budget)] == ids


def test_a_branch_is_the_way_from_its_first_question() -> None:
    tree = [
        question(name="q1"),
        question(name="a1", parent="q1"),
        question(name="q2", parent="a1"),
        question(name="q2b", parent="a1"),
        question(name="a2b", parent="q2b"),
    ]
    assert [m.id for m in path_to(tree, "a2b")] == ["q1", "a1", "q2b", "a2b"]
    assert path_to(tree, None) == ()
    assert [m.id for m in path_to(tree[2:], "q2")] == ["q2"]
    assert [m.id for m in path_to([question(name="x", parent="x")], "x")] == ["x"]


def asked(name: str, *, parent: str | None = None, refused: str = "") -> StoredMessage:
    return msgspec.structs.replace(question(name=name, parent=parent), refused=refused)


def answered(name: str, to: str, *, finish: str = "stop", document: str = "deposit") -> StoredMessage:
    behind = (PassageRef(document_id=document, version=1, n=0),)
    return StoredMessage(
        id=name, parent_id=to, role="assistant", text="…", at=1.0, passages=behind, finish_reason=finish
    )


def test_refused_questions_and_their_answers_are_in_no_later_prompt() -> None:
    branch = (
        asked("q1"),
        answered("a1", "q1"),
        asked("q2", parent="a1", refused="injection"),
        answered("a2", "q2", finish="refused"),
        asked("q3", parent="a2"),
        answered("a3", "q3", finish="refused"),  # the documents did not answer it: nothing is wrong with the question
    )
    assert [message.id for message in allowed_in_prompt(branch, lambda _: False)] == ["q1", "a1", "q3", "a3"]
    assert allowed_in_prompt((asked("q1", refused="injection"),), lambda _: False) == (), "it is still being answered"


def test_an_answer_from_a_withdrawn_document_is_left_out_with_its_question() -> None:
    branch = (asked("q1"), answered("a1", "q1", document="old"), asked("q2", parent="a1"), answered("a2", "q2"))
    kept = allowed_in_prompt(branch, lambda passage: passage.document_id == "old")
    assert [message.id for message in kept] == ["q2", "a2"]
