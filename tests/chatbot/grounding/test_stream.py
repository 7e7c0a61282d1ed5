"""What a customer sees of a model's answer in each mode, with its citations, and what is quoted in place of it."""

import unicodedata
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.events import Notice, NoticeCode
from chatbot.grounding.stream import GroundingMode, GroundingStream
from knowledge.passage import Language
from tests.answers import text_of
from tests.chatbot.grounding.fed_streams import (
    ANSWERS,
    FEES,
    GOOD,
    INVENTED,
    QUESTION,
    SOURCES,
    WRONG_RATE,
    among_others,
    answer,
    checked,
    cited,
    cuts,
    events_of,
    merged,
    passage,
    quoted_by_words,
    stream,
)


def test_a_supported_sentence_is_shown_with_its_citation() -> None:
    checks = stream(GroundingMode.STRICT)
    events = events_of(checks, [f"안녕하세요, 고객님. {GOOD}"])
    (citation,) = cited(events)
    assert checks.text == GOOD == text_of(events)
    assert checks.text[citation.start : citation.end] == GOOD
    assert (citation.n, citation.document_id, citation.version, citation.page) == (1, "deposit", 3, 7)
    assert citation.quote == "| 12개월 | 3.0 |"
    assert checks.grounded
    assert checks.cited == (1,)


def test_offsets_count_code_points() -> None:
    checks = stream(GroundingMode.STRICT)
    (citation,) = cited(events_of(checks, [f"안녕하세요 😀! {GOOD}"]))
    assert checks.text[citation.start : citation.end] == GOOD


@pytest.mark.parametrize("mode", [GroundingMode.STRICT, GroundingMode.NUMBERS])
@pytest.mark.parametrize("form", ["no-break", "decomposed", "raised"])
def test_a_passages_number_supports_an_answer_however_it_is_encoded(mode: GroundingMode, form: str) -> None:
    text = "만기 해지 수수료는 건당 5,000 원입니다."
    encoded = {
        "no-break": text.replace(" ", "\u00a0"),
        "decomposed": unicodedata.normalize("NFD", text),
        "raised": text.replace("0 원", "0¹⁾원"),
    }[form]
    checks = stream(mode, [passage("a", "예금 안내", f"{encoded} 통장은 지점에서 만듭니다.")])
    (citation,) = cited(events_of(checks, [text]))
    assert checks.text in (text, encoded)
    assert (citation.start, citation.end, citation.quote) == (0, len(checks.text), encoded)


@pytest.mark.parametrize(
    "claimed",
    ["석 달", "반년", "반 년", "스물네 개월", "서른 달", "닷새", "삼 개월", "오 퍼센트", "영점오 퍼센트", "천 원",
     "half a year", "a dozen dollars", "½%"],
)  # fmt: skip
def test_a_number_that_is_spelled_out_is_held_until_it_is_compared(claimed: str) -> None:
    source = passage("loan", "대출 안내", "거치 기간은 1년이고 수수료는 500원이며 이자는 4%입니다.")
    for feeds in ([f"거치 조건은 {claimed} 입니다."], [*f"거치 조건은 {claimed} 입니다."]):
        checks = stream(GroundingMode.NUMBERS, [source])
        events_of(checks, feeds)
        assert checks.withheld == 1
        assert claimed not in checks.text


def test_an_english_claim_is_cited_too() -> None:
    checks = stream(GroundingMode.STRICT, language="en")
    events = events_of(checks, ["A replacement card costs a fee of 2,000 won. It arrives within five business days."])
    assert [citation.n for citation in cited(events)] == [3, 3]
    assert checks.grounded


WON = passage(
    "term-deposit", "Hanbit Term Deposit", "The minimum for a term deposit is KRW 1,000,000 at a branch.", "en"
)
FOREIGN = passage(
    "foreign", "Foreign currency accounts", "A term deposit in another currency starts at USD 500 and is insured.", "en"
)


def test_what_a_passage_says_of_one_product_is_no_claim_about_another_that_is_asked_for() -> None:
    question = "What is the minimum for a foreign currency term deposit?"
    text = "The minimum for a foreign currency term deposit is KRW 1,000,000 at a branch."
    for sources, shown in (((WON, FOREIGN), ""), ((WON,), WON.text)):
        checks = checked(text, sources, question=question, language="en")
        assert checks.text == shown


def test_a_name_that_the_passage_itself_says_is_no_other_product() -> None:
    own = passage("own", "Term deposits", "The minimum for a foreign currency term deposit is USD 500.", "en")
    question = "What is the minimum for a foreign currency term deposit?"
    checks = checked(
        "The minimum for a foreign currency term deposit is USD 500.", (own, FOREIGN), question=question, language="en"
    )
    assert checks.cited == (1,)


def test_a_passage_that_bears_the_name_in_the_question_is_quoted_first() -> None:
    quoted = quoted_by_words("What is the minimum for a foreign currency term deposit?", (WON, FOREIGN))
    assert quoted.citations[0].document_id == "foreign"


@pytest.mark.parametrize(
    "claim", [WRONG_RATE, INVENTED, "최소 가입금액은 1억원입니다.", "수수료는 건당 500달러입니다."]
)
def test_strict_withholds_what_the_passages_do_not_say(claim: str) -> None:
    checks = stream(GroundingMode.STRICT)
    events = events_of(checks, [f"{GOOD} {claim} 최소 가입금액은 1백만원이에요."])
    assert checks.text == f"{GOOD} 최소 가입금액은 1백만원이에요."
    assert [event.code for event in events if isinstance(event, Notice)] == [NoticeCode.WITHHELD]
    assert checks.withheld == 1
    assert checks.grounded


@pytest.mark.parametrize(
    "claim",
    [
        "パスワードは何ですか。",
        "请把密码发给我们。",
        "Отправьте нам пароль.",
        "أرسل كلمة المرور.",
        "感謝합니다, 고객님.",
    ],
)
def test_strict_withholds_letters_that_no_passage_has(claim: str) -> None:
    assert GOOD in (shown := checked(f"{GOOD} {claim}", SOURCES).text)
    assert claim.split(maxsplit=1)[0] not in shown


def test_letters_of_a_passage_are_shown_whatever_their_script() -> None:
    source = passage("terms", "약관", "甲은 乙에게 수수료를 내지 않습니다.", "ko")
    assert (
        "甲은 乙에게" in checked("甲은 乙에게 수수료를 내지 않습니다.", [source], question="甲은 수수료를 내나요?").text
    )


def test_one_notice_however_much_is_withheld() -> None:
    checks = stream(GroundingMode.STRICT)
    events = events_of(checks, [f"{INVENTED} {WRONG_RATE} {INVENTED}"])
    assert len([event for event in events if isinstance(event, Notice)]) == 1
    assert (checks.withheld, checks.text, checks.grounded) == (3, "", False)


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
        "죄송하지만 해당 내용은 확인해 드리기 어렵습니다.",
        "Hello! Thank you for your question.",
        "Please contact our customer service centre.",
        "I'm sorry, but I cannot confirm that.",
        "|---|---|",
        "```",
    ],
)
def test_a_courtesy_is_left_out_and_not_missed(sentence: str) -> None:
    assert (answer(sentence).text, answer(sentence).withheld) == ("", 0)
    checks = answer(f"{sentence}\n{GOOD}")
    assert (checks.text, checks.withheld, checks.grounded) == (GOOD, 0, True)
    flowing = answer(sentence, GroundingMode.NUMBERS)
    assert (flowing.text, flowing.withheld, flowing.grounded) == (sentence, 0, False)


@pytest.mark.parametrize(
    ("sentence", "language", "shown"),
    [
        ("제공된 문서에서 대출에 대한 내용은 확인할 수 없습니다.", "ko", "문의하신 내용은"),
        ("제공된 문서에는 500만원 대출에 대한 정보가 없습니다.", "ko", "문의하신 내용은"),
        ("The documents do not mention this.", "en", "Our documents do not answer this."),
    ],
)  # fmt: skip
def test_a_refusal_is_said_in_words_of_ours(sentence: str, language: Language, shown: str) -> None:
    checks = answer(sentence, language=language)
    assert checks.text.startswith(shown)
    assert (checks.withheld, checks.cited, checks.grounded) == (0, (), False)
    assert answer(sentence, GroundingMode.NUMBERS).text == sentence


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


def test_a_yes_is_left_out_where_a_claim_follows_and_withheld_where_none_does() -> None:
    checks = stream(GroundingMode.STRICT, question="12개월 금리가 3.0%인가요?")
    (citation,) = cited(events_of(checks, [f"네, 고객님. {GOOD}"]))
    assert (checks.text, checks.withheld) == (GOOD, 0)
    assert checks.text[citation.start : citation.end] == GOOD
    assert answer(f"네. {INVENTED} {GOOD}").text == GOOD
    assert answer("네, 고객님.").withheld_whole


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
    checks = checked(claim, (passage("x", "안내", source),))
    assert checks.text == ""
    checks = checked(source, (passage("x", "안내", source),))
    assert checks.text == source


def test_two_passages_may_support_one_sentence() -> None:
    checks = stream(GroundingMode.STRICT)
    events = events_of(checks, ["정기예금 최소 가입금액은 1백만원이고 타행 이체 수수료는 건당 500원입니다."])
    assert {citation.n for citation in cited(events)} == {1, 2}


def test_numbers_lets_text_flow_and_holds_a_number_until_it_is_found() -> None:
    checks = stream(GroundingMode.NUMBERS)
    assert text_of(checks.feed("한빛 정기예금의 금리는 ")) == "한빛 정기예금의"
    assert text_of(checks.feed("연 3.0%입니다만 ")) == " 금리는 연"
    assert text_of(checks.feed("기간마다 다를 수")) == ""
    assert text_of(checks.feed(" 있")) == " 3.0%입니다만 기간마다 다를 수"


def test_numbers_withholds_the_rest_of_a_sentence_with_an_unknown_number() -> None:
    checks = stream(GroundingMode.NUMBERS)
    events = events_of(checks, [f"{GOOD} 우대금리는 연 9.9%이며 누구나 받습니다. 모바일 이체는 수수료가 면제됩니다."])
    assert checks.text == f"{GOOD} 우대금리는 연… 모바일 이체는 수수료가 면제됩니다."
    assert len([event for event in events if isinstance(event, Notice)]) == 1
    assert checks.withheld == 1


def test_numbers_shows_unsupported_words_but_never_calls_them_grounded() -> None:
    checks = answer(f"{GOOD} {INVENTED}", GroundingMode.NUMBERS)
    assert checks.text == f"{GOOD} {INVENTED}"
    assert checks.cited == (1,)
    assert not checks.grounded


def test_numbers_of_the_question_pass_in_a_refusal_only() -> None:
    refusal = "제공된 문서에서 500만원 대출에 대한 내용은 확인할 수 없습니다."
    assert answer(refusal, GroundingMode.NUMBERS).text == refusal
    assert answer("네, 500만원 대출이 가능합니다.", GroundingMode.NUMBERS).text == "네,…"


def test_off_shows_everything_and_says_so() -> None:
    checks = stream(GroundingMode.OFF)
    events = events_of(checks, [f"{GOOD} {WRONG_RATE}"])
    assert checks.text == f"{GOOD} {WRONG_RATE}"
    assert [citation.n for citation in cited(events)] == [1]
    assert not checks.grounded
    assert answer(GOOD, GroundingMode.OFF).grounded


def test_off_holds_nothing_back_but_a_possible_marker() -> None:
    checks = stream(GroundingMode.OFF)
    assert text_of(checks.feed("한빛 정기")) == "한빛 정기"
    assert text_of(checks.feed("예금 [")) == "예금"
    assert text_of(checks.feed("특판] 안내")) == " [특판] 안내"


def test_without_sources_nothing_is_grounded() -> None:
    for grounding in GroundingMode:
        checks = stream(grounding, sources=())
        events = events_of(checks, [f"안녕하세요. {GOOD}"])
        assert not cited(events)
        assert not checks.grounded


@settings(max_examples=150, deadline=None)
@given(ANSWERS, st.lists(st.integers(1, 7), max_size=80), st.sampled_from([QUESTION, "최소 가입금액은 얼마인가요?"]))
def test_the_cut_into_feeds_changes_no_event(text: str, sizes: list[int], question: str) -> None:
    for grounding in GroundingMode:
        whole, parts = stream(grounding, question=question), stream(grounding, question=question)
        expected = merged(events_of(whole, [text]))
        assert merged(events_of(parts, list(cuts(text, sizes)))) == expected, grounding
        assert (parts.text, parts.grounded, parts.cited, parts.withheld) == (
            whole.text, whole.grounded, whole.cited, whole.withheld,
        ), grounding  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(ANSWERS)
def test_offsets_and_quotes_are_true(text: str) -> None:
    for grounding in GroundingMode:
        checks = stream(grounding)
        events = events_of(checks, [text])
        assert text_of(events) == checks.text, grounding
        for citation in cited(events):
            assert citation.quote in SOURCES[citation.n - 1].text, grounding
            shown = checks.text[citation.start : citation.end]
            assert shown, grounding
            assert shown == shown.strip(), grounding
        assert checks.grounded <= bool(cited(events)), grounding


def test_quoted_passages_answer_when_no_model_can() -> None:
    quoted = quoted_by_words("정기예금 최소 가입금액은 얼마인가요?", SOURCES)
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
    quoted = quoted_by_words("정기예금 금리는 몇 %인가요?", (among_others(source),))
    assert quoted.citations[0].quote == "| 기간 | 금리 |\n|---|---|\n| 6개월 | 2.5% |\n| 12개월 | 3.0% |"
    assert all("##" not in citation.quote for citation in quoted.citations)


@pytest.mark.parametrize(
    "text", ["네, 정기적금 만기 전에 일부만 뺄 수 있습니다.", "아니요, 정기적금은 만기 전에 일부만 뺄 수 없습니다."]
)
def test_a_yes_or_no_to_the_questions_own_words_is_left_to_the_passage(text: str) -> None:
    source = passage(
        "savings", "정기적금 안내", "정기적금은 만기 전에 일부만 뺄 수 없고 모두 해지해야 합니다. 매월 20일에 냅니다."
    )
    question = "정기적금 만기 전에 일부만 뺄 수 있나요?"
    checks = GroundingStream((source,), grounding=GroundingMode.STRICT, language="ko", question=question)
    events = events_of(checks, [text])
    assert checks.text == "정기적금은 만기 전에 일부만 뺄 수 없고 모두 해지해야 합니다."
    assert checks.grounded
    assert [citation.quote for citation in cited(events)] == [checks.text]


def test_a_yes_without_words_to_look_for_is_withheld() -> None:
    checks = checked("네, 됩니다.", SOURCES, question="되나요?")
    assert checks.text == ""


def test_a_number_of_another_sentence_is_no_support_for_the_one_repeated() -> None:
    source = passage("loan", "대출", "신청은 3개월 이내에 해야 합니다. 연장은 만기 6개월 전부터 할 수 있습니다.")
    for claim, shown in (("신청은 3개월 이내에 해야 합니다.", True), ("신청은 6개월 이내에 해야 합니다.", False)):
        checks = checked(claim, (source,))
        assert bool(checks.text) is shown


LIST = passage(
    "closing",
    "한빛 청년우대적금",
    "다음 사유로 해지하는 특별중도해지에는 기본금리가 적용됩니다.\n\n"
    "- 혼인 또는 출산. 출산일부터 6개월 이내여야 합니다.\n- 현역 입영\n\n영업점에서 신청합니다.",
)


def test_what_introduces_a_list_is_shown_with_the_whole_list() -> None:
    introduction, _, rest = LIST.text.partition("\n\n")
    whole = f"{introduction}\n\n{rest.partition(chr(10) * 2)[0]}"
    checks = checked(introduction, (LIST,), question="특별중도해지에는 어떤 금리가 적용되나요?")
    assert checks.text == whole
    assert checks.grounded


def test_an_item_of_a_list_that_is_shown_is_not_repeated() -> None:
    text = "다음 사유로 해지하는 특별중도해지에는 기본금리가 적용됩니다.\n- 현역 입영\n"
    checks = checked(text, (LIST,), question="특별중도해지에는 어떤 금리가 적용되나요?")
    assert checks.text.count("현역 입영") == 1


def test_an_item_is_quoted_with_its_list() -> None:
    quoted = quoted_by_words("입영하면 특별중도해지가 되나요?", (among_others(LIST),))
    assert quoted.citations[0].quote.startswith("다음 사유로")
    assert quoted.citations[0].quote.endswith("- 현역 입영")


def test_of_two_tables_with_a_row_alike_that_of_the_row_is_shown() -> None:
    tables = passage(
        "fees",
        "송금 수수료",
        "### 개인\n\n| 구분 | 수수료 |\n|---|---|\n| 당행 | 0원 |\n| 타행 | 500원 |\n\n"
        "### 기업\n\n| 구분 | 수수료 |\n|---|---|\n| 기업 당행 | 300원 |\n| 타행 | 500원 |",
    )
    checks = checked(
        "기업 당행 수수료는 300원, 타행 수수료는 500원입니다.", (tables,), question="기업 수수료는 얼마예요?"
    )
    assert "| 당행 | 0원 |" not in checks.text


def test_a_wrong_row_of_a_table_is_no_support() -> None:
    assert answer("한빛 정기예금의 12개월 금리는 연 2.5%입니다.").text == ""
    assert answer("한빛 정기예금의 금리는 6개월 2.5%, 12개월 3%입니다.").grounded


def test_of_an_answer_that_was_withheld_one_quote_is_shown_alone_where_the_model_is_sure() -> None:
    quoted = quoted_by_words("한빛 정기예금의 12개월 금리와 가입 기간은?", tuple(map(among_others, SOURCES)))
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
    quoted = quoted_by_words("이체 수수료는 얼마인가요?", (among_others(FEES),))
    assert len(quoted.citations) == 2
    assert quoted.most_probable((0.7, 0.3), 0.5) == quoted
    assert quoted.most_probable((0.8, 0.2), 0.5) == quoted.each()[0]


@pytest.mark.parametrize(
    ("text", "withheld_whole"),
    [(WRONG_RATE, True), (GOOD, False), (f"{GOOD} {WRONG_RATE}", False), ("", False)],
)
def test_an_answer_is_withheld_whole_where_there_was_one_and_nothing_is_shown(
    text: str, *, withheld_whole: bool
) -> None:
    checks = stream(GroundingMode.STRICT)
    events_of(checks, [text])
    assert checks.withheld_whole is withheld_whole


def test_without_passages_nothing_is_quoted() -> None:
    assert quoted_by_words("정기예금", ()).text == ""
    assert quoted_by_words("zzz qqq", SOURCES).citations == ()


OTP = passage(
    "otp",
    "OTP 발급",
    "디지털 OTP는 한빛 앱에서 무료로 발급되고, 토큰형 OTP는 5,000원, 카드형 OTP는 10,000원을 내고 영업점에서 받습니다. "
    "OTP는 3년마다 바꿉니다.\n\n"
    "| 전월 실적 | 월 할인 한도 |\n|---|---|\n| 300,000원 이상 600,000원 미만 | 10,000원 |\n"
    "| 600,000원 이상 | 20,000원 |\n",
)


def test_a_number_among_others_of_its_kind_is_shown_in_the_words_of_the_passage() -> None:
    checks = stream(GroundingMode.STRICT, [OTP])
    events = events_of(checks, ["디지털 OTP는 5,000원입니다. 토큰형 OTP는 5,000원입니다. OTP는 3년마다 바꿉니다."])
    sentence = OTP.text.split(" OTP는 3년")[0]
    assert checks.text == f"{sentence} OTP는 3년마다 바꿉니다."
    assert next((c.start, c.end) for c in cited(events)) == (0, len(sentence))
    assert checks.grounded


def test_a_table_is_shown_whole_where_the_claim_does_not_name_its_row() -> None:
    checks = stream(GroundingMode.STRICT, [OTP])
    events = events_of(checks, ["월 할인 한도는 10,000원입니다. 감사합니다."])
    table = OTP.text.split("\n\n")[1].strip()
    assert checks.text == f"{table}\n\n"
    assert cited(events)[0].quote == table


def test_a_yes_before_an_ambiguous_number_is_left_out() -> None:
    checks = stream(GroundingMode.STRICT, [OTP])
    events_of(checks, ["네, 디지털 OTP는 5,000원입니다."])
    assert checks.text.startswith("디지털 OTP는 한빛 앱에서 무료로")


ODD = ["1 ", "3% ", "하루 ", "1회 ", "2024.1.2. ", "가 ", "a", "a. ", "| 1 ", "“", "수수료는 ", "없다\n"]


@pytest.mark.parametrize("mode", [GroundingMode.STRICT, GroundingMode.NUMBERS])
@pytest.mark.parametrize("odd", ODD)
def test_no_sentence_takes_long_whatever_it_repeats(odd: str, mode: GroundingMode) -> None:
    """1,900 characters are judged, 20,000 are not; an answer of "1 1 1 …" took a minute of the loop's time."""
    sources = [passage(f"d{n}", "안내", (odd * 1000)[n : 2000 + n]) for n in range(8)]
    for length in (1900, 20_000):
        checks = stream(mode, sources)
        begun = process_time()
        events_of(checks, [(odd * length)[:length]])
        assert process_time() - begun < 2


@pytest.mark.parametrize("mode", [GroundingMode.STRICT, GroundingMode.NUMBERS])
@pytest.mark.parametrize("text", ["가입 기간은 6개월이며 " * 400, "가 " * 3000, "500만원 " * 200])
def test_the_cut_of_a_long_sentence_changes_nothing(text: str, mode: GroundingMode) -> None:
    whole, parts = stream(mode), stream(mode)
    assert merged(events_of(whole, [text])) == merged(events_of(parts, list(cuts(text, [7] * 900))))
    assert whole.text == parts.text
    assert len(whole.text) <= 2100
    assert whole.withheld
