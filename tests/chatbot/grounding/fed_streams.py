"""Builders: passages, and streams of checks that were fed with answers."""

from collections.abc import Iterator, Sequence
from datetime import date

from hypothesis import strategies as st

from chatbot.events import Citation, Event, Token
from chatbot.grounding import GroundingStream
from evals.sample_bank import sample_banks
from knowledge.passage import Language, Passage


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
    sources: Sequence[Passage] = SOURCES, language: Language = "ko", question: str = QUESTION
) -> GroundingStream:
    return GroundingStream(sources, language=language, question=question, bank=sample_banks().first)


def events_of(checks: GroundingStream, feeds: Sequence[str]) -> list[Event]:
    events = [event for text in feeds for event in checks.feed(text)]
    return [*events, *checks.close()]


def merged(events: Sequence[Event]) -> list[Event]:
    """Join neighbouring tokens: where a feed was cut makes no difference."""
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


def checked(
    text: str, sources: Sequence[Passage] = SOURCES, *, question: str = "", language: Language = "ko"
) -> GroundingStream:
    """Return a stream that was fed with a whole answer from these sources."""
    checks = stream(sources, language, question)
    events_of(checks, [text])
    return checks


def cuts(text: str, sizes: Sequence[int]) -> Iterator[str]:
    at = 0
    for size in [*sizes, len(text)]:
        yield text[at : at + size]
        at += size


GOOD = "한빛 정기예금의 12개월 금리는 연 3.0%입니다."
WRONG_RATE = "한빛 정기예금의 12개월 금리는 연 4.0%입니다."
INVENTED = "가입 고객 전원에게 해외여행 상품권을 증정합니다."
ENGLISH = "The replacement fee is KRW 2,000."
SENTENCES = st.sampled_from(
    [
        GOOD, WRONG_RATE, INVENTED, ENGLISH,
        "네.", "네, 가능합니다.", "안녕하세요.", "최소 가입금액은 1백만원입니다 [1].",
        "타행 이체 수수료는 건당 500원입니다[2].",
        "- 모바일 이체 수수료 면제 (문서 2)\n", "\n\n", "1. 만 19세 이상 가입\n", "| 12개월 | 3.0 |\n",
        "2026. 1. 1. 부터 3~5영업일 걸립니다.",
        "영업점은 오후 9시에 닫고 매월 3일에 쉽니다.", "It takes five to seven days", "두 번 하루 5천만 원까지",
        "연 2.", "5%",
        "문의: 1599-0000.", "https://example.com 에서 확인하세요.", "[", "…",
    ]
)  # fmt: skip
ANSWERS = st.lists(st.tuples(SENTENCES, st.sampled_from([" ", "", "  "])), max_size=8).map(
    lambda parts: "".join(part for pair in parts for part in pair)
)
