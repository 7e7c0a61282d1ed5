from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import anyio
import pytest
from blockbuster import blockbuster_ctx
from pydantic import ValidationError

from knowledge.embedding import Embedder, EmbeddingUnavailable
from knowledge.index import EmbedderMismatch, Index, IndexSettings, IndexUnavailable, indexed_text, open_index
from knowledge.index.collection import collections_of
from knowledge.index.filters import Equals, Filter
from knowledge.passage import Hit
from knowledge.terms import Terms
from tests.knowledge.conftest import BANK, CUSTOMER, numbered
from tests.tiny_embedder import Renamed

pytestmark = pytest.mark.anyio

CORPUS = (
    "정기예금의 중도해지 이율은 가입 기간에 따라 연 0.5%에서 1.0%입니다.",
    "자유적금은 매월 최대 500,000원까지 넣을 수 있습니다.",
    "해외 송금 수수료는 건당 10,000원입니다.",
    "The annual fee of the Hanbit Travel Card is KRW 30,000.",
    "A lost card is blocked at once by calling 1588-0000.",
    "Mortgage loans are repaid in equal monthly instalments.",
)


def assert_same(hits: list[Hit], others: list[Hit]) -> None:
    """The same passages in the same order, with scores that differ by rounding at most."""
    assert [hit.passage for hit in hits] == [hit.passage for hit in others]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in others], abs=1e-4)


@pytest.mark.parametrize(
    ("question", "n"),
    [
        ("예금을 일찍 해지하면 이자는 얼마나 받나요?", 0),
        ("외국으로 돈을 보내는 데 드는 비용", 2),
        ("How much does the travel card cost a year?", 3),
        ("카드를 잃어버렸어요", 4),
        ("1588-0000", 4),
    ],
)
async def test_a_question_finds_its_passage_by_meaning_or_by_terms(index: Index, question: str, n: int) -> None:
    await index.upsert(numbered(*CORPUS))
    hits = await index.search(question, access=CUSTOMER, limit=3)
    assert hits[0].passage.n == n
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(-1 <= hit.dense <= 1 and hit.terms >= 0 for hit in hits)


async def test_a_tenant_beside_another_is_searched_as_if_it_were_alone(
    tmp_path: Path, index: Index, embedder: Embedder, terms: Terms
) -> None:
    questions = ("해외 송금 수수료", "정기예금 중도해지 이율", "annual fee of the travel card", "카드 lost 1588-0000")
    await index.upsert(numbered(*CORPUS))
    foreign = [replace(passage, tenant="other", document_id=f"f{passage.n}") for passage in numbered(*CORPUS[2:5] * 9)]
    async with open_index(IndexSettings(path=tmp_path / "shared"), embedder, terms) as beside:
        await beside.upsert([*foreign, *numbered(*CORPUS)])
        for question in questions:
            alone = await index.search(question, access=CUSTOMER, limit=6)
            shared = await beside.search(question, access=CUSTOMER, limit=6)
            assert_same(shared, alone)
            assert [hit.terms for hit in shared] == pytest.approx([hit.terms for hit in alone], rel=1e-4)
            assert any(hit.terms for hit in alone)


async def test_title_and_section_are_found_too(index: Index) -> None:
    hidden = replace(
        BANK, title="한빛 직장인 신용대출", section="한도", text="최대 1억 원까지입니다.", document_id="loan"
    )
    await index.upsert([*numbered(*CORPUS), hidden])
    assert (await index.search("직장인 신용대출 한도", access=CUSTOMER, limit=1))[0].passage == hidden
    assert indexed_text(hidden).splitlines() == ["한빛 직장인 신용대출", "한도", "최대 1억 원까지입니다."]


async def test_terms_of_an_earlier_question_break_a_tie(index: Index) -> None:
    await index.upsert(numbered("OTP 수수료는 5,000원입니다.", "인증서 수수료는 5,000원입니다."))
    for before, n in (("OTP 발급 방법이 궁금해요", 0), ("인증서 발급 방법이 궁금해요", 1)):
        hits = await index.search("수수료는요?", access=CUSTOMER, limit=1, earlier=before)
        assert hits[0].passage.n == n


async def test_a_hit_that_only_terms_found_has_its_cosine_too(tmp_path: Path, embedder: Embedder, terms: Terms) -> None:
    settings = IndexSettings.model_validate({"path": tmp_path, "fusion": {"candidates": 2, "dense_weight_ko": 0}})
    (question,) = await embedder.embed_queries(["수수료 12345"])
    near, far = [*question[:-1], -question[-1]], [*question[1:], question[0]]
    async with open_index(settings, embedder, terms) as index:
        await index.upsert(numbered("같은 뜻", "수수료 안내", "수수료 12345"), [question, near, far])
        by_terms = await index.search("수수료 12345", access=CUSTOMER, limit=2)
    assert by_terms[0].passage.n == 2
    assert by_terms[0].dense == pytest.approx(sum(a * b for a, b in zip(question, far, strict=True)), abs=1e-3)


async def test_a_passage_comes_back_as_it_was_written(index: Index) -> None:
    written = replace(
        BANK,
        n=3,
        section="이율 > 표",
        page=7,
        product="정기예금",
        readers=("vip", "customers"),
        effective_from=date(2026, 1, 1),
        visible_until=1_900_000_000.25,
    )
    await index.upsert([written])
    assert await index.passages(tenant="hanbit", document_id="deposit", version=1) == [written]
    assert await index.passage(document_id="deposit", version=1, n=3, access=CUSTOMER) == written
    assert await index.passage(document_id="deposit", version=1, n=4, access=CUSTOMER) is None


async def test_a_version_is_found_within_its_visibility(index: Index) -> None:
    old = [replace(BANK, document_id="rates", version=1)]
    new = [replace(BANK, document_id="rates", version=2, visible_from=None)]
    await index.upsert([*old, *new])
    rates = {"tenant": "hanbit", "document_id": "rates"}

    async def versions(at: float) -> list[int]:
        hits = await index.search("중도해지 이율", access=replace(CUSTOMER, as_of=at), limit=5)
        return [hit.passage.version for hit in hits]

    assert await versions(300) == [1]
    await index.set_visibility(**rates, version=2, visible_from=250, visible_until=None)
    await index.set_visibility(**rates, version=1, visible_from=100, visible_until=250)
    assert [await versions(at) for at in (99, 100, 249.999, 250, 300)] == [[], [1], [1], [2], [2]]
    await index.set_visibility(**rates, version=2, visible_from=None, visible_until=None)
    assert await versions(300) == []


async def test_readers_follow_the_alias_to_a_collection_that_was_filled_beside(index: Index) -> None:
    await index.upsert(numbered(*CORPUS))
    filled = await index.next_index()
    assert (index.collection, filled.collection) == ("kb-1", "kb-2")
    assert await index.search("수수료", access=CUSTOMER, limit=3)
    await index.switch_to(filled)
    assert index.collection == filled.collection
    assert await index.search("수수료", access=CUSTOMER, limit=3) == []
    await index.upsert(numbered(*CORPUS))
    assert await index.search("수수료", access=CUSTOMER, limit=3)
    third = await index.next_index()
    await index.switch_to(third)
    assert set(await collections_of(index._engine, "kb")) == {"kb-2", "kb-3"}


_FIRST: dict[str, Any] = {"document_id": "deposit", "version": 1}


READS: dict[str, Callable[[Index], Awaitable[object]]] = {
    "search": lambda reader: reader.search("수수료", access=CUSTOMER, limit=3),
    "passage": lambda reader: reader.passage(**_FIRST, n=1, access=CUSTOMER),
    "passages": lambda reader: reader.passages(**_FIRST, tenant="hanbit"),
    "count": lambda reader: reader.count(**_FIRST, tenant="hanbit"),
    "count_differing": lambda reader: reader.count_differing([replace(numbered(*CORPUS)[0], text="another")]),
}


async def test_a_reader_that_missed_two_switches_looks_again(index: Index) -> None:
    await index.upsert(numbered(*CORPUS))
    readers = {
        name: Index(index._engine, index._embedder, index.terms, index._settings, collection="kb-1") for name in READS
    }
    for reader in readers.values():
        await reader.ping()  # it has just looked
    for _ in range(2):
        filled = await index.next_index()
        await filled.upsert(numbered(*CORPUS))
        await index.switch_to(filled)
    for name, reader in readers.items():
        assert await READS[name](reader), name
        assert reader.collection == "kb-3"


async def test_during_a_reindex_writes_go_to_both_collections(index: Index) -> None:
    await index.upsert(numbered(*CORPUS[:1]))
    filled = await index.next_index()
    version: dict[str, Any] = {"tenant": "hanbit", "document_id": "deposit", "version": 1}
    assert await filled.count(**version) == 0
    await index.upsert(numbered(*CORPUS))
    await index.set_visibility(**version, visible_from=1.0, visible_until=2.0)
    assert {p.visible_until for p in await filled.passages(**version)} == {2.0}
    assert await filled.passages(**version) == await index.passages(**version)
    await index.delete(**version)
    assert (await filled.count(**version), await index.count(**version)) == (0, 0)


async def test_a_reader_stays_with_its_own_embedders_collection(
    tmp_path: Path, embedder: Embedder, terms: Terms
) -> None:
    other = Renamed(embedder, name="other", dimensions=384)
    async with open_index(IndexSettings(path=tmp_path), embedder, terms) as index:
        await index.upsert(numbered(*CORPUS))
        mine = Index(index._engine, other, terms, IndexSettings(path=tmp_path), collection="kb-1")
        filled = await mine.next_index()
        await mine.switch_to(filled)
        index._alias_checked_at = 0.0
        assert await index.search("수수료", access=CUSTOMER, limit=3)
        assert index.collection == "kb-1"
        await index.set_visibility(
            tenant="hanbit", document_id="deposit", version=1, visible_from=1.0, visible_until=CUSTOMER.as_of
        )
        assert await index.search("수수료", access=CUSTOMER, limit=3) == []
    with pytest.raises(EmbedderMismatch):
        async with open_index(IndexSettings(path=tmp_path), embedder, terms):
            pass
    async with open_index(IndexSettings(path=tmp_path), embedder, terms, check=False) as again:
        assert again.collection == "kb-2"


async def test_an_invalid_passage_makes_the_search_unavailable(index: Index) -> None:
    await index.upsert(numbered(*CORPUS[:1]))
    await index._engine.set_payload("kb-1", Filter(must=(Equals("tenant", "hanbit"),)), {"n": "three"})
    with pytest.raises(IndexUnavailable, match="not a valid passage"):
        await index.search("이율", access=CUSTOMER, limit=1)


async def test_an_embedder_that_fails_makes_the_search_unavailable(
    index: Index, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: list[str]) -> list[list[float]]:
        raise EmbeddingUnavailable

    monkeypatch.setattr(embedder, "embed_queries", fail)
    monkeypatch.setattr(embedder, "embed_passages", fail)
    with pytest.raises(IndexUnavailable, match="question"):
        await index.search("수수료", access=CUSTOMER, limit=1)
    with pytest.raises(IndexUnavailable, match="passages"):
        await index.upsert(numbered("a"))


@pytest.mark.parametrize("place", [{}, {"path": "x", "url": "http://127.0.0.1:1"}], ids=str)
def test_an_index_has_exactly_one_place(place: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        IndexSettings.model_validate(place)


async def test_neither_a_search_nor_a_write_blocks_the_loop(index: Index) -> None:
    passages = numbered(*CORPUS)
    with blockbuster_ctx():
        await index.upsert(passages)
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(lambda: index.search("수수료는 얼마인가요?", access=CUSTOMER, limit=3))
        await index.set_visibility(
            tenant="hanbit", document_id="deposit", version=1, visible_from=1.0, visible_until=None
        )
        await index.ping()


async def test_a_question_without_terms_is_still_answered_by_meaning(index: Index) -> None:
    await index.upsert(numbered(*CORPUS))
    hits = await index.search("what is it about?", access=CUSTOMER, limit=2)
    assert len(hits) == 2
    assert {hit.terms for hit in hits} == {0.0}


async def test_the_staff_view_lists_a_long_version_in_order(index: Index) -> None:
    many = [replace(BANK, n=n, text=f"문단 {n}", visible_from=None) for n in range(300)]
    await index.upsert(many, [[1.0] + [0.0] * 383] * 300)
    assert await index.passages(tenant="hanbit", document_id="deposit", version=1) == many
