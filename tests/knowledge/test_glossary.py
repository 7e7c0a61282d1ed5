"""A question is also searched by the synonyms of its words."""

from knowledge.glossary import Glossary

GLOSSARY = Glossary((("해외송금", "overseas remittance"), ("송금", "transfer"), ("수수료", "fee")))


def test_both_languages_find_each_other() -> None:
    assert GLOSSARY.synonyms("수수료가 얼마예요?") == "fee"
    assert GLOSSARY.synonyms("What is the fee?") == "수수료"


def test_a_longer_term_hides_the_shorter_one_inside_it() -> None:
    assert GLOSSARY.synonyms("해외송금 하려고요") == "overseas remittance"


def test_english_words_match_from_their_beginning_only() -> None:
    assert GLOSSARY.synonyms("a coffee, please") == ""
    assert GLOSSARY.synonyms("which fees?") == "수수료"


def test_a_long_question_is_read_in_one_pass() -> None:
    question = "수수료 송금 해외송금 " * 20_000
    assert GLOSSARY.synonyms(question) == "fee transfer overseas remittance"
