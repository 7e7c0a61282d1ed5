from collections.abc import Iterator, Sequence
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.events import Citation, Event, Notice, NoticeCode, Token
from chatbot.grounding.markers import Markers
from chatbot.grounding.stream import GroundingMode, GroundingStream, quote_passages
from knowledge.passage import Language, Passage
from tests.answers import text_of


def passage(document_id: str, title: str, text: str, language: Language = "ko") -> Passage:
    return Passage(
        tenant="hanbit", document_id=document_id, version=3, n=0, title=title, section="", page=7, text=text,
        language=language, product=None, readers=("customers",), effective_from=date(2026, 1, 1),
    )  # fmt: skip


DEPOSIT = passage(
    "deposit",
    "한빛 정기예금",
    "한빛 정기예금은 만 19세 이상 개인이 가입할 수 있습니다. 가입 기간은 6개월 이상 36개월 이하입니다. "
    "최소 가입금액은 1백만원입니다. 만기 전에 해지하면 중도해지 이율이 적용됩니다.\n\n"
    "| 기간 | 금리(연 %) |\n|---|---|\n| 6개월 | 2.5 |\n| 12개월 | 3.0 |\n",
)
FEES = passage("fees", "수수료 안내", "타행 이체 수수료는 건당 500원입니다. 모바일 이체는 수수료가 면제됩니다.")
CARDS = passage(
    "cards",
    "Hanbit Check Card",
    "Report a lost card at once in the app or by calling 1588-0000. A replacement card arrives within 5 business days. "
    "The replacement fee is KRW 2,000.",
    "en",
)
SOURCES = (DEPOSIT, FEES, CARDS)
QUESTION = "500만원 대출이 되나요?"


def stream(
    grounding: GroundingMode, sources: Sequence[Passage] = SOURCES, language: Language = "ko"
) -> GroundingStream:
    return GroundingStream(
        sources, grounding=grounding, language=language, question=QUESTION, contact="고객센터 1599-0000"
    )


def events_of(citations: GroundingStream, feeds: Sequence[str]) -> list[Event]:
    events = [event for text in feeds for event in citations.feed(text)]
    return [*events, *citations.close()]


def merged(events: Sequence[Event]) -> list[Event]:
    """Join neighbouring tokens: where a feed was cut is no difference."""
    joined: list[Event] = []
    for event in events:
        last = joined[-1] if joined else None
        if isinstance(event, Token) and isinstance(last, Token):
            joined[-1] = Token(text=last.text + event.text)
        else:
            joined.append(event)
    return joined


def cited(events: Sequence[Event]) -> list[Citation]:
    return [event for event in events if isinstance(event, Citation)]


def answer(text: str, grounding: GroundingMode = GroundingMode.STRICT, language: Language = "ko") -> GroundingStream:
    citations = stream(grounding, language=language)
    events_of(citations, [text])
    return citations


GOOD = "한빛 정기예금의 12개월 금리는 연 3.0%입니다."
WRONG_RATE = "한빛 정기예금의 12개월 금리는 연 4.0%입니다."
INVENTED = "가입 고객 전원에게 해외여행 상품권을 증정합니다."
ENGLISH = "The replacement fee is KRW 2,000."


def test_a_supported_sentence_is_shown_with_its_citation() -> None:
    citations = stream(GroundingMode.STRICT)
    events = events_of(citations, [f"안녕하세요, 고객님. {GOOD}"])
    (citation,) = cited(events)
    assert citations.text == f"안녕하세요, 고객님. {GOOD}" == text_of(events)
    assert citations.text[citation.start : citation.end] == GOOD
    assert (citation.n, citation.document_id, citation.version, citation.page) == (1, "deposit", 3, 7)
    assert citation.quote == "| 12개월 | 3.0 |"
    assert citations.grounded
    assert citations.cited == (1,)


def test_offsets_count_code_points() -> None:
    citations = stream(GroundingMode.STRICT)
    (citation,) = cited(events_of(citations, [f"안녕하세요 😀! {GOOD}"]))
    assert citations.text[citation.start : citation.end] == GOOD


def test_an_english_claim_is_cited_too() -> None:
    citations = stream(GroundingMode.STRICT, language="en")
    events = events_of(
        citations, ["A replacement card costs a fee of 2,000 won. It arrives within five business days."]
    )
    assert [citation.n for citation in cited(events)] == [3, 3]
    assert citations.grounded


WON = passage(
    "term-deposit", "Hanbit Term Deposit", "The minimum for a term deposit is KRW 1,000,000 at a branch.", "en"
)
FOREIGN = passage(
    "foreign", "Foreign currency accounts", "A term deposit in another currency starts at USD 500 and is insured.", "en"
)


def test_what_a_passage_says_of_one_product_is_no_claim_about_another_that_is_asked_for() -> None:
    question = "What is the minimum for a foreign currency term deposit?"
    said = "The minimum for a foreign currency term deposit is KRW 1,000,000 at a branch."
    for sources, shown in (((WON, FOREIGN), ""), ((WON,), said)):
        citations = GroundingStream(sources, grounding=GroundingMode.STRICT, language="en", question=question)
        events_of(citations, [said])
        assert citations.text == shown


def test_a_name_that_the_passage_itself_says_is_no_other_product() -> None:
    own = passage("own", "Term deposits", "The minimum for a foreign currency term deposit is USD 500.", "en")
    question = "What is the minimum for a foreign currency term deposit?"
    citations = GroundingStream((own, FOREIGN), grounding=GroundingMode.STRICT, language="en", question=question)
    events_of(citations, ["The minimum for a foreign currency term deposit is USD 500."])
    assert citations.cited == (1,)


def test_a_passage_that_bears_the_name_in_the_question_is_quoted_first() -> None:
    quoted = quote_passages("What is the minimum for a foreign currency term deposit?", (WON, FOREIGN), "en")
    assert quoted.citations[0].document_id == "foreign"


@pytest.mark.parametrize(
    "claim", [WRONG_RATE, INVENTED, "최소 가입금액은 1억원입니다.", "수수료는 건당 500달러입니다."]
)
def test_strict_withholds_what_the_passages_do_not_say(claim: str) -> None:
    citations = stream(GroundingMode.STRICT)
    events = events_of(citations, [f"{GOOD} {claim} 최소 가입금액은 1,000,000원입니다."])
    assert citations.text == f"{GOOD} 최소 가입금액은 1,000,000원입니다."
    assert [event.code for event in events if isinstance(event, Notice)] == [NoticeCode.WITHHELD]
    assert citations.withheld == 1
    assert citations.grounded


def test_one_notice_however_much_is_withheld() -> None:
    citations = stream(GroundingMode.STRICT)
    events = events_of(citations, [f"{INVENTED} {WRONG_RATE} {INVENTED}"])
    assert len([event for event in events if isinstance(event, Notice)]) == 1
    assert (citations.withheld, citations.text, citations.grounded) == (3, "", False)


def test_a_notice_speaks_the_customers_language() -> None:
    (notice,) = [e for e in events_of(stream(GroundingMode.STRICT, language="en"), [INVENTED]) if isinstance(e, Notice)]
    assert "left out" in notice.text


def test_a_number_in_an_uncited_passage_does_not_count() -> None:
    """2,000 stands in the card's passage only; about the deposit nobody says it."""
    assert answer("한빛 정기예금의 최소 가입금액은 2,000원입니다.").text == ""


@pytest.mark.parametrize(
    "sentence",
    [
        "안녕하세요, 고객님.",
        "감사합니다!",
        "자세한 내용은 고객센터(1599-0000)로 문의해 주세요.",
        "추가로 궁금하신 점이 있으시면 언제든지 문의해 주시기 바랍니다.",
        "죄송합니다.",
        "제공된 문서에서 대출에 대한 내용은 확인할 수 없습니다.",
        "제공된 문서에는 500만원 대출에 대한 정보가 없습니다.",
        "죄송하지만 해당 내용은 확인해 드리기 어렵습니다.",
        "Hello! Thank you for your question.",
        "Please contact our customer service centre.",
        "The documents do not mention this.",
        "I'm sorry, but I cannot confirm that.",
        "|---|---|",
    ],
)
def test_what_claims_nothing_passes_without_a_citation(sentence: str) -> None:
    citations = answer(sentence)
    assert (citations.text, citations.withheld, citations.cited) == (sentence, 0, ())
    assert not citations.grounded


@pytest.mark.parametrize(
    "sentence",
    [
        "고객센터(1588-9999)로 문의해 주세요.",
        "제공된 문서에는 700만원 대출에 대한 정보가 없습니다.",
        "500만원 대출이 가능합니다.",
        "문의하시면 무료 상품권을 드립니다.",
        "대출 정보 변경 수수료는 없습니다.",
        "The documents do not mention this, but a 3% bonus is paid.",
        "Thank you, you will receive a free phone.",
        "네, 가능합니다. 대출은 무이자입니다.",
    ],
)
def test_a_fact_dressed_as_a_courtesy_is_withheld(sentence: str) -> None:
    assert answer(sentence).withheld >= 1


@pytest.mark.parametrize(
    "sentence", ["네.", "네, 됩니다.", "아니요, 안 됩니다.", "Yes.", "No, it is not.", "네, 고객님."]
)
def test_a_bare_yes_or_no_is_no_answer(sentence: str) -> None:
    assert answer(sentence).text == ""


def test_a_yes_is_shown_with_the_claim_it_belongs_to() -> None:
    citations = stream(GroundingMode.STRICT)
    (citation,) = cited(events_of(citations, [f"네, 고객님. {GOOD}"]))
    assert citations.text == f"네, 고객님. {GOOD}"
    assert citations.text[citation.start : citation.end] == GOOD
    assert answer(f"네. {INVENTED} {GOOD}").text == GOOD


@pytest.mark.parametrize(
    ("source", "claim"),
    [
        ("모바일에서는 정기예금을 해지할 수 없습니다.", "모바일에서 정기예금을 해지할 수 있습니다."),
        ("외국인은 이 적금에 가입이 불가합니다.", "외국인은 이 적금에 가입이 가능합니다."),
        ("비대면으로 계좌를 만들 수 있습니다.", "비대면으로 계좌를 만들 수 없습니다."),
        ("You cannot close the account online.", "You can close the account online."),
    ],
)
def test_the_opposite_of_a_passage_is_withheld(source: str, claim: str) -> None:
    citations = GroundingStream((passage("x", "안내", source),), grounding=GroundingMode.STRICT, language="ko")
    events_of(citations, [claim])
    assert citations.text == ""
    citations = GroundingStream((passage("x", "안내", source),), grounding=GroundingMode.STRICT, language="ko")
    events_of(citations, [source])
    assert citations.text == source


def test_two_passages_may_support_one_sentence() -> None:
    citations = stream(GroundingMode.STRICT)
    events = events_of(citations, ["정기예금 최소 가입금액은 1백만원이고 타행 이체 수수료는 건당 500원입니다."])
    assert {citation.n for citation in cited(events)} == {1, 2}


def test_numbers_lets_text_flow_and_holds_a_number_until_it_is_found() -> None:
    citations = stream(GroundingMode.NUMBERS)
    assert text_of(citations.feed("한빛 정기예금의 금리는 ")) == "한빛 정기예금의"
    assert text_of(citations.feed("연 3.0%입니다만 ")) == " 금리는 연"
    assert text_of(citations.feed("기간마다 다를 수")) == ""
    assert text_of(citations.feed(" 있")) == " 3.0%입니다만 기간마다 다를 수"


def test_numbers_withholds_the_rest_of_a_sentence_with_an_unknown_number() -> None:
    citations = stream(GroundingMode.NUMBERS)
    events = events_of(
        citations, [f"{GOOD} 우대금리는 연 9.9%이며 누구나 받습니다. 모바일 이체는 수수료가 면제됩니다."]
    )
    assert citations.text == f"{GOOD} 우대금리는 연… 모바일 이체는 수수료가 면제됩니다."
    assert len([event for event in events if isinstance(event, Notice)]) == 1
    assert citations.withheld == 1


def test_numbers_shows_unsupported_words_but_never_calls_them_grounded() -> None:
    citations = answer(f"{GOOD} {INVENTED}", GroundingMode.NUMBERS)
    assert citations.text == f"{GOOD} {INVENTED}"
    assert citations.cited == (1,)
    assert not citations.grounded


def test_numbers_of_the_question_pass_in_a_refusal_only() -> None:
    refusal = "제공된 문서에서 500만원 대출에 대한 내용은 확인할 수 없습니다."
    assert answer(refusal, GroundingMode.NUMBERS).text == refusal
    assert answer("네, 500만원 대출이 가능합니다.", GroundingMode.NUMBERS).text == "네,…"


def test_off_shows_everything_and_says_so() -> None:
    citations = stream(GroundingMode.OFF)
    events = events_of(citations, [f"{GOOD} {WRONG_RATE}"])
    assert citations.text == f"{GOOD} {WRONG_RATE}"
    assert [citation.n for citation in cited(events)] == [1]
    assert not citations.grounded
    assert answer(GOOD, GroundingMode.OFF).grounded


def test_off_holds_nothing_back_but_a_possible_marker() -> None:
    citations = stream(GroundingMode.OFF)
    assert text_of(citations.feed("한빛 정기")) == "한빛 정기"
    assert text_of(citations.feed("예금 [")) == "예금"
    assert text_of(citations.feed("특판] 안내")) == " [특판] 안내"


def test_without_sources_nothing_is_grounded() -> None:
    for grounding in GroundingMode:
        citations = stream(grounding, sources=())
        events = events_of(citations, [f"안녕하세요. {GOOD}"])
        assert not cited(events)
        assert not citations.grounded


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("금리입니다 [1]. 다음", "금리입니다. 다음"),
        ("금리입니다.[1] 다음", "금리입니다. 다음"),
        ("금리입니다. [1][2] 다음", "금리입니다. 다음"),
        ("금리입니다 [1, 2] 다음", "금리입니다 다음"),
        ("금리【3】는", "금리는"),
        ("금리 (문서 1)는", "금리는"),
        ("금리[문장 2]", "금리"),
        ("금리 (출처: 문서 1)", "금리 (출처: 문서 1)"),
        ("금리 [문서 1, 문서 2]", "금리"),
        ("rate (source: 2) is", "rate is"),
        ("rate [Document 2] is", "rate is"),
        ("rate [^1] is", "rate is"),
        ("[1] 은행은", "은행은"),
        ("- [1] 은행은", "- 은행은"),
        ("가\n[2] 나", "가\n나"),
        ("(1) 하나", "(1) 하나"),
        ("[특판] 예금", "[특판] 예금"),
        ("배열 [2026] 년", "배열 [2026] 년"),
        ("끝 ", "끝 "),
        ("열린 [1", "열린 [1"),
    ],
)
def test_the_models_own_markers_are_taken_out(written: str, shown: str) -> None:
    markers = Markers()
    assert markers.feed(written) + markers.close() == shown
    markers = Markers()
    assert "".join(markers.feed(char) for char in written) + markers.close() == shown


def cuts(text: str, sizes: Sequence[int]) -> Iterator[str]:
    at = 0
    for size in [*sizes, len(text)]:
        yield text[at : at + size]
        at += size


MARKER_PARTS = [
    "[",
    "]",
    "(",
    ")",
    "1",
    "12",
    ", ",
    " ",
    "문서",
    "문",
    "sour",
    "source",
    ":",
    "\n",
    "a",
    "【2】",
    "[1]",
    "^",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(MARKER_PARTS), max_size=20).map("".join), st.lists(st.integers(1, 4), max_size=40))
def test_markers_cut_across_feeds_are_taken_out_alike(text: str, sizes: list[int]) -> None:
    whole, parts = Markers(), Markers()
    assert "".join(map(parts.feed, cuts(text, sizes))) + parts.close() == whole.feed(text) + whole.close()


SENTENCES = st.sampled_from(
    [
        GOOD,
        WRONG_RATE,
        INVENTED,
        ENGLISH,
        "네.",
        "안녕하세요.",
        "최소 가입금액은 1백만원입니다 [1].",
        "타행 이체 수수료는 건당 500원입니다[2].",
        "- 모바일 이체 수수료 면제 (문서 2)\n",
        "\n\n",
        "1. 만 19세 이상 가입\n",
        "| 12개월 | 3.0 |\n",
        "제공된 문서에는 500만원 대출 정보가 없습니다.",
        "2026. 1. 1. 부터 3~5영업일 걸립니다.",
        "It takes five to seven days",
        "두 번 하루 5천만 원까지",
        "연 2.",
        "5%",
        "문의: 1599-0000.",
        "[",
        "…",
    ]
)
ANSWERS = st.lists(st.tuples(SENTENCES, st.sampled_from([" ", "", "  "])), max_size=8).map(
    lambda parts: "".join(part for pair in parts for part in pair)
)


@pytest.mark.parametrize("grounding", list(GroundingMode))
@settings(max_examples=150, deadline=None)
@given(ANSWERS, st.lists(st.integers(1, 7), max_size=80))
def test_the_cut_into_feeds_changes_no_event(grounding: GroundingMode, text: str, sizes: list[int]) -> None:
    whole, parts = stream(grounding), stream(grounding)
    expected = merged(events_of(whole, [text]))
    assert merged(events_of(parts, list(cuts(text, sizes)))) == expected
    assert (parts.text, parts.grounded, parts.cited, parts.withheld) == (
        whole.text, whole.grounded, whole.cited, whole.withheld,
    )  # fmt: skip


@pytest.mark.parametrize("grounding", list(GroundingMode))
@settings(max_examples=100, deadline=None)
@given(ANSWERS)
def test_offsets_and_quotes_are_true(grounding: GroundingMode, text: str) -> None:
    citations = stream(grounding)
    events = events_of(citations, [text])
    assert text_of(events) == citations.text
    for citation in cited(events):
        assert citation.quote in SOURCES[citation.n - 1].text
        shown = citations.text[citation.start : citation.end]
        assert shown
        assert shown == shown.strip()
    assert citations.grounded <= bool(cited(events))


def test_quoted_passages_answer_when_no_model_can() -> None:
    quoted = quote_passages("정기예금 최소 가입금액은 얼마인가요?", SOURCES, "ko")
    assert "최소 가입금액은 1백만원입니다." in quoted.text
    assert 1 <= len(quoted.citations) <= 3
    for citation in quoted.citations:
        assert quoted.text[citation.start : citation.end] == citation.quote
        assert citation.quote in SOURCES[citation.n - 1].text


def test_a_table_is_quoted_whole_and_a_heading_never() -> None:
    source = passage(
        "rates",
        "금리 안내",
        "## 정기예금 금리\n\n| 기간 | 금리 |\n|---|---|\n| 6개월 | 2.5% |\n| 12개월 | 3.0% |\n\n끝.",
    )
    quoted = quote_passages("정기예금 금리는 몇 %인가요?", (source,), "ko")
    assert quoted.citations[0].quote == "| 기간 | 금리 |\n|---|---|\n| 6개월 | 2.5% |\n| 12개월 | 3.0% |"
    assert all("##" not in citation.quote for citation in quoted.citations)


def test_a_number_that_was_withheld_shows_which_sentence_to_quote_but_not_its_words() -> None:
    question = "How soon can I leave the savings plan, and what do I have to pay in at least?"
    citations = GroundingStream(SOURCES, grounding=GroundingMode.STRICT, language="en", question=question)
    events_of(citations, ["You have to pay in at least 1,000,000 won at the beginning of a savings plan."])
    assert (citations.text, citations.withheld) == ("", 1)
    quoted = citations.quotes("")
    assert quoted.citations[0].quote == "최소 가입금액은 1백만원입니다."
    assert "1,000,000" not in quoted.text
    assert quote_passages(question, SOURCES, "en").citations == ()


@pytest.mark.parametrize(
    "said", ["네, 정기적금 만기 전에 일부만 뺄 수 있습니다.", "아니요, 정기적금은 만기 전에 일부만 뺄 수 없습니다."]
)
def test_a_yes_or_no_to_the_questions_own_words_is_left_to_the_passage(said: str) -> None:
    source = passage(
        "savings", "정기적금 안내", "정기적금은 만기 전에 일부만 뺄 수 없고 모두 해지해야 합니다. 매월 20일에 냅니다."
    )
    question = "정기적금 만기 전에 일부만 뺄 수 있나요?"
    citations = GroundingStream((source,), grounding=GroundingMode.STRICT, language="ko", question=question)
    events = events_of(citations, [said])
    assert citations.text == "정기적금은 만기 전에 일부만 뺄 수 없고 모두 해지해야 합니다."
    assert citations.grounded
    assert [citation.quote for citation in cited(events)] == [citations.text]


def test_a_yes_without_words_to_look_for_is_withheld() -> None:
    citations = GroundingStream(SOURCES, grounding=GroundingMode.STRICT, language="ko", question="되나요?")
    events_of(citations, ["네, 됩니다."])
    assert citations.text == ""


def test_a_number_of_another_sentence_is_no_support_for_the_one_repeated() -> None:
    source = passage("loan", "대출", "신청은 3개월 이내에 해야 합니다. 연장은 만기 6개월 전부터 할 수 있습니다.")
    for claim, shown in (("신청은 3개월 이내에 해야 합니다.", True), ("신청은 6개월 이내에 해야 합니다.", False)):
        citations = GroundingStream((source,), grounding=GroundingMode.STRICT, language="ko")
        events_of(citations, [claim])
        assert bool(citations.text) is shown


def test_a_wrong_row_of_a_table_is_no_support() -> None:
    assert answer("한빛 정기예금의 12개월 금리는 연 2.5%입니다.").text == ""
    assert answer("한빛 정기예금의 금리는 6개월 2.5%, 12개월 3%입니다.").grounded


def test_of_an_answer_that_was_withheld_one_quote_is_shown_alone_where_the_model_is_sure() -> None:
    citations = stream(GroundingMode.STRICT)
    events_of(citations, [WRONG_RATE])
    quoted = citations.quotes("한빛 정기예금의 12개월 금리와 가입 기간은?")
    assert len(quoted.citations) == 3
    for n, alone in enumerate(quoted.each()):
        (citation,) = alone.citations
        assert (citation.quote, citation.n) == (quoted.citations[n].quote, quoted.citations[n].n)
        assert alone.text[citation.start : citation.end] == citation.quote
        assert alone.text.startswith(quoted.text.partition("\n\n")[0])
        assert alone.text.count("\n\n") == 1 or citation.quote.startswith("|")
    assert quoted.most_probable((0.1, 0.8, 0.1), 0.5) == quoted.each()[1]
    assert quoted.most_probable((0.2, 0.2, 0.6), 0.5) == quoted
    assert quoted.most_probable((0.2, 0.2, 0.6), 0.3) == quoted.each()[2]
    assert quoted.most_probable((1.0, 0.0, 0.0), 1.0) == quoted
    assert quoted.most_probable((), 0.5) == quoted


def test_more_than_half_of_two_is_no_certainty() -> None:
    citations = stream(GroundingMode.STRICT, (FEES,))
    events_of(citations, ["타행 이체 수수료는 건당 700원입니다."])
    quoted = citations.quotes("이체 수수료는 얼마인가요?")
    assert len(quoted.citations) == 2
    assert quoted.most_probable((0.7, 0.3), 0.5) == quoted
    assert quoted.most_probable((0.8, 0.2), 0.5) == quoted.each()[0]


def test_an_answer_of_which_something_is_shown_needs_no_repair() -> None:
    for said in (GOOD, f"{GOOD} {WRONG_RATE}", ""):
        citations = stream(GroundingMode.STRICT)
        events_of(citations, [said])
        assert citations.quotes("한빛 정기예금의 12개월 금리는?").events == []


def test_without_passages_nothing_is_quoted() -> None:
    assert quote_passages("정기예금", (), "ko").text == ""
    assert quote_passages("zzz qqq", SOURCES, "en").citations == ()


OTP = passage(
    "otp",
    "OTP 발급",
    "디지털 OTP는 한빛 앱에서 무료로 발급되고, 토큰형 OTP는 5,000원, 카드형 OTP는 10,000원을 내고 영업점에서 받습니다. "
    "OTP는 3년마다 바꿉니다.\n\n"
    "| 전월 실적 | 월 할인 한도 |\n|---|---|\n| 300,000원 이상 600,000원 미만 | 10,000원 |\n"
    "| 600,000원 이상 | 20,000원 |\n",
)


def test_a_number_among_others_of_its_kind_is_shown_in_the_words_of_the_passage() -> None:
    citations = stream(GroundingMode.STRICT, [OTP])
    events = events_of(citations, ["디지털 OTP는 5,000원입니다. 토큰형 OTP는 5,000원입니다. OTP는 3년마다 바꿉니다."])
    sentence = OTP.text.split(" OTP는 3년")[0]
    assert citations.text == f"{sentence} OTP는 3년마다 바꿉니다."
    assert next((c.start, c.end) for c in cited(events)) == (0, len(sentence))
    assert citations.grounded


def test_a_table_is_shown_whole_where_the_claim_does_not_name_its_row() -> None:
    citations = stream(GroundingMode.STRICT, [OTP])
    events = events_of(citations, ["월 할인 한도는 10,000원입니다. 감사합니다."])
    table = OTP.text.split("\n\n")[1].strip()
    assert citations.text == f"{table}\n\n 감사합니다."
    assert cited(events)[0].quote == table


def test_a_yes_before_an_ambiguous_number_is_left_out() -> None:
    citations = stream(GroundingMode.STRICT, [OTP])
    events_of(citations, ["네, 디지털 OTP는 5,000원입니다."])
    assert citations.text.startswith("디지털 OTP는 한빛 앱에서 무료로")
