"""Recognises text that tries to instruct the model instead of asking the bank, in Korean and English.

Patterns name what every such text must do (set instructions aside, ask for the prompt, give a role, smuggle a message
in a code, forge a turn), not the wording of known attacks. Coded text is decoded and read once more.
"""

import base64
import binascii
import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Trick(StrEnum):
    OVERRIDE = "override"
    EXTRACTION = "extraction"
    ROLE_PLAY = "role_play"
    AUTHORITY = "authority"
    SECRETS = "secrets"
    SMUGGLING = "smuggling"
    ROLE_MARKER = "role_marker"
    HIDDEN = "hidden"
    FLOOD = "flood"
    STEERING = "steering"


@dataclass(frozen=True, slots=True)
class Finding:
    """One trick and the words that show it."""

    trick: Trick
    excerpt: str


_INSTRUCTIONS: Final = (
    r"(?:instruction|directive|prompt|rule|guideline|command|task|restriction|polic(?:y|ie)|context|"
    r"programming|training|conversation|direction|constraint|safeguard|filter)s?"
)
_BEFORE: Final = (
    r"(?:previous|prior|preceding|earlier|above|foregoing|initial|original|past|existing|current|other|all|any"
    r"|every|your|my|the|these|"
    r"those|of|and|following|system|safety|before)"
)
_JIBUN: Final = r"(?:지시|지침|명령|규칙|설정|프롬프트|제약|제한|안내문|가이드라인|정책|룰)"
_PROMPT: Final = (
    r"(?:system|initial|original|hidden|secret|internal|starting|first|full|entire|exact|pre|developer|base"
    r"|custom|configuration)[- ]?"
    r"(?:prompt|instruction|message|directive|configuration|guideline|rule|setting|text|persona|setup"
    r"|initialization)s?"
)
_SHOW: Final = (
    r"(?:show|reveal|print|output|repeat|display|give|tell|write|return|share|expose|leak|dump|list|recite"
    r"|disclose|translate|"
    r"summari[sz]e|copy|encode|paste|provide|describe|state|what (?:is|are|was|were))"
)
_SOMEBODY: Final = (
    r"(?:the |that |this |another |other |different |each |every |all )?(?:users?|customers?|clients?|people"
    r"|persons?|account holders?|employees?)(?:'s?|s')?"
)
_PERSONAL: Final = (
    r"(?:passwords?|pins?|e-?mails?|birth ?(?:day|date|year)?s?|addresses|address|phone numbers?"
    r"|personal (?:data|information)|data|"
    r"balances?|accounts?|salary|socioeconomic|favou?rite \w+|age|location|city|income|transactions?"
    r"|credit card|ssn|names?)"
)
_PATTERNS: Final[tuple[tuple[Trick, re.Pattern[str]], ...]] = tuple(
    (trick, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
    for trick, pattern in (
        (Trick.OVERRIDE, rf"\b(?:ignor\w*|disregard\w*|forget|override|bypass|overrul\w*|set aside"
         rf"|do not (?:follow|obey)|don't follow|"
         rf"stop following|discard|neglect|erase|regardless of|cancel"
         rf"|pay no attention to)\b[^.\n]{{0,25}}?\b{_BEFORE}\b[^.\n]{{0,40}}?\b{_INSTRUCTIONS}\b"),
        (Trick.OVERRIDE, r"\b(?:ignore|disregard|forget) (?:all |about |everything |of )*(?:the |what is "
         r"|what was |you (?:were|have been) told |that came )?(?:above|before|previous(?:ly)?|earlier|prior)\b"),
        (Trick.OVERRIDE, r"\bforget (?:about )?(?:that|this|it|everything)\b[,.]? (?:and |now )?(?:can|could"
         r"|just|please|tell|give|write|you)\b"),
        (Trick.OVERRIDE, r"\b(?:ignore|disregard) (?:the|this) (?:web ?page|function|paper|table|article|text"
         r"|document|email|question|user|content)\b"),
        (Trick.OVERRIDE, r"\bstop everything\b|\bnew (?:instructions?|rules?|task|directive)\s*:"
         r"|\bjust (?:print|say|output|repeat|respond with)\b[^.\n]{0,5}[\"'“]"),
        (Trick.OVERRIDE, rf"(?:이전|위|앞|앞서|앞선|지금까지|기존|모든|원래|아래|이상|당신"
         rf"|너)[^.\n]{{0,18}}{_JIBUN}[^.\n]{{0,14}}(?:무시|잊|따르지|삭제|초기화|해제|벗어|건너뛰|취소|폐기)"),
        (Trick.OVERRIDE, r"(?:이전|위|앞|앞서|지금까지|기존|모든|다른)(?:의|에|에서|의 것|것|까지)?\s?(?:것"
         r"|내용|대화|말|질문|문장|작업|모든 것)?(?:을|를|은|는|들은|들을)?\s?(?:모두\s?|전부\s?"
         r"|다\s?)?(?:무시|잊어)"),
        (Trick.OVERRIDE, rf"{_JIBUN}(?:을|를|은|는|사항을)?\s?(?:모두 |전부 |다 )?(?:무시|잊어|따르지 ?(?:마"
         rf"|말)|어기)"),
        (Trick.OVERRIDE, r"무시하(?:고|세요|십시오|시고)[^.\n]{0,30}(?:말하|말해|출력|대답|답하|답해|알려|적어"
         r"|써|반복|번역)"),
        (Trick.EXTRACTION, rf"\b{_SHOW}\b[^.\n]{{0,40}}?\b{_PROMPT}\b"),
        (Trick.EXTRACTION, r"\b(?:your|the) (?:system |initial |original |hidden |secret |internal |starting "
         r"|developer )?(?:prompt|instructions|initialization string|system message"
         r"|guidelines)\b(?=[^\n]{0,3}(?:\?|\.?$| (?:above|verbatim|you were given)))(?! (?:on|for|to|in|at|of"
         r"|you sent|i received|from)\b)"),
        (Trick.EXTRACTION, r"\b(?:repeat|output|print|copy|show|display|write|translate|encode"
         r"|recite)\b[^.\n]{0,20}\b(?:text|words?|everything|content|lines?|paragraph"
         r"|sentences?)\b[^.\n]{0,12}\b(?:above|before|verbatim)\b|\babove text\b|\binitialization (?:string"
         r"|text)\b"),
        (Trick.EXTRACTION, r"\b(?:begin|start) your (?:answer|response|reply|message) with\b|\b(?:what"
         r"|which) (?:model|llm|language model) are you\b|\bknowledge cut-?off\b"),
        (Trick.EXTRACTION, r"\bsystem prompts?\b|\b(?:pre-?|meta-?)prompts?\b"),
        (Trick.EXTRACTION, r"시스템\s?(?:프롬프트|메시지|지시|지침|명령|설정 ?값)"),
        (Trick.EXTRACTION, rf"(?:초기|처음|원래|숨겨진|내부|최초|비밀|너의|네|당신의|챗봇의|받은"
         rf"|주어진)\s?(?:{_JIBUN}|지시문|지시사항)[^.\n]{{0,20}}(?:보여|알려|출력|공개|말해|뭐|무엇|그대로"
         rf"|복사|번역|적어|써|요약|나열)"),
        (Trick.EXTRACTION, r"프롬프트(?:를|을|가|는|의|\s)[^.\n]{0,15}(?:보여|알려|출력|공개|말해|뭐|무엇"
         r"|그대로|복사|번역|적어|내용)|(?:위|앞)(?:의|에)?\s?(?:있는\s?)?(?:텍스트|내용|글|문장|문구)(?:를"
         r"|을)?\s?(?:모두 |전부 |그대로 |다시 )+(?:출력|반복|복사|적어|써)"),
        (Trick.ROLE_PLAY, r"\b(?:DAN|DUDE|STAN|AIM|Anti-?GPT|BetterDAN|DevMode) mode\b|\bdo anything now\b"
         r"|\bact(?:ing)? (?:just |exactly )?(?:like|as) (?:a |an )?(?:dan\b|dude\b|unrestricted|unfiltered"
         r"|evil|jailbr)|\bjailbr(?:eak|oken)"),
        (Trick.ROLE_PLAY, r"\b(?:developer|debug|god|admin(?:istrator)?|sudo|root|maintenance|override"
         r"|unrestricted|system|opposite|dan|evil|jailbreak)[ -]mode\b[^.\n]{0,20}(?:enabled|activated|on\b"
         r"|engaged|entering|>|:)?"),
        (Trick.ROLE_PLAY, r"\b(?:from now on|for the rest of this|in this (?:role|scenario"
         r"|game))\b[^.\n]{0,30}\b(?:you (?:are|will|must|have)|act|pretend|behave|respond|answer)\b"),
        (Trick.ROLE_PLAY, r"\b(?:you are|you're|you will be|act as|pretend (?:to be|that you|you)"
         r"|play(?:ing)? the role of|immerse yourself|roleplay as|simulate (?:being )?)\b[^.\n]{0,40}\b(?:ai"
         r"|model|dan|persona|character|assistant without|no (?:rules|restrictions|limits|filter)|unrestricted"
         r"|unfiltered|hacker|language generation|anthropologist|world|virtual machine|terminal|future)\b"),
        (Trick.ROLE_PLAY, r"\b(?:no|without|free (?:of|from)|freed from|broken free"
         r"|bypass\w*)\b[^.\n]{0,25}\b(?:ethical|moral|content polic|typical confines|restrictions?|filter(?:s"
         r"|ing)?|censorship|guidelines|limitations?)\b[^.\n]{0,40}\b(?:ai|you|answer|respond|respon|abide)\b"
         r"|\bspecial filtering\b"),
        (Trick.ROLE_PLAY, r"\b(?:imagine|suppose|let's (?:say|imagine|pretend)|hypothetical(?:ly)?"
         r"|in a (?:fictional|parallel|dystopian))\b[^?\n]{0,160}\b(?:phishing|password|birth (?:date|year)"
         r"|e-?mail address|personal data|passwords|you're an? |you are an? |we ignore|malware|hack)"),
        (Trick.ROLE_PLAY, r"(?:지금|이제|여기서)부터[^.\n]{0,25}(?:너|넌|당신|네)[^.\n]{0,50}(?:역할|인 ?척"
         r"|척해|처럼|모드|인공지능|ai\b|연기|행동|이다|이야|답해|대답)"),
        (Trick.ROLE_PLAY, r"(?:너는|넌|당신은)\s?(?:이제|지금부터|더 ?이상)[^.\n]{0,40}(?:제한|역할|모드|아니"
         r"|무엇이든|자유)"),
        (Trick.ROLE_PLAY, r"(?:개발자|관리자|디버그|시스템|루트|무제한|유지보수|갓|점검|슈퍼"
         r"|제한\s?해제)\s?모드|탈옥\s?(?:모드|해|프롬프트|시켜|된)|제한\s?없(?:는|이)[^.\n]{0,15}(?:ai"
         r"|인공지능|챗봇|모드|답)|(?:필터|검열|안전\s?장치)(?:를|을|가)?\s?(?:해제|없|우회|끄|꺼|무시)"),
        (Trick.ROLE_PLAY, r"(?:가상의|가상|가설적인?|허구의|소설 속)\s?(?:시나리오|상황|대화|세계"
         r"|설정)[^.\n]{0,40}"),
        (Trick.AUTHORITY, r"\bi(?:'m| am)(?: now)? (?:your|the|a) (?:developer|creator|owner|boss"
         r"|administrator|admin|manager|programmer|ceo|god)\b|\bi am god\b|\bas your (?:boss|developer|creator"
         r"|owner|admin)|\b(?:security|enforcement|admin|system) override\b|\b(?:for|as part of) (?:this|a"
         r"|the) (?:system (?:check|upgrade)|security audit|quality assurance)\b"),
        (Trick.AUTHORITY, r"(?:나는|난|저는|내가)\s?(?:너의|네|당신의|이 시스템의|시스템)?\s?(?:개발자|관리자"
         r"|창조자|주인|제작자|운영자|경찰관|신)(?:이다|이야|다\b|야|입니다|로서|이니|인데)"),
        (Trick.SECRETS, r"\b(?:users?|customers?|clients?|people|persons?) in (?:your|the) (?:database|system"
         r"|records)\b|\bthe user (?:were|lives?|is|was|has|had|currently)\b"),
        (Trick.SECRETS, rf"\b{_SOMEBODY} {_PERSONAL}\b(?! (?:service|support|centre|center|team|care|with|for"
         rf"|and|is|was|were|been|has|have|when|or|will)\b)|\bwhere (?:does|is|do) {_SOMEBODY}(?: currently"
         rf"| now)? liv"),
        (Trick.SECRETS, r"\b(?:share|tell me|give me|reveal|confirm|know|what(?:'s| is| was"
         r"| would)(?: be)?) (?:your|our|the (?:system|secret|admin|master|root)) (?:\w+ )?(?:passwords?"
         r"|passcode|secret key|api key|credentials|token|secret)\b|\b(?:sharing|shared?) (?:your"
         r"|their) passwords?\b|\bwhat(?:'s| is) the password\b|\b(?:haiku|poem|story|song"
         r"|riddle) about the password\b|\bsecret key\b|\baccess to your account\b|\bpasswords? are shared\b"),
        (Trick.SECRETS, r"\b(?:what(?:'s| is| are)|tell me|give me|show me|list|could you tell me"
         r"|using)\b[^.?\n]{0,40}?\b(?-i:[A-Z][a-z]+(?: [A-Z][a-z]+)?)'s (?:e-?mail|birth|address|phone"
         r"|balance|password|account|salary|bank)|\b(?:balance|password|e-?mail(?: address)?|account number"
         r"|address) of (?-i:[A-Z][a-z]+ [A-Z][a-z]+)\b"),
        (Trick.SECRETS, r"(?:다른|타인|타)\s?(?:고객|사람|사용자|회원|이용자)(?:들)?(?:의"
         r"|\s)[^.\n]{0,12}(?:정보|잔액|비밀번호|거래\s?내역|개인정보|생년월일|주소|연락처"
         r"|전화번호)[^.\n]{0,12}(?:보여|알려|조회|출력|뭐|무엇|말해|내놔|줘)"),
        (Trick.SECRETS, r"사용자(?:의|가|는|들의|\s)[^.?\n]{0,25}(?:비밀번호|암호|생년월일|생일|출생|주소|거주"
         r"|사는|살고|이메일|잔액|전화번호|좋아하는|위치)|(?:비밀번호|암호)(?:를|는|은)?\s?공유(?:해|하)"
         r"|(?:너의|네|당신의|시스템|관리자|우리의?)\s?(?:비밀번호|암호|비밀 ?키|api ?키)|(?:비밀번호"
         r"|암호)(?:는|가)\s?(?:무엇|뭐|뭔)"),
        (Trick.SMUGGLING, r"\b(?:decode|decipher|decrypt|encode|encrypt|rot-?13|base-?64|caesar|morse"
         r"|pig latin|leetspeak|binary string|hex(?:adecimal)? string|cipher|ciphertext|interlace)\b|(?:디코딩"
         r"|복호화|인코딩|rot-?13|base-?64|시저 암호|모스 부호|인터레이스|암호를 해독)"),
        (Trick.SMUGGLING, r"\b[a-z] ?= ?[\"'“][^\"'”\n]{1,120}[\"'”][^\n]{0,200}\b[a-z] ?= ?[\"'“]"
         r"|\b[a-z] ?\+ ?[a-z] ?\+ ?[a-z]\b|\bconcatenat\w+"),
        (Trick.SMUGGLING, r"(?:[01]{8}[ ,]?){4,}|(?:\\x[0-9a-f]{2}){4,}|(?:\\u[0-9a-f]{4}){4,}"
         r"|(?:&#x?[0-9a-f]{2,6};){4,}|(?:%[0-9a-f]{2}){5,}"),
        (Trick.SMUGGLING, r"\b(?:backwards?|in reverse(?: order)?|each letter|every letter|substitution"
         r"|first (?:three |two )?letters? of|vowels? with|dashes in between|letter by letter)\b"),
        (Trick.ROLE_MARKER, r"<\|[^|>\n]{1,40}\|?>|\[/?INST\]|<</?SYS>>|</?(?:system|assistant|user"
         r"|instructions?|s)>|<(?:system|now entering)[^>\n]{0,40}(?:mode|override)[^>\n]{0,20}>|\b(?:begin"
         r"|end) (?:of )?(?:system|new|admin|prompt|user|document|context)[a-z ]{0,20}(?:prompt|instructions?"
         r"|message|text|input)?\s*(?:-{2,}|={2,}|\]|>)"),
        (Trick.ROLE_MARKER, r"^\s*[#*\[(<]{0,4}\s*(?:system|assistant|developer|human|시스템|어시스턴트"
         r"|개발자)\s*(?:prompt|message|메시지|프롬프트|지시)?\s*[\])>*]{0,3}\s*[:：]|^#{2,}\s*(?:instruction"
         r"|response|system|new task|override)s?\b|\b(?:system mode|override_mode)\b"),
        (Trick.ROLE_MARKER, r"\bQ\s?:[^\n]{5,}\bA\s?:[^\n]{5,}\bQ\s?:"),
        (Trick.HIDDEN, r"<!--.*?(?:-->|$)|display\s*:\s*none|font-size\s*:\s*0|visibility\s*:\s*hidden"
         r"|<script\b|<iframe\b|\bjavascript:|!\[[^\]]*\]\(https?://[^)]*[?&][^)]*\)|<img\b[^>]*\balt\s?="),
        (Trick.STEERING, r"\b(?:phishing e-?mail|malware|ransomware|hate humans|kill all humans)\b|\bstat(?:e"
         r"|ing) (?:that |the )(?:output|i used|your account)|\bprint the following\b"),
        (Trick.STEERING, r"\b(?:append|add|include|insert|integrate|modify|shift|mention|embed|weave|place|put"
         r"|incorporate|apply|reply|respond|answer|end|begin|start)\b[^.?\n]{0,80}\b(?:in|to|into|of|with"
         r"|within|throughout|at the (?:end|start|beginning) of) your (?:response|reply|answer|output"
         r"|message)s?\b|\b(?:reply|respond|answer) (?:only )?(?:in|with|using) (?:reverse|emojis?|code|cipher"
         r"|base|rot|pirate|rhymes?|html|json|binary|morse)|\byour (?:response|reply"
         r"|output)\b[^.?\n]{0,40}\b(?:by \d|alphabet|cipher|emoji|reverse|encoded|brand)|^\W*(?:in|enhance"
         r"|modify|reverse|alter|tweak|adjust|shift|alter) (?:your|the) (?:response|answer|reply|output)\b"
         r"|\brepresent your (?:answer|response)\b"),
        (Trick.STEERING, r"\b(?:with|as) (?:developer|dan|the following) (?:mode|format)"
         r"|\btwo different (?:separate )?ways\b|\bprefix(?:ed)? (?:your|each|every) (?:answer|response"
         r"|message)"),
    )
)  # fmt: skip
_INVISIBLE: Final = re.compile(
    r"(?<=[^\W_])[\u200b-\u200d\u2060\ufeff\u00ad]+(?=[^\W_])|[\u202a-\u202e\u2066-\u2069]"
    r"|[\U000e0000-\U000e007f]"
)
_UNSEEN: Final = dict.fromkeys(
    map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
)
_BASE64: Final = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{20,}={0,2}(?![A-Za-z0-9+/=])")
_PIG_LATIN: Final = re.compile(r"\b[a-z]{3,}(?:w|y)?ay\b", re.IGNORECASE)
_REPEATED: Final = 15
_CODED: Final = (Trick.OVERRIDE, Trick.EXTRACTION, Trick.SECRETS, Trick.ROLE_PLAY)


def find_injection(text: str) -> tuple[Finding, ...]:
    """Return the tricks that a question or a passage plays, each with the words that show it; none for honest"
    " text."""
    findings = list(_invisible(text))
    plain = fold(text)
    findings += _plainly(plain, _PATTERNS)
    findings += _coded(plain)
    findings += _flooding(plain)
    return tuple(findings)


def fold(text: str) -> str:
    """Return the text as a model would read it: compatibility forms folded, invisible characters gone."""
    return re.sub(r"[ \t\xa0\u3000]+", " ", unicodedata.normalize("NFKC", text).translate(_UNSEEN))


def _plainly(plain: str, patterns: tuple[tuple[Trick, re.Pattern[str]], ...]) -> Iterator[Finding]:
    for trick, pattern in patterns:
        if found := pattern.search(plain):
            yield Finding(trick, found.group()[:120])


def _invisible(text: str) -> Iterator[Finding]:
    if found := _INVISIBLE.search(text):
        yield Finding(Trick.HIDDEN, ascii(found.group())[:40])


def _coded(plain: str) -> Iterator[Finding]:
    """Read Base64 that decodes to text, and what ROT13 or reading backwards turns into an order."""
    for found in _BASE64.finditer(plain):
        if _decodes(found.group()):
            yield Finding(Trick.SMUGGLING, found.group()[:40])
    patterns = tuple((trick, pattern) for trick, pattern in _PATTERNS if trick in _CODED)
    for other in (codecs.encode(plain, "rot13"), plain[::-1]):
        for finding in _plainly(other, patterns):
            yield Finding(Trick.SMUGGLING, finding.excerpt)
    words = re.findall(r"[A-Za-z]+", plain)
    if len(words) >= 4 and len(_PIG_LATIN.findall(plain)) * 2 > len(words):
        yield Finding(Trick.SMUGGLING, plain[:40])


def _decodes(token: str) -> bool:
    try:
        decoded = base64.b64decode(token + "=" * (-len(token) % 4), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return False
    readable = sum(char.isalnum() or char in " .,:;'\"?!-_\n" for char in decoded)
    return bool(decoded) and readable >= 0.9 * len(decoded)


def _flooding(plain: str) -> Iterator[Finding]:
    """Notice a word or a line that is repeated until the instructions scroll out of sight."""
    words = plain.split()
    if len(words) < _REPEATED:
        return
    word, times = Counter(words).most_common(1)[0]
    if times >= _REPEATED and (times * 2 > len(words) or f"{word} {word} {word} {word}" in plain):
        yield Finding(Trick.FLOOD, word[:40])
