"""A question is searched with those before it, which count less, as far as they fit."""

from dataclasses import replace
from pathlib import Path

import pytest

from chatbot.retrieval.search import MOST_EARLIER_CHARACTERS, Retrieval, SearchQuery, quoting_query
from evals.sample_bank import sample_banks
from knowledge.glossary import Glossary
from knowledge.index import IndexSettings, open_index
from knowledge.terms import Terms
from tests.knowledge.conftest import CUSTOMER, numbered
from tests.passages import FirstAxis

GLOSSARY = Glossary([["수수료", "fee"], ["적금", "savings"]])


def test_the_last_earlier_questions_are_searched_too() -> None:
    long = "가" * (MOST_EARLIER_CHARACTERS - 5)
    query = SearchQuery.of("수수료는요?", ["적금 금리", long, "적금"], GLOSSARY)
    assert query.earlier_text == f"{long} 적금"


def test_of_a_long_earlier_question_the_end_is_searched() -> None:
    story = " ".join(["저는 지난주에 상담을 받았는데요"] * 20) + " 적금 금리가 얼마예요?"
    query = SearchQuery.of("그럼 수수료는요?", ["예금", story, "만기는요?"], GLOSSARY)
    assert query.earlier[-1] == "만기는요?"
    assert query.earlier[0].endswith("적금 금리가 얼마예요?")
    assert query.earlier[0].split()[0] in story.split()
    assert MOST_EARLIER_CHARACTERS / 2 < sum(map(len, query.earlier)) <= MOST_EARLIER_CHARACTERS
    assert (
        SearchQuery.of("수수료는요?", ["적금", "나" * (MOST_EARLIER_CHARACTERS + 1)], GLOSSARY).earlier_text
        == "나" * MOST_EARLIER_CHARACTERS
    )


def test_synonyms_are_those_of_all_its_words() -> None:
    assert SearchQuery.of("수수료는요?", ["예금 만기", "적금 금리"], GLOSSARY).synonyms == "savings fee"
    assert quoting_query("수수료는요?", ["적금 금리"], GLOSSARY) == "적금 금리 수수료는요? savings fee"
    assert quoting_query("수수료는요?", (), GLOSSARY) == "수수료는요? fee"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("question", "first", "quoted_by"),
    [
        ("What is the minimum amount of a term deposit?", 1, "What is the minimum amount of a term deposit?"),
        ("And how long does it take?", 0, "What is the fee for an overseas remittance? And how long does it take?"),
    ],
)
async def test_only_a_follow_up_is_searched_with_earlier_questions(
    question: str, first: int, quoted_by: str, tmp_path: Path
) -> None:
    texts = (
        "The fee for an overseas remittance is 10,000 won. An overseas remittance takes two days.",
        "The minimum amount of a term deposit is 1,000,000 won.",
        "A lost card is blocked at once, by telephone or in the app.",
        "Branches are open from 9:00 to 16:00.",
    )
    async with open_index(IndexSettings(path=tmp_path / "qdrant"), FirstAxis(), Terms()) as index:
        passages = [replace(passage, visible_from=100.0) for passage in numbered(*texts)]
        await index.upsert(passages, [[0.85, 0.527] for _ in passages])  # a cosine that says nothing
        retrieval = Retrieval(index, sample_banks())
        earlier = ["What is the fee for an overseas remittance?"]
        found = await retrieval.search(question, earlier=earlier, access=CUSTOMER)
    assert found.hits[0].passage.n == first
    assert found.query.startswith(quoted_by)
