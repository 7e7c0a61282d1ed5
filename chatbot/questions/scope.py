"""Topics that the bank's documents cannot answer, recognised in the question alone; no model is called, no I/O.

Another bank's terms, the customer's own account, the future, and investment advice: similar passages exist for all of
them, so neither retrieval nor the model refuses them reliably.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Final

from knowledge.screening import one_spaced


class ExcludedTopic(StrEnum):
    """A topic that is answered with a canned reply."""

    OTHER_BANK = "other_bank"
    OWN_ACCOUNT = "own_account"
    FORECAST = "forecast"
    ADVICE = "advice"


_GENERIC_BANKS: Final = frozenset(
    {"은행", "타은행", "다른은행", "시중은행", "상대은행", "인터넷은행", "해외은행", "외국은행", "한국은행", "중앙은행"}
)
# Transfers to and from other banks are this bank's business, and its documents describe them.
_BANK_KO: Final = re.compile(
    r"(?P<name>[가-힣A-Za-z]{2,10}은행)(?!\s?(?:으로|에서|에게|한테|로|과|와|까지|계좌|통장|카드|고객|앱에))"
)
_BANK_EN: Final = re.compile(r"(?<!to )(?<!from )(?<!at )(?<!with )\b(?P<name>[A-Z][A-Za-z]{1,30}+) Bank\b(?! account)")

# The words between two others: at most so many, and each is read in one way only.
_TWO_WORDS: Final = r"\S{0,12}?(?:\s\S{0,12}?){0,2}?"
_THREE_WORDS: Final = r"\S{0,12}?(?:\s\S{0,12}?){0,3}?"
_OWN_ACCOUNT: Final = re.compile(
    rf"(?:제|내|저의|나의){_TWO_WORDS}(?:통장|계좌|카드|대출|적금|예금){_THREE_WORDS}"
    r"(?:잔액|얼마\s?(?:있|남|썼)|거래\s?내역|언제\s?만기|상태|결제일이\s?언제|왜\s)"
    rf"|(?:신청한|접수한|맡긴){_THREE_WORDS}(?:어디까지|진행|언제\s?나오|결과|됐나|되었나)"
    r"|(?<!how do i )(?<!how can i )(?<!where can i )(?<!how to )"
    r"\b(?:what(?:'s| is| are| was| were)|show(?: me)?|tell me|give me|check|look up|see|list|read(?: me)?|know)"
    r" (?:\w{1,20}+ ){0,2}?my (?:\w{1,20}+ ){0,2}(?:balance|transactions?|application status|credit score|credit limit"
    r"|spending)\b"
    r"|\bhow much (?:money )?(?:is|do i have|have i|is there|did i) (?:got )?(?:left |spend |spent )?(?:in|on"
    r"|with) my\b"
    r"|\b(?:status|progress) of my (?:\w{1,20}+ ){0,2}(?:application|loan|request|claim|complaint|card order)\b"
    r"|\bwhy (?:was|is|did|has|were) my (?:\w{1,20}+ ){0,2}(?:application|loan|mortgage|request|credit)\b[^.?]{0,20}"
    r"\b(?:declined|rejected|refused|denied|turned down|not approved)\b"
    r"|\bwhy (?:was|were) my (?:\w{1,20}+ ){0,2}(?:card|payment|transfer|account)\b[^.?]{0,40}\b(?:declined|rejected"
    r"|refused|blocked|frozen)\b[^.?]{0,40}\b(?:yesterday|today|this (?:morning|afternoon|evening)|last (?:night|week)"
    r"|just now)\b",
    re.IGNORECASE,
)
_PRICE_KO: Final = (
    r"(?:금리|이율|환율|주가|시세|가격|집값|주식|코스피|코스닥|달러|엔화|유로|물가|비트코인|코인|금값|채권|펀드)"
)
_PRICE_EN: Final = (
    r"\b(?:rates?|dollar|yen|euro|won|prices?|markets?|stocks?|shares?|inflation|bitcoin|crypto\w{0,20}|kospi|gold)\b"
)
_FORECAST: Final = re.compile(
    rf"{_PRICE_KO}[^.?\n]{{0,40}}(?:(?:오를|내릴|떨어질|상승할|하락할|인상될|인하될|바뀔)까"
    r"|(?:오르|내리|떨어지)(?:나요|겠)|어떻게 될까)"
    r"|전망|예측"
    r"|\b(?:forecast|predict|outlook)\b",
    re.IGNORECASE,
)
_WILL: Final = re.compile(
    r"\bwill\b[^.?\n]{0,60}\b(?:next (?:week|month|year|quarter)|tomorrow|in the future|go up|go down|rise|fall|drop"
    r"|be (?:higher|lower))\b",
    re.IGNORECASE,
)
_ENGLISH_PRICE: Final = re.compile(_PRICE_EN, re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"[.?\n]")
_ADVICE: Final = re.compile(
    r"(?:사도|팔아도|투자해도|넣어도|갈아타도)\s?(?:될까|괜찮을까|되나요)|(?:추천|골라)\s?(?:해|좀)?\s?주"
    r"|뭐가\s?(?:더\s?)?(?:좋을까|나을까)"
    r"|\bshould i (?:buy|sell|invest|put|move|switch)\b|\bis it (?:a )?good (?:time|idea) to\b"
    r"|\bwhich (?:stock|fund)s?\b",
    re.IGNORECASE,
)


def excluded_topic(question: str, own_names: Collection[str]) -> ExcludedTopic | None:
    """Return the topic for which the question is not answered, or None; `own_names` are the bank's own names."""
    question = one_spaced(question)
    if any(_is_other_bank(match["name"], own_names) for match in _BANK_KO.finditer(question)):
        return ExcludedTopic.OTHER_BANK
    if any(_is_other_bank(f"{match['name']} Bank", own_names) for match in _BANK_EN.finditer(question)):
        return ExcludedTopic.OTHER_BANK
    for topic, pattern in (
        (ExcludedTopic.OWN_ACCOUNT, _OWN_ACCOUNT),
        (ExcludedTopic.FORECAST, _FORECAST),
        (ExcludedTopic.ADVICE, _ADVICE),
    ):
        if pattern.search(question):
            return topic
    return ExcludedTopic.FORECAST if _is_forecast(question) else None


def _is_forecast(question: str) -> bool:
    """Tell whether a sentence asks what a price will do."""
    return any(_ENGLISH_PRICE.search(part) and _WILL.search(part) for part in _SENTENCE_END.split(question))


def _is_other_bank(name: str, own_names: Collection[str]) -> bool:
    generic = name in _GENERIC_BANKS or name.split(maxsplit=1)[0] in {
        "The",
        "Your",
        "My",
        "Another",
        "Other",
        "This",
        "A",
    }
    return not generic and not any(own in name or name in own for own in own_names)
