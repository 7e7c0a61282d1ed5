"""Words that say how much, when, who may or whether at all: they weigh little in a sentence's content and turn it."""

import re
import unicodedata
from collections import Counter
from typing import Final

_TURNING: Final = re.compile(
    r"최대|최소|최고|최저|최장|최단|이상|이하|초과|미만|이전|이후|(?<=[가-힣\d] )[전후]에|[전후](?=까지|부터)"
    r"|모든|모두|전부|일부|매월|매년|매일|매주|(?<![가-힣\d])[월연](?=\s?[\d%])|반드시|필수|선택|없이|외에|제외|포함"
    r"|무료|유료|면제|고정|변동|개인|법인|국내|해외|입금|출금|가입|해지|본인|대리인|평일|주말|오전|오후"
    r"|영업점|창구|(?<![가-힣])앱|전화|인터넷|고객|은행(?=[이은가])|않|없|못|불가|아니|(?<=[가-힣])만[이은을도]?(?=[\s.,]|\Z)"
    r"|[월화수목금토일]요일|다음|당일|첫|마지막"
    r"|\b(?:most|least|maximum|minimum|more|less|over|under|above|below|before|after|until|from|all|some|any|always"
    r"|never|only|without|with|must|may|could|should|once|twice"
    r"|need|have to|required|not|no|cannot|if|unless|except|per|monthly|yearly|annual"
    r"|month|year|week|day|daily|weekly|fixed|variable|branch|app|phone|open|close|deposit|withdrawal|free|either|both"
    r"|bank|customer)\b|n't\b",
    re.IGNORECASE,
)


def turning_words(text: str) -> Counter[str]:
    """Return the words of a text that turn the meaning of a sentence, with their counts."""
    return Counter(match[0].lower() for match in _TURNING.finditer(unicodedata.normalize("NFKC", text)))
