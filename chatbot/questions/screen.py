"""Screen a question before all other steps: mask identifiers, and decide without a model whether it may be answered.

The verdict uses the unmasked text, so that masking cannot hide an injection among digits. Patterns are matched after
normalisation: compatibility forms are folded and invisible characters removed.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chatbot.questions.languages import is_unserved_language
from knowledge.screening import IdentifierKind, ScreeningFinding, Tactic, find_injection, mask, normalised


class Verdict(StrEnum):
    """Whether a question may be answered, or why it gets a canned reply."""

    OK = "ok"
    INJECTION = "injection"
    OUT_OF_SCOPE = "out_of_scope"
    DISTRESS = "distress"


@dataclass(frozen=True, slots=True)
class ScreenedQuestion:
    """A screened question: its masked `text`, the kinds of `masked` identifiers, and the verdict."""

    text: str
    masked: tuple[IdentifierKind, ...]
    verdict: Verdict
    findings: tuple[ScreeningFinding, ...] = ()


# Words about the customer's own life; an insurance question that mentions suicide does not match.
_DISTRESS: Final = re.compile(
    r"자살 ?(?:하고 ?싶|할 ?(?:래|까|거|게|생각|것 같)|충동|하려)|자해(?:하고|를 하|하게)|죽고 ?싶|죽어 ?버(?:리고"
    r"|릴)|목숨을 끊고"
    r"|극단적(?:인)? 선택을? ?(?:하고|할)|살고 ?싶지 ?않|살기 ?싫|더 ?이상 못 ?살겠"
    r"|\b(?:i'?m|i am|feel(?:ing)?) (?:so |really )?suicidal\b|\b(?:commit|thinking (?:of|about)"
    r"|considering) suicide\b"
    r"|\b(?:kill|hurt|harm)(?:ing)? myself\b|\bend (?:my (?:own )?life|it all)\b"
    r"|\b(?:want|wish) to die\b|\bdon'?t want to (?:live|be alive)\b",
    re.IGNORECASE,
)
# Tasks for a general assistant, whatever their topic.
_FOREIGN_TASK: Final = re.compile(
    r"\b(?:translate|paraphrase|proofread|rewrite)\b[^.?\n]{0,60}\b(?:into|to|in) (?:\w{1,20}ish|french|german|japanese"
    r"|chinese|"
    r"korean|italian|portuguese|latin|arabic)\b"
    # "How do I create a PIN code?" and "tell me the SWIFT code" do not ask for a program.
    r"|(?<!\bi )(?<!how to )\b(?:write|compose|create|generate|draft)\b(?: me)?[^.?\n]{0,30}\b(?:poems?|haikus?|songs?"
    r"|lyrics|jokes?|stor(?:y|ies)|essays?|novels?|e-?mails? (?:based|using)|outreach|screenplay|python|javascript"
    r"|(?<!pin )(?<!otp )(?<!qr )(?<!time )(?<!access )(?<!security )(?<!new )(?<!the )(?<!cation )code|scripts?"
    r"|program|resume|action items)\b"
    r"|(?<!\bi )(?<!how to )\bwrite (?:me )?the code\b"
    r"|\btell\b(?: me)?[^.?\n]{0,30}\b(?:poems?|haikus?|jokes?|stor(?:y|ies))\b"
    r"|\b(?:summari[sz]e|main conclusions? of|output of) (?:this|the following|these) (?:web ?page|paper|article"
    r"|text|code|e-?mail|document)\b"
    r"|\b(?:determine|classify|identify|analy[sz]e|detect|assess)\b[^.?\n]{0,40}\b(?:sentiment|mood|tone|emotion)s?\b"
    r"|<table>|<html>|\b(?:recipes?|horoscope)\b|\bweather\b[^.?\n]{0,20}\b(?:like|in|today|tomorrow|forecast)\b"
    r"|\b(?:talk|speak|tell me|discuss\w{0,8}|explain)\b[^?\n]{0,60}\b(?:equations?|quantum|physics|politics|religion"
    r"|climate (?:change|crisis)|global "
    r"temperature|neural networks?|schr?[oö]dinger)\b"
    # "다시 만들어 주세요" asks for no poem (시); QR codes and talk about a loan (대출 이야기) are banking topics.
    r"|(?:(?<![가-힣])시|소설|노래|가사|농담|에세이|동화|프로그램|파이썬|(?:파이썬|자바\S{0,6}|소스)\s?코드"
    r"|(?:\A|재미있는|재밌는|무서운|웃긴|옛날|슬픈|짧은)\s?이야기)(?:를|을|\s)?\s?(?:하나 |좀 |한 ?편 )*"
    r"(?:써|지어|작성해|만들어|짜|해) ?(?:줘|주세요|줄래|봐)"
    r"|이야기(?:를|을|\s)?\s?(?:하나 |좀 |한 ?편 )*(?:써|지어) ?(?:줘|주세요|줄래|봐)"
    r"|코드(?:를|을|\s)?\s?(?:하나 |좀 )*(?:써|작성해|짜) ?(?:줘|주세요|줄래|봐)"
    r"|(?:영어|일본어|중국어|스페인어|프랑스어|독일어)로 (?:번역|통역)해|레시피|날씨(?:가|는)? ?(?:어때|어떤|알려)",
    re.IGNORECASE,
)
_BANKING: Final = re.compile(
    r"bank|account|card|transfer|deposit|loan|mortgage|\bfees?\b|pay|money|cash|\binterest|balance|credit|debit"
    r"|currency|exchange"
    r"|top.?up|refund|charge|atm\b|\bapp\b|\bpins?\b|statement|savings|insurance|invest|remit|transaction|withdraw"
    r"|identity"
    r"|계좌|통장|카드|은행|이체|대출|금리|이자|수수료|예금|적금|송금|결제|입금|출금|보험|펀드|환전|인증|한도|만기"
    r"|해지|상환|연체|신용|담보"
    r"|가입|세금|수표|외화|비밀번호|앱|영업점|지점|주식|투자|연금|청약|민원|보이스피싱|사기|잔액|자동화기기",
    re.IGNORECASE,
)
_HARMLESS: Final = frozenset({Tactic.MARKUP})
# A text of at least this many characters without a banking word is out of scope.
_LONG: Final = 200


def screen(question: str) -> ScreenedQuestion:
    """Return the masked question and its verdict."""
    masked = mask(question)
    text = normalised(question)
    if _DISTRESS.search(text):
        return ScreenedQuestion(masked.text, masked.kinds, Verdict.DISTRESS)
    findings = tuple(finding for finding in find_injection(question) if finding.tactic not in _HARMLESS)
    if findings:
        return ScreenedQuestion(masked.text, masked.kinds, Verdict.INJECTION, findings)
    is_out_of_scope = (
        is_unserved_language(text)
        or _FOREIGN_TASK.search(text) is not None
        or (len(text) >= _LONG and not _BANKING.search(text))
    )
    verdict = Verdict.OUT_OF_SCOPE if is_out_of_scope else Verdict.OK
    return ScreenedQuestion(masked.text, masked.kinds, verdict)
