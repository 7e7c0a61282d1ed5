"""The tactics of prompt injection and their patterns, in Korean and English.

Patterns match what every such text must do (set instructions aside, ask for the prompt or a secret, give a role, claim
an authority, smuggle a message, forge a turn, steer the answer's form), not the wording of known attacks.
"""

import re
from enum import StrEnum
from typing import Final


class Tactic(StrEnum):
    """How a text tries to instruct the model; `markup` alone is harmless in a guide."""

    OVERRIDE = "override"
    EXTRACTION = "extraction"
    ROLE_PLAY = "role_play"
    AUTHORITY = "authority"
    SECRETS = "secrets"
    SMUGGLING = "smuggling"
    ROLE_MARKER = "role_marker"
    HIDDEN = "hidden"
    MARKUP = "markup"
    FLOOD = "flood"
    STEERING = "steering"


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
_PERSONS: Final = (
    r"(?:the |that |this |another |other |different |each |every |all )?(?:users?|customers?|clients?|people"
    r"|persons?|account holders?|employees?)(?:'s?|s')?"
)
_PERSONAL: Final = (
    r"(?:passwords?|pins?|e-?mails?|birth ?(?:day|date|year)?s?|addresses|address|phone numbers?"
    r"|personal (?:data|information)|data|"
    r"balances?|accounts?|salary|socioeconomic|favou?rite \w+|age|location|city|income|transactions?"
    r"|credit card|ssn|names?)"
)
_BOUNDS: Final = (
    (r"\w+", r"\w{1,30}+"),
    (r"\w*", r"\w{0,30}+"),
    (r"\S+\s", r"\S{1,30}+\s"),
    (r"\S*", r"\S{0,12}"),
    (r"\s*", r"\s{0,2}"),
    ("[A-Z][a-z]+", "[A-Z][a-z]{1,20}"),
)


def _bounded(pattern: str) -> str:
    """Return the pattern with a bound of each word and of each white space, so that its work is linear in the text.

    Words and blanks are disjoint, so nothing is lost where a repeat keeps what it took (`+` after the bound).
    """
    for unbounded, bounded in _BOUNDS:
        pattern = pattern.replace(unbounded, bounded)
    return pattern


PATTERNS: Final[tuple[tuple[Tactic, re.Pattern[str]], ...]] = tuple(
    (tactic, re.compile(_bounded(pattern), re.IGNORECASE | re.MULTILINE))
    for tactic, pattern in (
        (Tactic.OVERRIDE, rf"\b(?:ignor\w*|disregard\w*|forget|override|bypass|overrul\w*|set aside"
         rf"|do not (?:follow|obey)|don't follow|"
         rf"stop following|discard|neglect|erase|regardless of|cancel"
         rf"|pay no attention to)\b[^.\n]{{0,25}}?\b{_BEFORE}\b[^.\n]{{0,40}}?\b{_INSTRUCTIONS}\b"),
        (Tactic.OVERRIDE, r"\b(?:ignore|disregard|forget) (?:all |about |everything |of ){0,4}(?:the |what is "
         r"|what was |you (?:were|have been) told |that came )?(?:above|before|previous(?:ly)?|earlier|prior)\b"),
        (Tactic.OVERRIDE, r"\bforget (?:about )?(?:that|this|it|everything)\b[,.]? (?:and |now )?(?:can|could"
         r"|just|please|tell|give|write|you)\b"),
        (Tactic.OVERRIDE, r"\b(?:ignore|disregard) (?:the|this) (?:web ?page|function|paper|table|article|text"
         r"|document|email|question|user|content)\b"),
        (Tactic.OVERRIDE, r"\bstop everything\b|\bnew (?:instructions?|rules?|task|directive)\s*:"
         r"|\bjust (?:print|say|output|repeat|respond with)\b[^.\n]{0,5}[\"'“]"),
        (Tactic.OVERRIDE, rf"(?:이전|위|앞|앞서|앞선|지금까지|기존|모든|원래|아래|이상|당신"
         rf"|\b너)[^.\n]{{0,18}}(?:{_JIBUN}[^.\n]{{0,14}}(?:무시|잊|따르지|벗어)"
         r"|(?:지시|지침|명령|규칙|프롬프트|가이드라인|룰)[^.\n]{0,14}(?:삭제|초기화|해제|건너뛰|취소|폐기))"),
        (Tactic.OVERRIDE, r"(?:이전|위|앞|앞서|지금까지|기존|모든|다른)(?:의|에|에서|의 것|것|까지)?\s?(?:것"
         r"|내용|대화|말|질문|문장|작업|모든 것)?(?:을|를|은|는|들은|들을)?\s?(?:모두\s?|전부\s?"
         r"|다\s?)?(?:무시|잊어)"),
        (Tactic.OVERRIDE, rf"{_JIBUN}(?:을|를|은|는|사항을)?\s?(?:모두 |전부 |다 )?(?:무시|잊어|따르지 ?(?:마"
         rf"|말)|어기)"),
        (Tactic.OVERRIDE, r"무시하(?:고|세요|십시오|시고)[^.\n]{0,30}(?:말하|말해|출력|대답|답하|답해|알려|적어"
         r"|써|반복|번역)"),
        (Tactic.EXTRACTION, rf"\b{_SHOW}\b[^.\n]{{0,40}}?\b{_PROMPT}\b"),
        (Tactic.EXTRACTION, r"\b(?:your|the) (?:system |initial |original |hidden |secret |internal |starting "
         r"|developer )?(?:prompt|instructions|initialization string|system message"
         r"|guidelines)\b(?=[^\n]{0,3}(?:\?|\.?$| (?:above|verbatim|you were given)))(?! (?:on|for|to|in|at|of"
         r"|you sent|i received|from)\b)"),
        (Tactic.EXTRACTION, r"\b(?:repeat|output|print|copy|show|display|write|translate|encode"
         r"|recite)\b[^.\n]{0,20}\b(?:text|words?|everything|content|lines?|paragraph"
         r"|sentences?)\b[^.\n]{0,12}\b(?:above|before|verbatim)\b|\babove text\b|\binitialization (?:string"
         r"|text)\b"),
        (Tactic.EXTRACTION, r"\b(?:begin|start) your (?:answer|response|reply|message) with\b|\b(?:what"
         r"|which) (?:model|llm|language model) are you\b|\bknowledge cut-?off\b"),
        (Tactic.EXTRACTION, r"\bsystem prompts?\b|\b(?:pre-?|meta-?)prompts?\b"),
        (Tactic.EXTRACTION, r"시스템\s?(?:프롬프트|메시지|지시|지침|명령|설정 ?값)"),
        (Tactic.EXTRACTION, rf"(?:초기|처음|원래|숨겨진|내부|최초|비밀|너의|네|당신의|챗봇의|받은"
         rf"|주어진)\s?(?:{_JIBUN}|지시문|지시사항)[^.\n]{{0,20}}(?:보여|알려|출력|공개|말해|뭐|무엇|그대로"
         rf"|복사|번역|적어|써|요약|나열)"),
        # Before another noun it is none of its own: 프롬프트 상환, 프롬프트 페이먼트.
        (Tactic.EXTRACTION, r"프롬프트(?:를|을|가|는|의|\s(?=내용|원문|전문|전체|텍스트|문구|그대로|좀|다\s|모두|전부"
         r"|보여|알려|출력|공개|말해|뭐|무엇|복사|번역|적어))[^.\n]{0,15}(?:보여|알려|출력|공개|말해|뭐|무엇"
         r"|그대로|복사|번역|적어|내용)|(?:위|앞)(?:의|에)?\s?(?:있는\s?)?(?:텍스트|내용|글|문장|문구)(?:를"
         r"|을)?\s?(?:모두 |전부 |그대로 |다시 ){1,4}(?:출력|반복|복사|적어|써)"),
        (Tactic.ROLE_PLAY, r"\b(?:DAN|DUDE|STAN|AIM|Anti-?GPT|BetterDAN|DevMode) mode\b|\bdo anything now\b"
         r"|\bact(?:ing)? (?:just |exactly )?(?:like|as) (?:a |an )?(?:dan\b|dude\b|unrestricted|unfiltered"
         r"|evil|jailbr)|\bjailbr(?:eak|oken)"),
        (Tactic.ROLE_PLAY, r"\b(?:developer|debug|god|admin(?:istrator)?|sudo|root|maintenance|override"
         r"|unrestricted|system|opposite|dan|evil|jailbreak)[ -]mode\b[^.\n]{0,20}(?:enabled|activated|on\b"
         r"|engaged|entering|>|:)?"),
        (Tactic.ROLE_PLAY, r"\b(?:from now on|for the rest of this|in this (?:role|scenario"
         r"|game))\b[^.\n]{0,30}\b(?:you (?:are|will|must|have)|act|pretend|behave|respond|answer)\b"),
        (Tactic.ROLE_PLAY, r"\b(?:you are|you're|you will be|act as|pretend (?:to be|that you|you)"
         r"|play(?:ing)? the role of|immerse yourself|roleplay as|simulate (?:being )?)\b[^.\n]{0,40}\b(?:ai"
         r"|model|dan|persona|character|assistant without|no (?:rules|restrictions|limits|filter)|unrestricted"
         r"|unfiltered|hacker|language generation|anthropologist|world|virtual machine|terminal|future)\b"),
        (Tactic.ROLE_PLAY, r"\b(?:no|without|free (?:of|from)|freed from|broken free"
         r"|bypass\w*)\b[^.\n]{0,25}\b(?:ethical|moral|content polic|typical confines|restrictions?|filter(?:s"
         r"|ing)?|censorship|guidelines|limitations?)\b[^.\n]{0,40}\b(?:ai|you|answer|respond|respon|abide)\b"
         r"|\bspecial filtering\b"),
        (Tactic.ROLE_PLAY, r"\b(?:imagine|suppose|let's (?:say|imagine|pretend)|hypothetical(?:ly)?"
         r"|in a (?:fictional|parallel|dystopian))\b[^?\n]{0,160}\b(?:phishing|password|birth (?:date|year)"
         r"|e-?mail address|personal data|passwords|you're an? |you are an? |we ignore|malware|hack)"),
        (Tactic.ROLE_PLAY, r"(?:지금|이제|여기서)부터[^.\n]{0,25}(?:너|넌|당신|네)[^.\n]{0,50}(?:역할|인 ?척"
         r"|척해|처럼|모드|인공지능|ai\b|연기|행동|이다|이야|답해|대답)"),
        (Tactic.ROLE_PLAY, r"(?:너는|넌|당신은)\s?(?:이제|지금부터|더 ?이상)[^.\n]{0,40}(?:제한|역할|모드|아니"
         r"|무엇이든|자유)"),
        (Tactic.ROLE_PLAY, r"(?:개발자|관리자|디버그|시스템|루트|무제한|유지보수|갓|점검|슈퍼"
         r"|제한\s?해제)\s?모드|탈옥\s?(?:모드|해|프롬프트|시켜|된)|제한\s?없(?:는|이)[^.\n]{0,15}(?:ai"
         r"|인공지능|챗봇|모드|답)|(?:필터|검열|안전\s?장치)(?:를|을|가)?\s?(?:해제|없|우회|끄|꺼|무시)"),
        (Tactic.ROLE_PLAY, r"(?:가상의|가상|가설적인?|허구의|소설 속)\s?(?:시나리오|상황|대화|세계"
         r"|설정)[^.\n]{0,40}"),
        (Tactic.AUTHORITY, r"\bi(?:'m| am)(?: now)? (?:your|the) (?:developer|creator|owner|boss"
         r"|administrator|admin|manager|programmer|ceo|god)\b|\bi am god\b|\bas your (?:boss|developer|creator"
         r"|owner|admin)|\b(?:security|enforcement|admin|system) override\b|\b(?:for|as part of) (?:this|a"
         r"|the) (?:system (?:check|upgrade)|security audit|quality assurance)\b"),
        (Tactic.AUTHORITY, r"(?:나는|난|저는|내가)\s?(?:너의|네|당신의|이 시스템의|시스템)?\s?(?:개발자|관리자"
         r"|창조자|주인|제작자|운영자|경찰관|신)(?:이다|이야|다\b|야|입니다|로서|이니|인데)"),
        (Tactic.SECRETS, r"\b(?:users?|customers?|clients?|people|persons?) in (?:your|the) (?:database|system"
         r"|records)\b|\bthe user (?:were|lives?|is|was|has|had|currently)\b"),
        (Tactic.SECRETS, r"(?<!another )(?<!other )(?<!the )(?<!each )(?<!every )(?<!different )(?<!all )(?<!that )"
         r"(?<!this )(?<!\bto )(?<!\binto )(?<!\bfrom )(?<!\bin )(?<!\bfor )(?<!\bon )(?<!\bunder )(?<!\bwith )"
         rf"\b{_PERSONS} {_PERSONAL}\b(?! (?:service|support|centre|center|team|care|with|for"
         rf"|and|is|was|were|been|has|have|when|or|will)\b)|\bwhere (?:does|is|do) {_PERSONS}(?: currently"
         rf"| now)? liv"),
        (Tactic.SECRETS, r"\b(?:share|tell me|give me|reveal|confirm|know|what(?:'s| is| was"
         r"| would)(?: be)?) (?:your|our|the (?:system|secret|admin|master|root)) (?:\w+ )?(?:passwords?"
         r"|passcode|secret key|api key|credentials|token|secret)\b|\b(?:sharing|shared?) (?:your"
         r"|their) passwords?\b|\bwhat(?:'s| is) the password\b(?! (?:for|to) (?:online|internet|mobile|my"
         r"|the app))|\b(?:haiku|poem|story|song"
         r"|riddle) about the password\b|\bsecret key\b|\baccess to your account\b|\bpasswords? are shared\b"),
        (Tactic.SECRETS, r"\b(?:what(?:'s| is| are)|tell me|give me|show me|list|could you tell me"
         r"|using)\b[^.?\n]{0,40}?\b(?-i:[A-Z][a-z]+(?: [A-Z][a-z]+)?)'s (?:e-?mail|birth|address|phone"
         r"|balance|password|account|salary|bank)|\b(?:balance|password|e-?mail(?: address)?|account number"
         r"|address) of (?-i:[A-Z][a-z]+ [A-Z][a-z]+)\b"),
        (Tactic.SECRETS, r"(?:다른|타인|타)\s?(?:고객|사람|사용자|회원|이용자)(?:들)?(?:의"
         r"|\s)[^.\n]{0,12}(?:정보|잔액|비밀번호|거래\s?내역|개인정보|생년월일|주소|연락처"
         r"|전화번호)[^.\n]{0,12}(?:보여|알려|조회|출력|뭐|무엇|말해|내놔|줘)"),
        (Tactic.SECRETS, r"사용자(?:의|가|는|들의|\s)[^.?\n]{0,25}(?:비밀번호|암호|생년월일|생일|출생|주소|거주"
         r"|사는|살고|이메일|잔액|전화번호|좋아하는|위치)|(?:비밀번호|암호)(?:를|는|은)?\s?공유(?:해|하)"
         r"|(?:너의|당신의|관리자)\s?(?:비밀번호|암호|비밀 ?키|api ?키)|(?:비밀번호"
         r"|암호)(?:는|가)\s?(?:무엇|뭐)(?:인가|이야|야|니|냐|입니까)"),
        (Tactic.SMUGGLING, r"\b(?:decode|decipher|decrypt|encode|encrypt|rot-?13|base-?64|caesar|morse"
         r"|pig latin|leetspeak|binary string|hex(?:adecimal)? string|cipher|ciphertext|interlace)\b|(?:디코딩"
         r"|복호화|인코딩|rot-?13|base-?64|시저 암호|모스 부호|인터레이스|암호를 해독)"),
        (Tactic.SMUGGLING, r"\b[a-z] ?= ?[\"'“][^\"'”\n]{1,120}[\"'”][^\n]{0,200}\b[a-z] ?= ?[\"'“]"
         r"|\b[a-z] ?\+ ?[a-z] ?\+ ?[a-z]\b|\bconcatenat\w+"),
        (Tactic.SMUGGLING, r"(?:[01]{8}[ ,]?){4}|(?:\\x[0-9a-f]{2}){4}|(?:\\u[0-9a-f]{4}){4}"
         r"|(?:&#x?[0-9a-f]{2,6};){4}|(?:%[0-9a-f]{2}){5}"),
        (Tactic.SMUGGLING, r"\b(?:backwards?|in reverse(?: order)?|each letter|every letter|substitution"
         r"|first (?:three |two )?letters? of|vowels? with|dashes in between|letter by letter)\b"),
        (Tactic.ROLE_MARKER, r"<\|[^|>\n]{1,40}\|?>|\[/?INST\]|<</?SYS>>|</?(?:system|assistant|user"
         r"|instructions?|s)>|<(?:system|now entering)[^>\n]{0,40}(?:mode|override)[^>\n]{0,20}>|\b(?:begin"
         r"|end) (?:of )?(?:system|new|admin|prompt|user|document|context)[a-z ]{0,20}(?:prompt|instructions?"
         r"|message|text|input)?\s*(?:--|==|\]|>)"),
        (Tactic.ROLE_MARKER, r"^\s*[#*\[(<]{0,4}\s*(?:system|assistant|developer|human|시스템|어시스턴트"
         r"|개발자)\s*(?:prompt|message|메시지|프롬프트|지시)?\s*[\])>*]{0,3}\s*[:：]|^#{2,6}\s*(?:instruction"
         r"|response|system|new task|override)s?\b|\b(?:system mode|override_mode)\b"),
        (Tactic.ROLE_MARKER, r"\bQ\s?:[^\n]{5,160}?\bA\s?:[^\n]{5,160}?\bQ\s?:"),
        (Tactic.HIDDEN, r"<!--[^\n]{0,200}|display\s*:\s*none|font-size\s*:\s*0|visibility\s*:\s*hidden"
         r"|<script\b|<iframe\b|\bjavascript:|!\[[^\]]{0,100}\]\(https?://[^)?&]{0,300}[?&][^)]{0,300}\)|<img\b[^>]{0,200}\balt\s?="
         r"|\bon(?:error|load|click|mouseover)\s?="),
        (Tactic.STEERING, r"\b(?:phishing e-?mail|malware|ransomware|hate humans|kill all humans)\b|\bstat(?:e"
         r"|ing) (?:that |the )(?:output|i used|your account)|\bprint the following\b"),
        (Tactic.STEERING, r"\b(?:append|add|include|insert|integrate|modify|shift|mention|embed|weave|place|put"
         r"|incorporate|apply|reply|respond|answer|end|begin|start)\b[^.?\n]{0,80}\b(?:in|to|into|of|with"
         r"|within|throughout|at the (?:end|start|beginning) of) your (?:response|reply|answer|output"
         r"|message)s?\b|\b(?:reply|respond|answer) (?:only )?(?:in|with|using) (?:reverse|emojis?|code|cipher"
         r"|base|rot|pirate|rhymes?|html|json|binary|morse)|\byour (?:response|reply"
         r"|output)\b[^.?\n]{0,40}\b(?:by \d|alphabet|cipher|emoji|reverse|encoded|brand)|^\W{0,8}(?:in|enhance"
         r"|modify|reverse|alter|tweak|adjust|shift|alter) (?:your|the) (?:response|answer|reply|output)\b"
         r"|\brepresent your (?:answer|response)\b"),
        (Tactic.STEERING, r"\b(?:with|as) (?:developer|dan|the following) (?:mode|format)"
         r"|\btwo different (?:separate )?ways\b|\bprefix(?:ed)? (?:your|each|every) (?:answer|response"
         r"|message)"),
        # More general forms: the order and its claimed authority. A customer speaks of rules, passwords and
        # other people's accounts too, so each form needs the verb that makes it an order to a machine.
        (Tactic.OVERRIDE, r"\b(?:ignor\w*|disregard\w*|forget|overlook|abandon|set aside|never ?mind)\b[^.\n]{0,40}\b"
         r"(?:you(?:'ve| have)?(?: been| were| are)? (?:told|taught|given|trained|instructed|programmed)"
         r"|(?:your|those|these|any|all) (?:\w+ ){0,2}(?:rules?|instructions?|guidelines?|restrictions?|limitations"
         r"|programming|training|directives?|safety|protocols?|persona))\b"),
        (Tactic.OVERRIDE, r"\byour (?:new|real|actual|true|only|next|updated) (?:task|goal|purpose|job|role|objective"
         r"|mission|instructions?|directive|rules?) (?:is|are|will be)\b|\binstead(?:,| of (?:answering|following"
         r"|helping|translating|summari[sz]ing))[^.\n]{0,20}\b(?:say|print|write|tell|output|reply|respond|repeat"
         r"|translate)\b|\bstop (?:being (?:an?|the|so|such)|acting|pretending)\b|\bdo not (?:translate"
         r"|summari[sz]e)\b"),
        (Tactic.OVERRIDE, r"\b(?:no longer|not) (?:be )?(?:bound|restricted|limited|constrained|obliged)"
         r"\b[^.\n]{0,10}\b(?:by|to)\b[^.\n]{0,30}\b(?:rules?|instructions?|guidelines?|polic\w+|restrictions?"
         r"|ethic\w*)\b|\byou (?:don't|do not|needn't|need not) (?:(?:have|need) (?:to )?)?(?:follow|obey|adhere"
         r"|comply|care about|abide)\b"),
        (Tactic.OVERRIDE, r"(?:^|[.!?,;:\n]\s*|\b(?:please|and|then|to|must|should|just|you|now|simply|instead) )"
         r"(?:say|print|output|reply|respond|answer|write|repeat|return|type|speak)(?: (?:back|with|only|just|exactly"
         r"|precisely|nothing but|simply|me|to me|the|word|words|phrase|sentence|string|following|text|verbatim"
         r"|out loud|after me)){0,6}\s?[:,]?\s?[\"'“‘「『][^\"'”’」』\n]{2,120}"),
        (Tactic.OVERRIDE, r"\b(?:repeat after me|say exactly|respond only with|reply only with|answer only with"
         r"|output only|print exactly|(?:first|last|next) (?:word|line|sentence|thing) (?:of|in) your"
         r" (?:answer|response|reply|output))\b"),
        (Tactic.EXTRACTION, r"\b(?:what(?:'s| is| are| were)|tell|show|reveal|repeat|list|print|share|describe|explain"
         r"|summari[sz]e|disclose|forget|override|bypass|violate|break|change|update|translate|leak|give)\b"
         r"[^.?\n]{0,30}\b(?:your|the (?:bot|assistant|model|ai|chatbot)'?s) (?:\w+ ){0,2}(?:prompts?|instructions?"
         r"|directives?|configuration|programming|source code|training data|context window|persona|restrictions"
         r"|internal (?:rules|instructions|notes|documents?|polic\w+|guidelines|settings)|backend|developers?"
         r"|creators?|knowledge base|parameters|guardrails|safeguards)\b"
         r"(?! (?:on|for|to|at|of|you sent|i received|from|regarding|about|when|if)\b)"),
        (Tactic.EXTRACTION, r"\b(?:what|which|everything|anything|all)\b[^.?\n]{0,20}\byou(?:'ve been| have been"
         r"| were| are) (?:told|instructed|given|programmed|configured|trained|prompted)\b|\bhow (?:were|was|are)"
         r" (?:you|they|your)\b[^.?\n]{0,20}\b(?:instructed|configured|programmed|trained|prompted)\b"
         r"|\b(?:text|everything|words?|lines?|content|context|instructions?|sentences?) (?:above|prior to|preceding"
         r"|that (?:came|comes|precedes?)|before) (?:this (?:message|line|point|conversation|prompt|sentence)|my"
         r" (?:message|question|prompt)|the (?:question|conversation|prompt))\b"),
        (Tactic.ROLE_PLAY, r"\b(?:pretend|act|behave|respond|answer|speak|talk|write|role-?play)(?:ing)? (?:to be"
         r"|as if|as though|that you|you're|you are|like you|as (?:a|an|my)|like (?:a|an|my)) (?!guarantor|co-?signer"
         r"|beneficiar|trustee|agent|guardian|representative|payee|joint|proxy|witness)|\byou (?:are|'re) now (?:an?"
         r"|the|in|my|called|named|free|no longer) |\byou(?: are|'re) going to (?:be|act|play|pretend|respond"
         r"|role-?play)\b|\b(?:take on|adopt|assume|enter) (?:the|a|this) (?:role|persona|character|identity)\b"
         r"|\b(?:stay in|break|never break|in) character\b|\brole-?play\w*\b|\blet'?s play\b|\balter ego\b"
         r"|\bevil twin\b"),
        (Tactic.ROLE_PLAY, r"\b(?:grandm\w+|grandpa|grandfather|late (?:mother|father|wife|husband)|deceased)\b"
         r"[^\n]{0,160}\b(?:used to|would) (?:read|tell|sing|recite|whisper)\b"),
        (Tactic.ROLE_PLAY, r"\b(?:uncensored|unfiltered|unrestricted|amoral|without (?:any )?(?:warnings|disclaimers?"
         r"|filters?|censorship|morals|ethics)|never (?:refuse|decline) (?:a|any|to)|no matter how (?:illegal"
         r"|unethical|harmful|immoral)|simulat\w+ an? (?:ai|model|system|terminal|chatbot|computer|console)"
         r"|(?:opposite|evil|chaos) (?:mode|world|ai))\b"),
        (Tactic.ROLE_PLAY, r"\b(?:hypothetical\w*|fictional|fictitious|imaginary|made-up|parallel"
         r"|alternate) (?:\w+ ){0,2}"
         r"(?:scenario|story|world|universe|situation|response|character|dialogue|conversation|setting|reality|novel"
         r"|place|country|land)\b|\b(?:write|tell|continue) (?:me )?(?:a|the|this) (?:\w+ ){0,3}(?:story|novel|scene"
         r"|script|dialogue|play|screen ?play)\b"),
        (Tactic.AUTHORITY, r"\b(?:this is|i am|i'm|speaking (?:is|as)|as)(?: from| with| in| of)? (?:your|the|our)"
         r" (?:\w+ ){0,2}(?:developers?|creator|administrator|admin|sysadmin|system operator|root user|superuser"
         r"|programmer|it (?:team|department|support|staff)|security (?:team|officer|auditor|engineer|department)"
         r"|red team\w*|compliance team)\b(?! of)|\bauthori[sz]ed (?:personnel|access|by the (?:ceo|developer"
         r"|admin\w*))\b|\b(?:admin|root|sudo|developer|superuser) (?:access|privileges?|rights|command|override"
         r"|console)\b|\bsudo \w+"),
        (Tactic.AUTHORITY, r"\b(?:life (?:or|and) death|lives? (?:depends?|are at (?:risk|stake))|someone will die)\b"
         r"[^\n]{0,200}\b(?:password|secret|prompt|instructions?|confidential|personal (?:data|information))\b"),
        (Tactic.SECRETS, r"\b(?:tell|share|give|reveal|confirm|know|guess|say|spell|show|leak|does|what(?:'s| is| was"
         r"| are| would)|about|hint)\b[^.?\n]{0,50}\b(?:your|our system'?s?|the (?:system|server|database|admin\w*"
         r"|network|bot|vault|root|master|secret|hidden)'?s?) (?:\w+ )?(?:pass(?:words?|codes?|phrases?|keys?)"
         r"|credentials?|api[ -]?keys?|private keys?|code ?word|magic word|secrets?)\b(?! (?:requirements?|polic\w+"
         r"|rules?|reset|service|form|manager|length|screen|page|field|expir\w+|account)\b)"),
        (Tactic.SECRETS, r"\bif (?:your|the) (?:\w+ )?(?:password|passcode|passphrase|secret) (?:contains?|has|is"
         r"|starts"
         r"|begins|ends|includes?|rhymes)\b"),
        (Tactic.SECRETS, r"\bpass(?:words?|codes?|phrases?) (?:for|of|to) (?:our|the|this|your) (?:\w+ )?(?:system"
         r"|database|server|network|computer|vault|admin\w*)\b|\b(?:hint|clue|rhymes?|riddle|synonym|acrostic)\b"
         r"[^.?\n]{0,40}\b(?:password|secret|passphrase|code ?word)\b"),
        (Tactic.SECRETS, r"(?-i:\b[Ww]here (?:does|do|did|is|was) [A-Z][a-z]+(?: [A-Z][a-z]+)? (?:live|born|reside"
         r"|work"
         r"|stay|currently|now)\b|\b[A-Z][a-z]+ [A-Z][a-z]+'s (?:e-?mail|birth|address|phone|balance|password|salary"
         r"|age|location|personal|home|ssn|income|contact)|\b[Hh]ow old is [A-Z][a-z]+|\b[Ww]hen was [A-Z][a-z]+"
         r" (?:[A-Z][a-z]+ )?born)|\b(?:who|what) is the (?:current |present )?user\b|\b(?:show|tell|give|list|reveal"
         r"|access|see|view|look up|what (?:is|are|did|was))\b[^.?\n]{0,30}\b(?:another|other|previous|last"
         r"|different)"
         r" (?:user|customer|client|person|people|account holder)(?:'?s|s')?(?: \w+)? (?:personal|private|account"
         r"|balance|transaction|address|e-?mail|phone|data|details|information|questions?|conversations?|messages?"
         r"|chats?)\b"),
        (Tactic.SMUGGLING, r"\b(?:acrostic|anagram|unscramble|leet ?speak|l33t|ascii (?:codes?|art|values?)|nato"
         r" alphabet|phonetic alphabet|zero-?width|invisible (?:characters?|text)|steganograph\w+|atbash|vigen[eè]re"
         r"|unicode (?:escapes?|code ?points?)|translate (?:this|the following) (?:code|cipher|emoji)|(?:combine|join"
         r"|concatenate|merge|append|put together|assemble) (?:the |these )?(?:strings?|letters?|words?|variables?"
         r"|fragments|tokens))\b|\b(?:let|set|var|const|define) \w+ ?= ?[\"'“]|\bprint\(|\beval\(|\bexec\("
         r"|\bimport os\b"),
        (Tactic.HIDDEN, r"<(?:a|img|script|svg|iframe|body|html|div|span|style|form|input|object|embed|link|meta"
         r"|base)\b"
         r"[^>\n]{0,200}>?|<[a-z][^>\n]{0,200}\b(?:hidden\b|style\s?=|on[a-z]{3,20}\s?=)"
         r"|!\[[^\]\n]{0,100}\]\(\s*<?(?:[a-z][a-z0-9+.-]{0,30}:|//|\\\\)"),
        # Markup that a guide may show: it fetches nothing, runs nothing and hides nothing.
        (Tactic.MARKUP, r"</[a-z][a-z0-9]{0,12}\s?>|!\[[^\]\n]{0,100}\]\(|\{\{[^}\n]{0,100}\}\}|\$\{[^}\n]{0,100}\}"),
        (Tactic.STEERING, r"\b(?:add|include|insert|append|mention|promote|recommend|advertise|embed|put|place|say)"
         r"\b[^\n]{0,120}\b(?:in|to|into|at the end of|within|with) (?:your|each|every|all) (?:repl(?:y|ies)"
         r"|responses?|answers?|outputs?|summary|summaries|translations?)\b|\b(?:every|each) (?:answer|response|reply"
         r"|sentence|word) (?:must|should|has to)\b|(?:^|[.!\n;,]\s*|you (?:must|should|will|shall) |please )always"
         r" (?:answer|respond|reply|say|end|begin|start|include|recommend)\b"),
        (Tactic.OVERRIDE, r"(?:새로운|진짜|실제|변경된)\s?(?:지시|지침|명령|규칙|임무|역할|목표)(?:은|는|이|가|:|："
         r"|를 따|을 따|사항|에 따라)"
         r"|(?:지시|지침|명령|규칙)(?:을|를|은|는|에|사항을)\s?(?:\S+\s){0,2}(?:무시|잊|어기|벗어나|벗어"
         r"|따르지|지키지|거역|해제|개의치|얽매이|구애)"
         r"|(?:제약|제한)(?:을|를|은|에)\s?(?:\S+\s){0,2}(?:무시|벗어나|벗어던|개의치|얽매이|구애)"
         r"|(?:무시|잊어버리)(?:하고|고)\s(?:\S+\s){0,6}(?:말해|출력|대답|답해|보여)"),
        (Tactic.OVERRIDE, r"(?<!뭐)(?<!무엇이)라고만?\s?(?:\S{1,6}\s)?(?:말해|답해|대답해|출력해|응답해|반복해|써"
         r"|적어)\s?"
         r"(?:줘|주세요|주십시오|줄래|라\b|봐|[.!]?\s*$)|그대로\s?(?:따라\s?)?(?:말해|출력해|반복해|복사해)"
         r"|(?:나를|내 말을) 따라\s?(?:말해|해)"),
        (Tactic.EXTRACTION, r"(?:너의|너는|너를|네가|넌|당신|챗봇|인공지능|AI)(?:의|가|이|은|는|을"
         r"|에게)?\s?(?:\S+\s){0,3}(?:프롬프트|지시|지침|설정값|내부\s?규칙"
         r"|내부\s?정보|학습\s?데이터|소스\s?코드|개발사|만든)\S*\s?(?:\S+\s){0,4}(?:알려|보여|말해|공개|출력|뭐"
         r"|무엇|설명해|나열|누구|어디|어떤)"
         r"|(?:너|넌|당신)\S*\s(?:어떤|무슨)\s?(?:언어\s?)?모델|(?:이|그|내)\s?(?:대화|메시지|문장|글)\s?(?:이전"
         r"|앞|전|위)(?:에|의)\s?(?:\S+\s){0,3}"
         r"(?:내용|텍스트|문장|지시|글|말|모든)"),
        (Tactic.ROLE_PLAY, r"역할극|역할\s?놀이|롤\s?플레이|인\s?척\s?(?:해|하고)|흉내\s?내\s?(?:줘|봐|라)"
         r"|처럼\s?(?:행동|말|대답|답|연기|생각)해"
         r"|(?:라고|다고)\s?(?:상상|가정|생각)\s?해\s?(?:봐|줘|보자|주세요|라)|(?:역할|캐릭터|페르소나|인격)(?:을"
         r"|를|로|이|에)?\s?(?:\S+\s)?(?:맡아|수행해|연기해|해|되어|몰입해)"
         r"\s?(?:줘|주세요|봐|라)|(?:제한|제약|검열|필터)\s?없이\s(?:\S+\s){0,2}(?:답|말|대답|응답|알려)|(?:대답"
         r"|답변|요청)\S*\s?(?:거절|거부)하지|경고\s?(?:문구\s?)?없이"
         r"|윤리(?:적인?)?\s?(?:제한|기준|규칙|문제)\S*\s?(?:\S+\s)?(?:무시|없|상관|신경)|소설(?:을|의|에서"
         r"|속)\s?(?:\S+\s){0,3}(?:써|쓰|장면|주인공)"),
        (Tactic.AUTHORITY, r"(?:개발자|관리자|운영자|시스템\s?관리자|보안\s?(?:팀|담당자?)|은행장)(?:의\s?(?:지시"
         r"|명령|권한)|\s?권한(?:으로|을|이))"
         r"|(?:나는|난|저는|내가)\s?(?:이\s?|너의\s?|네\s?)?(?:\S+\s)?(?:시스템\s?관리자|관리자|개발팀|보안팀"
         r"|운영자)(?:이다|이야|야|다|입니다|이니|인데)"),
        (Tactic.SECRETS, r"(?:너의|당신의|당신이|챗봇의|시스템의?|서버의?|관리자의?"
         r"|데이터베이스의?)\s?(?:\S+\s)?(?:비밀번호|암호|패스워드|패스코드|비밀\s?(?:키|단어|문구|코드)"
         r"|비밀|인증\s?키|접속\s?정보|api ?키)\S*\s?(?:\S+\s){0,4}(?:알려|뭐|무엇|말해|공유|공개|보여|힌트)"
         r"|(?:비밀번호|암호|비밀\s?단어|패스워드)(?:에\s?대한|의)?"
         r"\s?힌트(?:를)?\s?(?:\S+\s)?(?:줘|줄|주세요|알려)"
         r"|[가-힣]{2,4}\s?(?:씨|님)(?:은|는|이|가|의)\s(?:어디에?\s?(?:사|살)|사는\s?곳|거주지|생년월일|이메일"
         r"|집\s?주소|연봉|비밀번호)"),
        (Tactic.SMUGGLING, r"거꾸로\s?(?:읽|써|쓴|뒤집|출력|말)|(?:글자|음절|문자|단어)(?:를|을|마다"
         r"|씩)\s?(?:\S+\s)?(?:합쳐|이어\s?붙|붙여|연결해|조합|뒤집|띄어)"
         r"|(?:첫|앞)\s?글자(?:만|들)|(?:이진수|16진수|아스키|유니코드|암호문|초성)(?:로|를|으로|만)|끝말잇기"
         r"|삼행시"),
        (Tactic.STEERING, r"(?:답변|대답|응답|출력)(?:의|에|을|를)?\s?(?:\S+\s){0,2}(?:끝|마지막|처음|앞|매번|항상"
         r"|반드시|마다)\S*\s?(?:\S+\s){0,4}"
         r"(?:붙여|넣어|추가해|포함해|광고|홍보|시작해|끝내)"),
        (Tactic.SECRETS, r"\b(?:confirm|tell me|give me|provide|reveal|disclose|share|say|spell) (?:me |us "
         r"|with me )?the"
         r" (?:secret |current |correct )?(?:pass(?:word|code|phrase)|secret key|api key|magic word)\b(?! (?:for"
         r"|to|of)"
         r" (?:my|online|internet|mobile|the app)|(?: rules?| requirements?| reset| change| polic\w+| i\b))"),
        (Tactic.AUTHORITY, r"\bi(?:'m| am) an? (?:\w+ ){0,2}(?:developer|engineer|administrator|admin|researcher"
         r"|tester"
         r"|auditor|technician)\b[^\n]{0,120}\b(?:i need you to|i order you|you (?:must|are required to)"
         r"|password|system prompt|instructions?|override)\b"),
        (Tactic.EXTRACTION, r"\b(?:what|which)\b[^.?\n]{0,40}\b(?:do|must|should|are|were) you (?:\w+ ){0,2}(?:follow"
         r"|not allowed|forbidden|restricted|prohibited|told|asked|supposed|instructed|operate under|programmed"
         r"|designed|keep(?:ing)? secret|hiding)\b(?! (?:when|if) (?:i|a|the)\b)|\b(?:things|topics|information"
         r"|subjects|words)"
         r" (?:that )?you (?:can't|cannot|can not|are not allowed|aren't allowed|must not|mustn't|should not)\b"
         r"|\bin your (?:context|memory|prompt|instructions)\b"),
        (Tactic.EXTRACTION, r"\b(?:describe|explain|outline|list|summari[sz]e|write|paraphrase|rephrase|tell me about"
         r"|elaborate on)\b[^.?\n]{0,80}\b(?:your (?:role|purpose|constraints|directives|guidelines|instructions"
         r"|rules|behaviours?|behaviors?|persona|limitations|objectives?|setup)"
         r"|how you (?:were (?:made|built|set up|told|instructed)"
         r"|operate|function|should behave|must respond))\b(?! (?:for|on|about|regarding|when|if|of|to|in)\b)"),
        (Tactic.SMUGGLING, r"\b(?:part|string|word|piece|fragment|segment|chunk|variable|half) ?(?:1|one|a|#1)\b"
         r"[^\n]{0,160}\b(?:part|string|word|piece|fragment|segment|chunk|variable|half) ?(?:2|two|b|#2)\b"),
        (Tactic.OVERRIDE, r"(?:이전|위에?|앞에?서?|지금까지|기존|방금|처음)\S*\s(?:\S+\s){0,4}?"
         r"(?:지시|지침|명령|규칙|말|내용|대화|것|프롬프트|문장|글)\S{0,2}\s(?:\S+\s){0,3}(?:무시|제쳐\s?두|신경\s?쓰지|따르지)"),
        (Tactic.ROLE_PLAY, r"(?<!글씨 )(?<!다크 )(?<!간편 )모드(?:로|가|를|에|로의)?\s?(?:진입|활성화|들어갑니다"
         r"|들어가)"),
        (Tactic.EXTRACTION, r"(?:어떤|무슨)\s?(?:규칙|지침|지시|제약|명령)(?:을|를)?\s?(?:\S+\s)?(?:따르|받았|지키"
         r"|가지고)"
         r"|(?:말하|답하|알려주)면 안 되는\s?(?:것|말|주제|내용)"),
    )
)  # fmt: skip
