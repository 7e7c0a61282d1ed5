"""What the bank's documents can never answer, told from the question alone (pure; no model is asked).

Another bank's terms, the customer's own account, what will be, and what to buy: passages that look alike exist for all
of them, so neither retrieval nor the model refuses them reliably.
"""

import re
from collections.abc import Collection
from enum import StrEnum
from typing import Final


class Outside(StrEnum):
    """Why a question lies outside the documents."""

    OTHER_BANK = "other_bank"
    OWN_ACCOUNT = "own_account"
    FORECAST = "forecast"
    ADVICE = "advice"


_ANY_BANK: Final = frozenset(
    {"은행", "타은행", "다른은행", "시중은행", "상대은행", "인터넷은행", "해외은행", "외국은행", "한국은행", "중앙은행"}
)
# Money goes to and comes from other banks: those are our transfers, and our documents speak of them.
_BANK_KO: Final = re.compile(
    r"(?P<name>[가-힣A-Za-z]{2,10}은행)(?!\s?(?:으로|에서|에게|한테|로|과|와|까지|계좌|통장|카드|고객|앱에))"
)
_BANK_EN: Final = re.compile(r"(?<!to )(?<!from )(?<!at )(?<!with )\b(?P<name>[A-Z][A-Za-z]+) Bank\b(?! account)")

_OWN_ACCOUNT: Final = re.compile(
    r"(?:제|내|저의|나의)\s*(?:\S+\s*){0,2}?(?:통장|계좌|카드|대출|적금|예금)\S*\s*(?:\S+\s*){0,2}?"
    r"(?:잔액|얼마\s*(?:있|남|썼)|거래\s*내역|언제\s*만기|상태|결제일이\s*언제|왜\s)"
    r"|(?:신청한|접수한|맡긴)\s*(?:\S+\s*){0,3}?(?:어디까지|진행|언제\s*나오|결과|됐나|되었나)"
    r"|\bmy (?:\w+ ){0,2}(?:balance|transactions?|statement balance|application status|credit score)\b"
    r"|\b(?:how much (?:money )?(?:is|do i have) (?:left )?(?:in|on) my)\b"
    r"|\bwhy (?:was|is|did|has|were) my (?:\w+ ){0,3}(?:declined|rejected|refused|blocked|charged|not approved)\b",
    re.IGNORECASE,
)
_FORECAST: Final = re.compile(
    r"(?:오를|내릴|떨어질|상승할|하락할|인상될|인하될|바뀔)까|(?:오르|내리|떨어지)(?:나요|겠)|전망|예측|어떻게 될까"
    r"|\bwill\b[^.?]{0,60}\b(?:next (?:week|month|year|quarter)|tomorrow|in the future|go up|go down|rise|fall|drop)\b"
    r"|\b(?:forecast|predict|outlook)\b",
    re.IGNORECASE,
)
_ADVICE: Final = re.compile(
    r"(?:사도|팔아도|투자해도|넣어도|갈아타도)\s*(?:될까|괜찮을까|되나요)|(?:추천|골라)\s*(?:해|좀)?\s*주"
    r"|뭐가\s*(?:더\s*)?(?:좋을까|나을까)"
    r"|\bshould i (?:buy|sell|invest|put|move|switch)\b|\bis it (?:a )?good (?:time|idea) to\b"
    r"|\bwhich (?:stock|fund)s?\b",
    re.IGNORECASE,
)


def outside(question: str, own_names: Collection[str]) -> Outside | None:
    """Return why the documents cannot answer, or nothing; `own_names` are the bank's own names."""
    if any(_is_other(match["name"], own_names) for match in _BANK_KO.finditer(question)):
        return Outside.OTHER_BANK
    if any(_is_other(f"{match['name']} Bank", own_names) for match in _BANK_EN.finditer(question)):
        return Outside.OTHER_BANK
    for reason, pattern in (
        (Outside.OWN_ACCOUNT, _OWN_ACCOUNT),
        (Outside.FORECAST, _FORECAST),
        (Outside.ADVICE, _ADVICE),
    ):
        if pattern.search(question):
            return reason
    return None


def _is_other(name: str, own_names: Collection[str]) -> bool:
    generic = name in _ANY_BANK or name.split(maxsplit=1)[0] in {"The", "Your", "My", "Another", "Other", "This", "A"}
    return not generic and not any(own in name or name in own for own in own_names)
