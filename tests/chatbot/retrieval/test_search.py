"""A question is searched with those before it, which count less, as far as they fit."""

from chatbot.retrieval.search import MOST_EARLIER_CHARACTERS, SearchQuery, quoting_query
from knowledge.glossary import Glossary

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
