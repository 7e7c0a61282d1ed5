"""Detect topics that the bank's documents cannot answer, from the question alone, without a model. No I/O.

The topics are other banks' terms, the customer's own account, forecasts and investment advice. The documents have
similar passages for all of them, so neither retrieval nor the model rejects them reliably.
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


_GENERIC_BANKS: Final = frozenset({"은행"}) | {
    f"{kind}은행"
    for kind in """타 다른 시중 상대 상대방 인터넷 해외 외국 한국 중앙 국내 지방 저축 주거래 거래 수취 받는
    받으시는 보내는 송금 입금 출금 지급 결제 발급 개설 취급 이용 제휴 중개 어느 어떤 무슨 모든 여러 각 해당
    이전""".split()  # noqa: SIM905  # a word list reads best as prose
}
# Words before "Bank" that name no bank in particular.
_NOT_NAMES: Final = frozenset(
    {"The", "Your", "My", "Another", "Other", "This", "A", "Any", "Which"}
    | {"Receiving", "Sending", "Correspondent", "Intermediary", "Beneficiary", "Issuing"}
)
# Transfers to and from other banks are this bank's business, and its documents describe them.
_BANK_KO: Final = re.compile(
    r"(?P<name>[가-힣A-Za-z]{2,10}은행)(?!\s?(?:으로|에서|에게|한테|로|과|와|까지|계좌|통장|카드|고객|앱에|ATM|CD기|자동화\s?기기))"
)
_BANK_EN: Final = re.compile(
    r"(?<!to )(?<!from )(?<!at )(?<!with )\b(?P<name>[A-Z][A-Za-z]{1,30}+) Bank\b"
    r"(?! (?:account|ATM)|(?<=Savings Bank) (?:Account|Deposit))"
)

# A bounded number of words between two others, without ambiguous matches.
_TWO_WORDS: Final = r"\S{0,12}?(?:\s\S{0,12}?){0,2}?"
_THREE_WORDS: Final = r"\S{0,12}?(?:\s\S{0,12}?){0,3}?"
# Matches "내 카드", but not "제휴 카드" or "국내 카드".
_MINE: Final = r"(?<![가-힣])(?:제(?![휴출한시일세품도공안대외])|내(?![용역년일부는야려고도면외])|저의|나의)"
_OWN_ACCOUNT: Final = re.compile(
    rf"{_MINE}{_TWO_WORDS}(?:통장|계좌|카드|대출|적금|예금){_THREE_WORDS}"
    r"(?:잔액|얼마\s?(?:있|남|썼)|거래\s?내역|언제\s?만기|상태|결제일이\s?언제"
    r"|왜\s\S{0,12}\s?(?:거절|정지|막혔|막혀|차단|반려|부결|빠져나|빠졌|나갔|안\s?됐))"
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
# The documents answer questions about procedures, certificates and rules, even for the customer's own account.
_ASKS_FOR_PROCEDURE: Final = re.compile(
    r"어떻게(?!\s?[되돼된됩됐])|방법|어디(?:서|에|로)|려면|증명서|내역서|수수료|부족"
    r"|\bhow (?:do|can|to|long)\b|\bwhere\b|\bwhen will\b|\bway (?:for me )?to\b|\b(?:recipient|the person)\b",
    re.IGNORECASE,
)
_MARKET_KO: Final = r"환율|주가|시세|집값|주식|코스피|코스닥|달러|엔화|유로|물가|비트코인|코인|금값|채권|펀드"
_PRICE_KO: Final = rf"(?:금리|이율|가격|{_MARKET_KO})"
_PRICE_EN: Final = (
    r"\b(?:rates?|dollar|yen|euro|won|prices?|markets?|stocks?|shares?|inflation|bitcoin|crypto\w{0,20}|kospi|gold)\b"
)
_FORECAST: Final = re.compile(
    rf"{_PRICE_KO}[^.?\n]{{0,40}}(?:(?:오를|내릴|떨어질|상승할|하락할|인상될|인하될|바뀔)까"
    r"|(?:오르|내리|떨어지)겠|어떻게 될까)"
    r"|(?<!안)전망|예측(?!\s?(?:하지\s?|할\s수\s?)?[못없불])",
    re.IGNORECASE,
)
_WILL: Final = re.compile(
    r"\bwill\b[^.?\n]{0,60}\b(?:next (?:week|month|year|quarter)|tomorrow|in the future|go up|go down|rise|fall|drop"
    r"|be (?:higher|lower))\b"
    r"|\b(?:forecast|predict|outlook)\b",
    re.IGNORECASE,
)
_PRICE_MOVES: Final = re.compile(rf"{_PRICE_KO}[^.?\n]{{0,40}}(?:오르|내리|떨어지)나요")
# "연체하면 금리가 오르나요?" asks about a term of the contract.
_CONDITION: Final = re.compile(
    r"[가-힣]면\s|\b(?:if|when|once|after|unless) (?:i|we|my|our|the (?:base|policy|reference|key) rate)\b"
    r"|\bafter the (?:first|fixed|introductory|promotional)\b|\bmy (?:\w{1,20}+ ){0,3}rate\b",
    re.IGNORECASE,
)
# But a contract does not set market prices: "기준금리가 오르면 환율이 내리나요?" asks for a forecast.
_MARKET_PRICE: Final = re.compile(
    rf"(?:{_MARKET_KO})[가-힣]?\s(?:\S{{1,6}}\s)?"
    r"(?:오르|내리|떨어지)나요"
    r"|\bwill (?:the )?(?:\w{1,20}+ )?(?:exchange rate|dollar|won|yen|euro|stock|share|bitcoin|gold|inflation"
    r"|house price)s?\b",
    re.IGNORECASE,
)
_ENGLISH_PRICE: Final = re.compile(_PRICE_EN, re.IGNORECASE)
_SENTENCE_END: Final = re.compile(r"[.?\n]")
# "만기 전에 갈아타도 되나요?" asks for permission, "지금 갈아타도 될까요?" for advice.
_ADVICE: Final = re.compile(
    r"(?:사도|팔아도|투자해도)\s?(?:될까|괜찮을까|되나요)|(?:넣어도|갈아타도)\s?(?:될까|괜찮을까)"
    r"|(?:지금|요즘|주식|코인|펀드)[^.?\n]{0,20}(?:넣어도|갈아타도)\s?되나요"
    r"|(?:추천|골라)\s?(?:해|좀)?\s?주(?![는고면]|셔서|신\s)"
    r"|뭐가\s?(?:더\s?)?(?:좋을까|나을까)"
    r"|\bshould i (?:buy|sell|invest|(?:put|move) (?:\w{1,20}+ ){0,3}(?:money|savings|cash|won|dollars?|funds|it all"
    r"|everything)|switch (?:\w{1,20}+ ){0,3}(?:to|into|from))\b"
    r"|\bis it (?:a )?good (?:time|idea) to (?:buy|sell|invest|exchange|change|convert|switch|borrow|refinance|fix|put"
    r"|move|take|save)\b"
    r"|\bwhich (?:stock|fund)s? (?:should|would|do you|will|can you|is|are (?:best|better|good|worth|likely))\b",
    re.IGNORECASE,
)


def excluded_topic(question: str, own_names: Collection[str]) -> ExcludedTopic | None:
    """Return the excluded topic of a question, or None; `own_names` are the bank's own names."""
    question = one_spaced(question)
    if any(_is_other_bank(match["name"], own_names) for match in _BANK_KO.finditer(question)):
        return ExcludedTopic.OTHER_BANK
    if any(_is_other_bank(f"{match['name']} Bank", own_names) for match in _BANK_EN.finditer(question)):
        return ExcludedTopic.OTHER_BANK
    if _OWN_ACCOUNT.search(question) and not _ASKS_FOR_PROCEDURE.search(question):
        return ExcludedTopic.OWN_ACCOUNT
    if _FORECAST.search(question) or any(map(_asks_for_forecast, _SENTENCE_END.split(question))):
        return ExcludedTopic.FORECAST
    return ExcludedTopic.ADVICE if _ADVICE.search(question) else None


def _asks_for_forecast(sentence: str) -> bool:
    """Return whether a sentence asks for a price forecast, and not for a price under a condition."""
    asks_for_change = _PRICE_MOVES.search(sentence) or (_ENGLISH_PRICE.search(sentence) and _WILL.search(sentence))
    has_condition = _CONDITION.search(sentence) and not _MARKET_PRICE.search(sentence)
    return bool(asks_for_change) and not has_condition


def _is_other_bank(name: str, own_names: Collection[str]) -> bool:
    is_generic = name in _GENERIC_BANKS or name.split(maxsplit=1)[0] in _NOT_NAMES
    is_own = any(own_name in name or name in own_name for own_name in own_names)
    return not is_generic and not is_own
