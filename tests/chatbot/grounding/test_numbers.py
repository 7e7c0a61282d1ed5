import unicodedata
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chatbot.grounding.numbers import quantities, unsupported_quantities
from chatbot.grounding.plain_text import plain_text
from chatbot.grounding.units import heading_unit

MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October"]
MONTHS += ["November", "December"]


def texts(text: str) -> list[str]:
    return [quantity.text for quantity in quantities(text)]


def in_korean(amount: int) -> str:
    parts = [f"{amount // 10**8}억" if amount >= 10**8 else "", f"{amount % 10**8 // 10**4}만", f"{amount % 10**4}"]
    return " ".join(part for part in parts if part and part not in ("0만", "0"))


def won(n: int) -> list[str]:
    wide = f"{n:,}원".translate(str.maketrans("0123456789", "０１２３４５６７８９"))
    return [
        *(f"{n:,}원", f"{n}원", f"{n:,} 원", f"{in_korean(n)}원", f"{in_korean(n)} 원", f"**{n:,}**원", wide),
        *(f"KRW {n:,}", f"KRW{n:,}", f"₩{n:,}", f"{n:,} won", f"{n:,} Korean won"),
        *(f"KRW {Decimal(n) / 10**6} million", f"{Decimal(n) / 10**6} million won"),
    ]


def rates(r: Decimal) -> list[str]:
    return [f"연 {r}%", f"연{r}%", f"{r:.2f}%", f"{r} %", f"{r}퍼센트", f"{r:.3f} percent", f"{r}％", f"**{r}%**"]


def points(r: Decimal) -> list[str]:
    return [f"{r}%p", f"{r}%P", f"{r}%포인트", f"{r}퍼센트포인트", f"{r} percentage points", f"{r * 100}bp"]


def dates(d: date) -> list[str]:
    month = MONTHS[d.month - 1]
    return [
        *(d.isoformat(), f"{d.year}년 {d.month}월 {d.day}일", f"{d.year}년{d.month}월{d.day}일"),
        *(f"{d.year}. {d.month}. {d.day}.", f"{d.year}.{d.month:02}.{d.day:02}", f"{d.year}/{d.month}/{d.day}"),
        *(f"{month} {d.day}, {d.year}", f"{d.day} {month[:3]} {d.year}", f"{d.day}th of {month} {d.year}"),
        f"'{d.year % 100:02}. {d.month}. {d.day}.",
    ]


def periods(m: int) -> list[str]:
    years, rest = divmod(m, 12)
    named = [f"{m}개월", f"{m} 개월", f"{m}달", f"{m} months", f"{m}-month term"]
    if years and rest:
        return [*named, f"{years}년 {rest}개월", f"{years} years and {rest} months"]
    return [*named, f"{years}년"] if years else named


AROUND = st.sampled_from(
    ["{}", "최대 {}까지 됩니다.", "금액은 {}입니다.", "It is {}.", "(기준: {})", "- {}\n", "| 항목 | {} |"]
)
AMOUNTS = st.one_of(st.integers(1, 9_999).map(lambda n: n * 10_000), st.integers(10_000, 10**11))
PERCENT = st.decimals("0.01", "99.99", places=2)
DAYS = st.dates(date(2000, 1, 1), date(2099, 12, 31))


@pytest.mark.parametrize(
    ("values", "spellings", "more"),
    [
        (AMOUNTS, won, 1),
        (PERCENT, rates, Decimal("0.01")),
        (PERCENT, points, Decimal("0.01")),
        (DAYS, dates, timedelta(days=1)),
        (st.integers(1, 480), periods, 1),
    ],
    ids=["amounts", "rates", "points", "dates", "periods"],
)
@settings(deadline=None)
@given(data=st.data(), claim=AROUND, source=AROUND)
def test_a_value_is_equal_to_itself_alone_in_any_spelling(
    values: st.SearchStrategy[Any],
    spellings: Callable[[Any], list[str]],
    more: Any,
    data: st.DataObject,
    claim: str,
    source: str,
) -> None:
    value = data.draw(values)
    same, other = (data.draw(st.sampled_from(spellings(each))) for each in (value, value + more))
    claimed = claim.format(data.draw(st.sampled_from(spellings(value))))
    assert not unsupported_quantities(claimed, [source.format(same)])
    assert unsupported_quantities(claimed, [source.format(other)])
    assert len(quantities(claimed)) == 1


EQUAL = (
    ("1천만원", "10,000,000원", "1,000만원", "KRW 10 million"), ("5억 3천만 원", "530,000,000원"),
    ("오백만 원", "5백만원", "500만원"), ("500천원", "50만원", "오십만 원"),
    ("two hundred and fifty thousand won", "25만원"), ("$5,000", "미화 5천 달러", "USD 5,000", "5,000 dollars"),
    ("1년 6개월", "18개월"), ("한 달", "1개월"), ("two weeks", "14일"),
    ("3 business days", "3영업일", "영업일 기준 3일",
     "3일 이내(영업일 기준)", "3일(영업일 기준)", "영업일 기준으로 최대 3일"),
    ("영업일 기준 2~3일", "2 to 3 business days"), ("3~5영업일", "3 to 5 business days", "영업일 기준 3일에서 5일"),
    ("10 working days", "10 bank working days", "10 working banking days", "10영업일"), ("1시간 30분", "90 minutes"),
    ("오전 9시", "09:00", "9 a.m.", "9 A.M.", "9:00 am"), ("오후 6시 30분", "18:30"), ("5:30 p.m.", "17시 30분"),
    ("12:00 p.m.", "정오", "낮 12시"), ("4:00 PM", "16:00", "오후 4시", "4 PM"),
    ("12:00 AM", "자정", "저녁 12시", "밤 12시"), ("밤 0시 30분", "00:30"), ("밤 1시", "새벽 1시"),
    ("밤 11시 30분", "23:30"), ("밤 23시 50분", "오후 11시 50분"), ("낮 11시", "오전 11시"), ("낮 1시", "13:00"),
    ("세 가지", "3가지"), ("three times", "3회", "3 times", "3회의 연체"), ("twenty-five people", "25명"),
    ("보증인 3명", "보증인 3명의 동의"), ("14일", "2주의 유예 기간"), ("만 19세", "19 years old"),
    ("100만~500만원", "1,000,000원에서 5,000,000원"), ("6, 12 and 24 months", "6개월, 12개월, 24개월"),
    ("KRW 10,000 to 50,000", "1만원부터 5만원까지"), ("2.5~3.0%", "2.5% 이상 3% 이하"),
    ("+82-2-1234-5678", "02-1234-5678"), ("0.3%p 우대", "-0.3%p"), ("HB-100", "상품코드 HB100"),
    ("2026년 1분기", "Q1 2026", "the first quarter of 2026", "1Q26", "1Q 2026", "2026년 1/4분기", "'26년 1분기"),
    ("연 2회", "paid twice a year", "twice a year", "연 두 차례"),
    ("FY2026", "fiscal 2026", "FY 2026", "FY26", "FY'26", "2026년"), ("5 full months", "5 months"),
    ("3 calendar months", "3개월", "3 full calendar months", "3 months"), ("5할", "50%"), ("5‰", "0.5%"),
    ("50 €", "50유로"), ("5,000₩", "5,000원"), ("IDR 2,000", "2,000 IDR"),
)  # fmt: skip
"""Spellings of one value: each supports every other."""
SPELLED = (
    ("1년 반", "18개월", "one and a half years", "a year and a half", "1½ years", "1 year and a half", "십팔 개월"),
    ("반년", "6개월", "half a year", "육 개월"), ("한 시간 반", "90분", "1시간 30분", "an hour and a half", "구십 분"),
    ("석 달", "3개월", "세 달", "삼개월"), ("닷새", "5일", "오 일"), ("삼 영업일", "3영업일", "three business days"),
    ("영점오 퍼센트", "0.5%", ".5%", "half a percent", "½%"), ("십이점이오 퍼센트", "12.25%"),
    ("예순다섯 살", "만 65세", "육십오 세", "만 육십오 세", "65 years old"),
    ("오후 아홉 시 반", "21:30", "오후 9시 반"), ("a million won", "KRW 1,000,000", "백만 원"),
    ("half a million won", "50만원", "오십만 원"), ("a hundred thousand won", "십만 원"),
    ("two dozen people", "24명", "스물네 명", "이십사 명"), ("1/4분기", "1분기"), ("만 오천 원", "15,000원"),
)  # fmt: skip
SHORT = (
    ("KRW 10k", "₩10K", "10k won", "10,000원", "1만원"), ("$5m", "USD 5m", "5 million dollars", "500만 달러"),
    ("₩1.5M", "KRW 1.5m", "150만원"), ("02)123-4567", "02-123-4567", "(02) 123-4567", "+82 2 123 4567"),
    ("1588 1234", "1588-1234", "☎ 15881234"), ("5월", "in May", "by May", "early May"),
    ("3월", "since March", "end of March"),
)  # fmt: skip
FOREIGN = (
    ("HK$100", "HKD 100", "100 홍콩달러", "100 Hong Kong dollars"),
    ("S$50", "SGD50", "50 싱가포르 달러", "50 Singapore dollars"),
    ("CHF 2,000", "2,000 Swiss francs", "2천 스위스프랑"),
    ("2,000 baht", "THB 2,000", "2천바트"),
)
A_YEAR = ("4.5% p.a.", "4.5 % p. a.", "4.5% pa", "4.5% a year", "4.5% per annum", "4.5 percent p.a.", "연 4.5%")
RATE_HEADS = ("Rate (% p.a.)", "Rate (%, p. a.)", "Rate (% per year)", "Rate (% pa)")


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("이억 오천만 원", "250,000,000 won"), ("1년", "12 months"), ("하루", "1일"), ("제3회의실", "3 회의실"),
        ("오전 9시", "영업시간은 9~16시입니다"), ("두 번", "2회"), ("16-digit", "16자리"), ("3장", "three cards"),
        ("2026년 1월", "2026. 1. 5."), ("January", "1월 5일"), ("매월 25일", "the 25th of each month"),
        ("1~3천만원", "10,000,000원 ~ 30,000,000원"), ("1588-0000", "대표번호 15880000"), ("제12조", "12조"),
        ("1일 한도", "하루 한도"), ("1회", "건당 500원"), ("0원", "수수료 무료"), ("KRW 0", "no transfer fee"),
        ("12", "12개월"),
        ("2.50", "연 2.5%"), ("가능합니다", ""),
        *((a, b) for a in A_YEAR for b in A_YEAR),
        *((a, f"| Term | {head} |\n|---|---|\n| A | 4.5 |") for a in A_YEAR for head in RATE_HEADS),
        ("0.5%p", "a cut of 0.5%p. A customer"),
        *[(a, b) for same in (*EQUAL, *FOREIGN, *SPELLED, *SHORT) for a in same for b in same if a != b],
        ("19 years old or over", "aged 19 or over"), ("만 65세 이상", "customers over 65 pay no fee"),
        ("between $5 and $10", "$5, $10"), ("Tier 3 customers", "tier 3 members"), ("3 lounges", "| lounges | 3 |"),
        ("2026년 수수료", "In 2026, the fee"), ("KRW 2026.10", "KRW 2,026.10"), ("2010.05포인트", "2,010.05포인트"),
        ("1분기", "- Q1: 3.2%\n- Q2: 3.4%"), ("만 65세", "65 and over"),
        ("under 19 or 65 or older", "만 65세 이상, 19세 미만"), ("2026년 7월", "(2026.07~2027.06)"),
        ("2026년 수수료", "| 구분 | 2026 | 2025 |\n| 수수료 | 10 | 9 |"),
        ("2026년 수수료", "(단위: 백만원)\n| 구분 | 2026 | 2025 |\n| 수수료 | 10 | 9 |"), ("in 2026", "FY'26"),
        ("June 16, 2026", "Issued June 16 , 2026"), ("500 이상", "500원 이상"), ("10 customers", "10명"),
        ("2 guarantors", "2 persons"), ("10 transfers", "10회"),
        ("3 free ATM withdrawals a month", "free 3 times a month"), ("1,000 shares", "1,000주"),
        ("12 instalments", "12회"), ("36 monthly instalments", "36개월"), ("10만여 명", "10만 명"),
        ("DSR 40 이하", "DSR은 40 이하"), ("KCB 700 이상", "KCB 점수 700 이상"), ("TOP 10", "상위 10"),
        *[
            (f"KCB 점수가 700 {bound}{ending}", f"KCB 700 {bound}인 고객")
            for bound in ("이상", "이하", "미만", "초과", "이내", "정도")
            for ending in ("이어야 합니다", "이라면", "입니다", "이었습니다")
        ],
    ],
)  # fmt: skip
def test_the_same_value_supports_the_claim(claim: str, source: str) -> None:
    assert not unsupported_quantities(claim, ["다른 문서입니다.", source])


@pytest.mark.parametrize(
    ("claim", "source"),
    [
        ("100만원", "1억원"), ("3회", "3명"), ("3%", "3%p"), ("0.5% p.a.", "0.5%p"),
        *[(of[0], other) for of in SPELLED for others in SPELLED if others != of for other in others[:2]],
        ("1년 반", "1년"), ("1/4분기", "4분기"), ("500.", "5일"), ("The answer follows.\n300. That is all.", "5일"),
        ("KRW 10k", "10원"), ("10 million won", "a 10m road"), ("만 65세", "over 65 days"), ("5월", "you may"),
        ("1588 1234", "1588-1235"), ("CHF 2,000", "KRW 2,000"), ("2,000 rubles", "2,000원"), ("500฿", "500원"),
        ("500 호주달러", "500달러"), ("R$100", "$100"), ("5 full months", "5 days"), ("3 decades", "3 years"),
        *[(f"{code} 2,000", "KRW 2,000") for code in ("TRY", "CNH", "VND", "XAF")],
        ("10명", "10 customers"), ("3 monthly withdrawals", "3개월"), ("10 working days", "10 calendar days"),
        ("KRW 100,000 monthly payments", "100,000개월"), ("USD 10m", "an ATM 10m away"), ("5할", "5%"),
        ("0.5%p", "0.5% p.a."), ("3원", "수수료 3"), ("1년", "365일"), ("5일", "5영업일"), ("30분", "30초"),
        ("오전 9시", "오후 9시"),
        ("closes at 4:00 PM", "closes at 4:00 AM"), ("저녁 12시", "정오"), ("밤 12시", "낮 12시"),
        ("보증인 3명의 동의", "3개월"),
        ("2주의 유예 기간", "2회"), ("2026년 1월 1일", "2026년 1월"), ("2026년", "2,026 of them"), ("Q1", "Q2"),
        ("1분기", "Q1a"),
        ("1분기", "### Q1. 한도는 얼마인가요?\n300만원입니다."), ("Q1A2", "Q1B2"), ("KB1Q26", "KB2Q26, 1"),
        ("2010.05원", "2010년 5월"), ("3영업일", "3일"), ("3일", "영업일 기준 3일"), ("만 65세", "65 or more branches"),
        ("2회", "twice the fee"), ("2026년 7월", "2026.75"), ("2026년", "CHF 2026"), ("FY26", "26 branches"),
        ("25 days", "매월 25일"), ("12", "120개월"), ("HB-100", "HB-1000"), ("3장", "3%"), ("2일", "하루"),
        ("1 month", "a yearly income of KRW 24,000,000"), ("1초", "시간당"), ("10만원", "1. 예금\n10. 적금"),
        ("3", "[3] 문서"),
        ("만원", "(단위: 만원)"),
    ],
)  # fmt: skip
def test_another_value_or_unit_does_not(claim: str, source: str) -> None:
    assert unsupported_quantities(claim, [source])


@pytest.mark.parametrize(
    "text",
    [
        "1. 예금", "  12) 적금", "- 3. 대출", "## 2. 안내", "**1.** 첫째", "(1) 하나", "문서에 있습니다[1].",
        "있습니다 【2】",
        "다시 한 번 확인하세요", "one of our branches", "첫 번째", "두 번째 방법", "세금과 이자", "한도 조회",
        "네, 그렇습니다", "이 원칙", "일반 고객",
        "천만에요", "no one", "이 건은 구분하여 사회에 알립니다", "열차와 열매, 백인과 만주, 만세", "한시 상품",
        "한 시기에", "반기별, 절반, 반복", "오분의 일",
        "a hundred ways, half of it", "만 원칙",
    ],
)  # fmt: skip
def test_a_text_without_a_claim_has_no_quantity(text: str) -> None:
    assert texts(text) == []


def test_words_that_begin_like_a_counter_are_no_unit() -> None:
    read = quantities("일반 5건강 100원칙 2인출 30일반 7일부터 10원씩")
    assert [(q.text, [r.unit for r in q.readings][:1]) for q in read] == [
        ("5", []),
        ("100", []),
        ("2", []),
        ("30", []),
        ("7일", ["days"]),
        ("10원", ["KRW"]),
    ]


TABLE = """| 기간 | 금리(연 %) | 한도(만원) | 비고 |
|---|---|---|---|
| 6개월 | 2.5 | 500 | 3명 |
| 12개월 | 3.0~3.5 | 1,000 | - |
"""


def test_a_bare_number_in_a_table_has_its_columns_unit() -> None:
    assert not unsupported_quantities("금리는 2.5%, 3%에서 3.5%까지, 한도는 500만원과 1천만원", [TABLE])
    assert unsupported_quantities("한도는 500원", [TABLE])
    assert unsupported_quantities("금리는 500%", [TABLE])
    assert unsupported_quantities("금액은 2.5만원", [TABLE])


def test_a_row_label_and_a_caption_name_units_too() -> None:
    assert not unsupported_quantities("한도는 500만원", ["| 항목 | 개인 |\n|---|---|\n| 한도(만원) | 500 |"])
    assert not unsupported_quantities("수수료는 500,000원", ["(단위: 천원)\n수수료 500"])
    assert not unsupported_quantities("KRW 3 million", ["| Tier | Limit (KRW million) |\n|---|---|\n| A | 3 |"])


def test_many_rows_have_their_own_tables_units() -> None:
    heading_unit.cache_clear()
    won = "| 상품 | 금액(천원) |\n|---|---|\n" + "".join(f"| 가 | {n + 10} |\n" for n in range(300))
    rates = "| 상품 | 금리(%) |\n|---|---|\n" + "".join(f"| 나 | {n + 10} |\n" for n in range(300))
    text = f"(단위: 달러)\n77 그리고 88\n\n{won}\n(단위: 원)\n99\n\n{rates}"
    claims = ["77달러", "88달러", "99원", *(f"{n + 10}천원" for n in range(300)), *(f"{n + 10}%" for n in range(300))]
    assert not unsupported_quantities(", ".join(claims), [text])
    assert [q.text for q in unsupported_quantities("77원, 99달러, 310천원, 310%", [text])] == [
        *("77원", "99달러", "310천원", "310%")
    ]
    assert heading_unit.cache_info().misses < 20


def test_every_missing_quantity_is_named() -> None:
    assert [q.text for q in unsupported_quantities("연 2.5%, 3회, 500원", ["연 2.5%"])] == ["3회", "500원"]


ENCODINGS: list[Callable[[str], str]] = [
    lambda text: text.replace(" ", "\u00a0"),
    lambda text: text.replace(" ", "\u2009\u202f"),
    lambda text: text.replace(" ", "  "),
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: text.replace("-", "\u2011"),
    lambda text: text.replace("5", "\u00ad5\u200b"),
    lambda text: text.replace("5", "５"),
    lambda text: text.replace("5", "5¹⁾"),
    lambda text: text.replace("5", "5²⁾,³⁾"),
    lambda text: text.replace("5", "5¹⁰"),
]


@pytest.mark.parametrize("encoded", ENCODINGS)
@pytest.mark.parametrize(
    ("text", "different"),
    [
        ("건당 15만 5원", "155원"), ("최대 ₩ 155", "₩ 15"), ("KRW 25", "USD 25"), ("5 business days", "5 days"),
        ("a 25-month term", "25 days"), ("연 2.5 %", "2.5 %p"), ("2025년 5월 15일", "2025년 5월 1일"),
        ("오후 5시 15분", "오전 5시 15분"), ("다섯 번, 만 15세", "두 번"),
    ],
)  # fmt: skip
def test_a_number_is_read_alike_in_every_encoding(text: str, different: str, encoded: Callable[[str], str]) -> None:
    written = encoded(text)
    assert not unsupported_quantities(text, [written])
    assert not unsupported_quantities(written, [text])
    assert unsupported_quantities(different, [written])
    assert unsupported_quantities(encoded(different), [text])


def test_a_raised_figure_behind_a_letter_is_its_exponent() -> None:
    assert texts("85m²의 집") == ["85"]


@settings(deadline=None)
@given(st.text(max_size=80), st.sampled_from(ENCODINGS))
def test_offsets_are_those_of_the_plain_text(text: str, encoded: Callable[[str], str]) -> None:
    plain = plain_text(encoded(text))
    for quantity in quantities(encoded(text)):
        assert plain[quantity.start : quantity.end] == quantity.text != ""
