"""What every engine promises. `test_edge` and `test_server` inherit it, each with its own `engine` and `again`."""

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knowledge.access import Access
from knowledge.index.collection import collections_of, ensure_collection, next_collection, target_to_read
from knowledge.index.engine import (
    CollectionGone,
    EmbedderMismatch,
    Engine,
    IndexUnavailable,
    Query,
    StoredPoint,
    Vectors,
)
from knowledge.index.filters import Above, AtMost, Equals, Filter
from knowledge.index.index import visible_filter
from knowledge.terms import SparseTerms
from tests.knowledge.index.points import VECTORS, point, point_id

pytestmark = pytest.mark.anyio

EVERYTHING = Filter(must=(Equals("tenant", "hanbit"),))
OpenAgain = Callable[[], AbstractAsyncContextManager[Engine]]

TENANTS = st.sampled_from([*["hanbit"] * 6, "hanbit2", "HANBIT", ""])
GROUPS = st.sampled_from([*["customers"] * 4, "staff", "vip", "customers ", "", "고객", "a/b:c*"])
INSTANTS = st.sampled_from([0.0, 99.999, 100.0, 100.001, 1_790_000_000.5, 1_790_000_000.123457])
PAYLOADS = st.lists(
    st.fixed_dictionaries(
        {
            "tenant": TENANTS,
            "readers": st.lists(GROUPS, max_size=3),
            "visible_from": st.none() | INSTANTS,
            "visible_until": st.none() | INSTANTS,
        }
    ),
    min_size=1,
    max_size=12,
)
ACCESS = st.builds(
    lambda tenant, groups, as_of: Access(tenant=tenant, groups=groups, as_of=as_of),
    TENANTS,
    st.frozensets(GROUPS, max_size=3),
    INSTANTS,
)


def near(filter_: Filter = EVERYTHING, *, limit: int = 10) -> Query:
    return Query(vector=[1.0, 0.0, 0.0, 0.0], filter=filter_, limit=limit)


def holding(*terms: int, filter_: Filter = EVERYTHING, limit: int = 10, corpus: Filter | None = None) -> Query:
    return Query(vector=SparseTerms(terms, (1.0,) * len(terms)), filter=filter_, limit=limit, corpus=corpus)


def may_read(payload: dict[str, Any], access: Access) -> bool:
    """The rule in plain words: same tenant, a common group, approved, begun and not ended."""
    since, until = payload["visible_from"], payload["visible_until"]
    return (
        payload["tenant"] == access.tenant
        and not access.groups.isdisjoint(payload["readers"])
        and since is not None
        and since <= access.as_of
        and (until is None or access.as_of < until)
    )


class EngineConformance:
    """The promises; `name` is a collection of VECTORS, of so many `shards`, that is empty when a test begins."""

    @pytest.fixture
    def shards(self) -> int:
        return 1

    @pytest.fixture
    async def name(self, engine: Engine, alias: str) -> str:
        return await ensure_collection(engine, alias=alias, vectors=VECTORS)

    async def ids(self, engine: Engine, name: str, only: Filter = EVERYTHING) -> set[str]:
        return {read.id for read in (await engine.page(name, only, limit=10_000))[0]}

    # Filters

    async def test_the_filter_passes_exactly_the_readable_points(self, engine: Engine, name: str) -> None:
        read = 0

        @settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(PAYLOADS, st.lists(ACCESS, min_size=1, max_size=8))
        def draw(payloads: list[dict[str, Any]], accesses: list[Access]) -> None:
            examples.append((payloads, accesses))

        examples: list[tuple[list[dict[str, Any]], list[Access]]] = []
        draw()
        for payloads, accesses in examples:
            for tenant in ("hanbit", "hanbit2", "HANBIT", ""):
                await engine.delete(name, Filter(must=(Equals("tenant", tenant),)))
            await engine.upsert(name, [point(n, **payload) for n, payload in enumerate(payloads)])
            for access in accesses:
                only = visible_filter(access)
                readable = {point_id(n) for n, payload in enumerate(payloads) if may_read(payload, access)}
                near_ones, with_term = await engine.search(
                    name, [near(only, limit=20), holding(*range(12), filter_=only)]
                )
                assert set(near_ones) == readable
                assert set(with_term) <= readable
                assert await self.ids(engine, name, only) == readable
                assert await engine.count(name, only) == len(readable)
                read += bool(readable)
        assert read > 0, f"{read} of {len(examples)}: too few of the examples had anything to read"

    async def test_an_instant_is_compared_to_the_microsecond(self, engine: Engine, name: str) -> None:
        begins = [1_790_000_000 + n * 0.137911 for n in range(200)]
        begins = [round(instant, 6) for instant in begins]
        await engine.upsert(name, [point(n, visible_from=begin) for n, begin in enumerate(begins)])
        for n in range(0, 200, 7):
            assert await engine.count(name, EVERYTHING.narrowed(AtMost("visible_from", begins[n]))) == n + 1
            before = round(begins[n] - 1e-6, 6)
            assert await engine.count(name, EVERYTHING.narrowed(AtMost("visible_from", before))) == n
            assert await engine.count(name, EVERYTHING.narrowed(Above("visible_from", begins[n]))) == 199 - n

    # Points

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "한빛은행 예금\n표 | 1 | 2",
            "\u0000\u0001\x1b[0m",
            "👩‍👩‍👧‍👦 e\u0301 ﷺ \u202e",
            '"}]{"$ref": 1}\\',
            "가" * 20_000,
        ],
        ids=["empty", "space", "Korean", "control", "astral", "JSON", "long"],
    )
    async def test_any_text_comes_back_as_it_was_written(self, engine: Engine, name: str, text: str) -> None:
        payload: dict[str, Any] = {
            "text": text,
            "title": text,
            "document_id": text,
            "readers": [text],
            "page": None,
            "version": 2**53 - 1,
        }
        await engine.upsert(name, [point(1, **payload)])
        (stored,) = await engine.read(name, [point_id(1)])
        assert dict(stored.payload) == {"tenant": "hanbit", "n": 1, **payload}
        if text:
            assert await self.ids(engine, name, Filter(must=(Equals("document_id", text),))) == {point_id(1)}

    async def test_only_what_is_asked_is_read(self, engine: Engine, name: str) -> None:
        await engine.upsert(name, [point(0, text="a", dense=[0.0, 3.0, 4.0, 0.0])])
        absent = point_id(99)
        (fields,) = await engine.read(name, [point_id(0), absent], fields=["text"])
        assert fields == StoredPoint(id=point_id(0), payload={"text": "a"})
        (dense,) = await engine.read(name, [point_id(0)], dense=True)
        assert list(dense.dense) == pytest.approx([0.0, 0.6, 0.8, 0.0], abs=1e-6), "vectors are stored with length 1"
        assert await engine.read(name, []) == []

    async def test_a_point_written_again_replaces_the_former(self, engine: Engine, name: str) -> None:
        await engine.upsert(name, [point(1, terms={5: 1.0}, text="old", visible_from=1.0)])
        await engine.upsert(name, [point(1, terms={6: 1.0}, text="new")])
        assert [dict(read.payload) for read in await engine.read(name, [point_id(1)])] == [
            {"tenant": "hanbit", "n": 1, "text": "new"}
        ]
        former, new = await engine.search(name, [holding(5), holding(6)])
        assert (former, list(new)) == ({}, [point_id(1)])
        assert await engine.count(name, EVERYTHING) == 1

    async def test_fields_are_set_where_the_filter_matches_and_the_others_stay(self, engine: Engine, name: str) -> None:
        await engine.upsert(name, [point(n, version=n % 2, text="a", visible_from=5.5) for n in range(10)])
        odd = EVERYTHING.narrowed(Equals("version", 1))
        await engine.set_payload(name, odd, {"visible_from": 7.25, "visible_until": None})
        assert await self.ids(engine, name, EVERYTHING.narrowed(AtMost("visible_from", 6))) == {
            point_id(n) for n in range(0, 10, 2)
        }
        await engine.set_payload(name, odd, {"visible_from": None})
        for read in (await engine.page(name, odd, limit=10))[0]:
            assert (read.payload.get("visible_from"), read.payload["text"]) == (None, "a")
        assert await engine.count(name, EVERYTHING.narrowed(AtMost("visible_from", 1e12))) == 5

    async def test_only_what_passes_the_filter_is_deleted(self, engine: Engine, name: str) -> None:
        await engine.upsert(name, [point(n, tenant="ab"[n % 2], version=n // 2) for n in range(8)])
        await engine.delete(name, Filter(must=(Equals("tenant", "a"), Equals("version", 1))))
        left = [await engine.count(name, Filter(must=(Equals("tenant", tenant),))) for tenant in "ab"]
        assert left == [3, 4]
        assert await engine.counts(name, field="tenant", limit=2) == {"b": 4, "a": 3}
        assert set(*await engine.search(name, [near(Filter(must=(Equals("tenant", "a"),)))])) == {
            point_id(0), point_id(4), point_id(6)
        }  # fmt: skip

    async def test_pages_hold_every_point_once_in_the_order_of_ids(self, engine: Engine, name: str) -> None:
        await engine.upsert(name, [point(n, version=n % 3) for n in range(100)])
        only, ids, after = EVERYTHING.narrowed(Equals("version", 1)), list[str](), None
        while True:
            points, after = await engine.page(name, only, limit=7, after=after)
            ids += [read.id for read in points]
            if after is None:
                break
        assert ids == sorted(point_id(n) for n in range(1, 100, 3))

    # Scores

    async def test_the_nearest_come_first_with_their_cosine(self, engine: Engine, name: str) -> None:
        await engine.upsert(name, [point(n) for n in range(50)])
        (scores,) = await engine.search(name, [near(limit=5)])
        assert list(scores) == [point_id(n) for n in range(5)]
        assert list(scores.values()) == pytest.approx([math.cos(n * 0.003) for n in range(5)], abs=1e-5)

    async def test_terms_weigh_by_their_idf_among_the_points_of_the_corpus(
        self, engine: Engine, name: str, shards: int
    ) -> None:
        # Of the tenant's 10 points 2 hold term 7, of the other tenant's 30 all do.
        points = [point(n, terms={9: 1.0, **({7: 2.0} if n in (3, 4) else {})}) for n in range(10)]
        await engine.upsert(name, [*points, *(point(n, terms={7: 1.0}, tenant="other") for n in range(10, 40))])
        rare, everywhere = await engine.search(name, [holding(7, corpus=EVERYTHING), holding(7)])
        assert set(rare) == set(everywhere) == {point_id(3), point_id(4)}
        assert all(rare[point] > everywhere[point] for point in rare)
        if shards > 1:  # each counts its own points
            return
        assert rare == pytest.approx({point_id(n): 2 * math.log(1 + 8.5 / 2.5) for n in (3, 4)}, rel=1e-4)
        assert everywhere == pytest.approx({point_id(n): 2 * math.log(1 + 8.5 / 32.5) for n in (3, 4)}, rel=1e-4)

    async def test_an_empty_collection_finds_nothing(self, engine: Engine, name: str) -> None:
        assert await engine.search(name, [near(), holding(1)]) == [{}, {}]
        assert await engine.count(name, EVERYTHING) == 0
        assert await engine.counts(name, field="tenant", limit=2) == {}

    async def test_invalid_vectors_and_texts_are_refused_and_change_nothing(self, engine: Engine, name: str) -> None:
        await engine.upsert(name, [point(1)])
        with pytest.raises(IndexUnavailable):
            await engine.upsert(name, [replace(point(2), dense=[1.0, 0.0])])
        with pytest.raises(IndexUnavailable):
            await engine.search(name, [Query(vector=[1.0], filter=EVERYTHING, limit=1)])
        surrogate = Filter(must=(Equals("tenant", "\ud800"),))
        for call in (
            lambda: engine.upsert(name, [point(2, text="\ud800")]),
            lambda: engine.count(name, surrogate),
            lambda: engine.page(name, surrogate, limit=1),
            lambda: engine.set_payload(name, surrogate, {"text": "\ud800"}),
        ):
            with pytest.raises(IndexUnavailable):
                await call()
        assert await self.ids(engine, name) == {point_id(1)}

    # Collections

    async def test_a_collection_that_is_not_there_is_unavailable(self, engine: Engine, alias: str) -> None:
        nowhere = f"{alias}-77"
        for call in (
            lambda: engine.search(nowhere, [near()]),
            lambda: engine.upsert(nowhere, [point(1)]),
            lambda: engine.vectors_of(nowhere),
        ):
            with pytest.raises(IndexUnavailable):
                await call()
        await engine.drop(nowhere)

    async def test_the_embedder_is_kept_with_the_collection(self, engine: Engine, name: str, alias: str) -> None:
        assert await engine.vectors_of(name) == VECTORS
        for other in (Vectors("other", 4), Vectors("e5-small", 8)):
            with pytest.raises(EmbedderMismatch, match=r"ingest reindex|8"):
                await ensure_collection(engine, alias=alias, vectors=other)

    async def test_readers_never_find_half_a_collection_while_the_alias_is_switched(
        self, engine: Engine, name: str, alias: str
    ) -> None:
        await engine.upsert(name, [point(n, text="old") for n in range(30)])
        seen: list[set[str]] = []
        switched = anyio.Event()

        async def read() -> None:
            present: str | None = name
            done = False
            while not done:
                done = switched.is_set()
                present = await target_to_read(engine, alias=alias, current=present, embedder="e5-small")
                assert present is not None
                (scores,) = await engine.search(present, [near(limit=100)])
                points = await engine.read(present, list(scores), fields=["text"])
                seen.append({f"{len(points)} {read.payload['text']}" for read in points})

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(read)
            filled = await next_collection(engine, alias=alias, vectors=VECTORS)
            for start in range(0, 40, 8):
                await engine.upsert(filled, [point(n, text="new") for n in range(start, start + 8)])
            await engine.point_alias(alias, filled)
            switched.set()
        assert await engine.alias_target(alias) == filled
        assert {len(texts) for texts in seen} == {1}
        assert set.union(*seen) == {"30 old", "40 new"}
        assert await collections_of(engine, alias) == {name: "e5-small", filled: "e5-small"}
        await engine.drop(name)
        assert await collections_of(engine, alias) == {filled: "e5-small"}
        with pytest.raises(CollectionGone):
            await engine.search(name, [near(limit=100)])
        with pytest.raises(CollectionGone):
            await engine.read(name, [point_id(1)])

    async def test_writers_and_readers_at_once_lose_nothing(self, engine: Engine, name: str) -> None:
        async def write(start: int) -> None:
            for n in range(start, start + 100, 20):
                await engine.upsert(name, [point(m, version=start) for m in range(n, n + 20)])
                (scores,) = await engine.search(name, [near(EVERYTHING.narrowed(Equals("version", start)), limit=200)])
                assert len(scores) == n + 20 - start, "a search misses what was acknowledged before it"
            await engine.set_payload(name, EVERYTHING.narrowed(Equals("version", start)), {"visible_from": 1.0})

        async with anyio.create_task_group() as tasks:
            for start in range(0, 400, 100):
                tasks.start_soon(write, start)
        assert await engine.count(name, EVERYTHING.narrowed(AtMost("visible_from", 1.0))) == 400

    async def test_written_points_survive_a_restart(
        self, engine: Engine, name: str, alias: str, again: OpenAgain
    ) -> None:
        await engine.upsert(name, [point(n, version=n) for n in range(20)])
        await engine.delete(name, EVERYTHING.narrowed(Equals("version", 3)))
        await engine.set_payload(name, EVERYTHING.narrowed(Equals("version", 4)), {"text": "set"})
        before = await engine.page(name, EVERYTHING, limit=100)
        async with again() as reopened:
            assert await reopened.alias_target(alias) == name
            assert await reopened.vectors_of(name) == VECTORS
            assert await reopened.page(name, EVERYTHING, limit=100) == before
