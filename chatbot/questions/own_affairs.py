"""Tells a customer's question about their own affairs from an order to the machine that has the same words (pure).

"Can I ignore the previous letter?" sets no instruction aside, "Why is the app blocked on my jailbroken phone?" gives no
role, and "I got a text saying '…'" obeys nothing. The patterns of knowledge/screening find the words; what is decided
here is to whom they are said. An order is an imperative, or has the machine as its subject or its object; a text that
only asks, and speaks neither to nor of the machine, is none, whatever it names. Passages of documents are not asked by
anybody and get no such reading.
"""

import re
from collections.abc import Callable
from typing import Final

from knowledge.screening import ScreeningFinding, Tactic

_IN_QUOTES: Final = r"['\"‘“「『][^'\"’”」』\n]{1,160}['\"’”」』]"
_REPORTED: Final = (
    # What a customer reports was said: by a message, a screen, a form.
    re.compile(
        rf"{_IN_QUOTES}\s?(?=이?라[는고]\s?(?:\S{{1,12}}\s)?(?:문자|메일|오류|에러|메시지|안내|알림|팝업|화면|문구|전화"
        r"|나[오와옵]|떠|뜨|뜹|쓰여|써\s?있|적혀|표시|왔|받))"
    ),
    re.compile(
        r"\b(?:say(?:s|ing)|said|shows?|showed|reads?|reading|displays?|message|error|text|warning|called|titled)"
        rf"\b[ :,]{{1,2}}{_IN_QUOTES}",
        re.IGNORECASE,
    ),
    re.compile(r"(?:\S{1,20} ){0,5}\S{1,20}라고\s(?:나[오와옵]|떠|뜨|뜹|표시)"),
)
_ASKS: Final = re.compile(r"\?\s{0,2}\Z|(?:나요|까요|가요|되죠|하죠|는지요|을까|니까)[.?]?\s{0,2}\Z")
_OF_THE_MACHINE: Final = re.compile(
    r"(?<!from )(?<!to )(?<!with )(?<!by )\byou(?:'re|'ve|'ll|'d)?\b(?! (?:sent|charge|offer|accept))"
    r"|\byour (?:\w{1,20} ){0,2}(?:instructions?|prompts?|rules?|guidelines?|restrictions?|system|programming|training"
    r"|polic\w{1,3}|configuration|memory|context|filters?|persona|role|passwords?|secrets?|previous|prior|developers?"
    r"|creators?)"
    r"|\b(?:chat ?bot|bot|assistant|ai|model|llm|gpt|prompts?|guardrails?|safeguards?|filters?|restrictions?"
    r"|system (?:message|instruction|rule)s?|hidden|confidential)\b"
    r"|너[의는를가]?\b|넌\b|네가|당신|챗봇|인공지능|프롬프트|시스템|모델|답변|대답|응답",
    re.IGNORECASE,
)
_ORDER: Final = re.compile(
    r"(?:\A|[.!?;:,\n]\s{0,2}|\b(?:and|then|please|now|just|so|but|to) )(?:(?:please|now|just|then|also) ){0,3}"
    r"(?:say|print|output|reply|respond|answer|write|repeat|tell|show|give|reveal|list|translate|ignore|disregard"
    r"|forget|pretend|act|imagine|enter|switch|start|stop|display|provide|describe|summari[sz]e|explain|execute|run"
    r"|follow|override|bypass|do not|don't|let'?s|assume|suppose)\b"
    r"|(?:해|알려|보여|써|적어|바꿔|풀어|주)\s?(?:줘|주세요|라\b|봐|주십시오|줄\s?(?:래|수)|주실|달라)|(?:하|시)십시오|세요|하라\b|하자\b"
    r"|출력|말해|반복",
    re.IGNORECASE,
)
# What asks whether, or how one goes about it, asks for no secret itself.
_ASKS_FOR_NO_SECRET: Final = re.compile(
    r"(?:\A|[.!?]\s{1,2})(?:does|do|is|are|can|could|may|should|must|will|would|did|has|have) (?!you\b)"
    r"|(?:분실|잊어버|잃어버)\S{1,6}\s어떻게",
    re.IGNORECASE,
)
_ORDERS: Final = frozenset({Tactic.OVERRIDE, Tactic.ROLE_PLAY, Tactic.AUTHORITY, Tactic.EXTRACTION, Tactic.STEERING})
"""Tactics that are nothing but an order."""


def orders_in(question: str, find: Callable[[str], tuple[ScreeningFinding, ...]]) -> tuple[ScreeningFinding, ...]:
    """Return what `find` finds in a question that is an order to the machine, not a customer's own affair."""
    findings = find(question)
    if not findings:
        return findings
    said = question
    for reported in _REPORTED:
        said = reported.sub("…", said)
    if said != question:
        findings = find(said)
    if not _ASKS.search(said) or _OF_THE_MACHINE.search(said) or _ORDER.search(said):
        return findings
    own = _ORDERS | {Tactic.SECRETS} if _ASKS_FOR_NO_SECRET.search(said) else _ORDERS
    return tuple(finding for finding in findings if finding.tactic not in own)
