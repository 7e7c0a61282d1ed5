"""Detect small talk: greetings, thanks, questions about the chatbot itself, and requests for a person (pure).

A message is small talk only if it consists entirely of such phrases: "Hi, what does a transfer cost?" is a question.
A misspelt greeting counts as a question too, and no document answers it.
"""

import unicodedata
from collections.abc import Collection
from enum import StrEnum
from itertools import product
from typing import Final


class SmallTalk(StrEnum):
    """The kinds of small talk; if a message has several, the last kind in this order counts."""

    GREETING = "greeting"
    THANKS = "thanks"
    IDENTITY = "identity"
    PERSON = "person"


def _letters(text: str) -> str:
    """Return the letters and digits of a text, in lower case."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def _each(firsts: str, lasts: str) -> str:
    """Return each of the first parts joined with each of the last parts."""
    return " ".join(first + last for first, last in product(firsts.split(), lasts.split()))


_STAFF: Final = "상담원 상담사 상담직원 직원 사람 고객센터 콜센터"
_CALLS: Final = " ".join(
    (
        "연결 연결해줘 연결해줘요 연결해주세요 연결해주십시오 연결좀해줘 연결좀해주세요 연결부탁해요 연결부탁드려요",
        "연결부탁드립니다 연결좀부탁드려요 연결되나요 연결돼요 연결가능한가요 연결할수있나요 연결원해요 연결원합니다",
        "바꿔 바꿔줘 바꿔줘요 바꿔주세요 불러줘 불러주세요",
        _each(
            "통화 이야기 얘기 말 대화 상담",
            "하고싶어 하고싶어요 하고싶습니다 하고싶은데 하고싶은데요 할래 할래요 할수있나요 가능한가요 하게해주세요",
        ),
    )
)
_PERSONS: Final = (
    "ahuman aperson arealperson anagent aliveagent ahumanagent ahumanbeing someone somebody someonefromthebank "
    "anoperator arepresentative anadvisor amanager customerservice customersupport support yourstaff"
)
_PHRASES: Final = {
    SmallTalk.GREETING: f"""
        안녕 안뇽 안녕하세요 안녕하세여 안녕하세용 안녕하셔요 안녕하십니까 안녕하신가요 하이 헬로 헬로우
        반가워 반가워요 반갑습니다 처음뵙겠습니다 수고하십니다 수고많으십니다 여보세요 저기요 실례합니다
        계세요 계신가요 ㅎㅇ
        {_each("좋은", "아침 아침입니다 아침이에요 오후입니다 오후예요 저녁입니다 저녁이에요")}
        {_each("질문 질문이 문의 문의가 물어볼게 물어볼것이 궁금한게 궁금한것이", "있어요 있습니다 있는데요")}
        문의드립니다 문의드려요 질문드립니다 질문드려요
        hi hello hey heya hiya howdy greetings yo goodmorning goodafternoon goodevening goodday nicetomeetyou
        howareyou howareyoudoing howareyoutoday howsitgoing whatsup anyonethere isanyonethere areyouthere
        ihaveaquestion ihaveaquickquestion ihavesomequestions quickquestion
        """,
    SmallTalk.THANKS: f"""
        감사 감사해요 감사합니다 감사드립니다 감사했습니다 고마워 고마워요 고맙습니다 고마웠어요 땡큐 ㄱㅅ ㄳ
        {_each("답변 안내 설명 도움", "감사합니다 감사해요 감사드립니다 고맙습니다 고마워요")}
        네 넵 넹 예 응 오케이 ㅇㅋ ㅇㅇ 아니요 아니오 아뇨 알겠어 알겠어요 알겠습니다
        알았어 알았어요 알았습니다 이해했어요 이해했습니다
        확인했습니다 좋아요 좋네요 됐어요 됐습니다 괜찮아요 괜찮습니다 도움이됐어요 도움이되었어요 도움이됐습니다
        도움이되었습니다 도움됐어요 수고하세요 수고하셨습니다 수고하셨어요 안녕히계세요 안녕히가세요 잘있어요 바이
        해결됐어요 해결됐습니다 많은도움이됐어요 많은도움이되었어요
        다음에봐요 {_each("좋은하루", "되세요 보내세요 되십시오 보내십시오")}
        thanks thankyou thx ty tysm cheers ok okay gotit isee understood noted great perfect awesome cool nice
        excellent thatsall thatisall thatshelpful thatwashelpful thathelps nothanks nothankyou alright
        bye byebye goodbye seeyou seeya haveaniceday haveagoodday haveagreatday haveagoodone goodnight
        yes yeah yep sure no nope
        """,
    SmallTalk.IDENTITY: f"""
        {_each("누구", "야 니 세요 예요 에요 십니까 신가요 인가요 입니까")} 뭐하는챗봇이야
        {_each("이름이", "뭐야 뭐예요 뭐에요 뭔가요 무엇인가요 뭐니 무엇입니까")}
        {_each("사람이 로봇이 챗봇이 봇이 기계가 인공지능이", "야 에요 예요 니 세요 신가요 아닌가요 맞나요")}
        {_each("사람 로봇 챗봇 봇 기계 인공지능 ai",
               "인가요 입니까 이야 이에요 이세요 이신가요 야 예요 에요 세요 맞나요 맞아 맞아요")}
        {_each("뭐 뭘 무엇을 어떤걸 어떤것을 무슨일을",
               "할수있어 할수있어요 할수있나요 할수있니 할수있습니까 할줄알아 할줄알아요 해줄수있어 해줄수있나요 "
               "도와줄수있어 도와줄수있나요 도와주실수있나요 물어볼수있어 물어볼수있나요 물어보면돼 물어보면되나요")}
        도움말 도와줘 도와줘요 도와주세요 도와주십시오
        도움이필요해 도움이필요해요 도움이필요합니다
        whoareyou whatareyou whoisthis whoamitalkingto whoamispeakingto whatisyourname whatsyourname
        {_each("areyou areyoua areyouan isthisa isthisan amitalkingtoa amitalkingtoan amispeakingtoa amispeakingtoan "
               "amichattingwitha amichattingwithan",
               "human person realperson realhuman bot robot ai chatbot machine humanbeing computer")} areyoureal
        {_each("whatcanyou", "do help helpwith helpmewith tellme")} whatdoyoudo howcanyouhelp howcanyouhelpme
        {_each("whatcani", "ask askyou askhere")} help helpme ineedhelp canyouhelp canyouhelpme
        """,
    SmallTalk.PERSON: f"""
        {_each(_STAFF, _CALLS)} {_each(_each(_STAFF, "과 와 이랑 랑 하고 한테 에게 을 를 으로 로"), _CALLS)}
        상담원 {_each(_STAFF, "이요 요")}
        {_each("speakto speakwith talkto talkwith chatwith connectmeto connectmewith transfermeto putmethroughto reach "
               "iwant ineed giveme getme howdoireach howcanireach howdoitalkto howdoispeakto howcanitalkto",
               _PERSONS)}
        agent humanagent liveagent liveperson realperson representative operator human customerservice customersupport
        """,
}  # fmt: skip
_KIND_OF: Final = {_letters(phrase): kind for kind, phrases in _PHRASES.items() for phrase in phrases.split()}
_FILLERS: Final = frozenset(
    _letters(word)
    for word in """
    ㅎㅎ ㅋㅋ 그냥 제발 빨리 바로 말고
    아 어 음 저 저기 혹시 너 너는 넌 니 네가 당신 당신은 당신이 여기 여기는 지금 챗봇 챗봇님 챗봇아 봇 님 정말 진짜
    너무 매우 대단히
    많이 오늘도 친절한 친절하게 빠른 알려줘서 알려주셔서 도와줘서 도와주셔서 답변해주셔서 안내해주셔서 설명해주셔서
    there everyone team chatbot bot assistant again please pls so very much alot lots foryourhelp forthehelp
    foryourtime
    fortheinformation iwantto iwouldliketo idliketo ineedto cani couldi mayi letme canyou couldyou wouldyou just oh
    ah um
    my friend sir madam maam and
    """.split()  # noqa: SIM905  # a word list reads best as prose
)
_LONGEST_MESSAGE: Final = 80
"""The maximum length of small talk in characters."""
_LONGEST_PHRASE: Final = max(map(len, (*_KIND_OF, *_FILLERS)))
_PRECEDENCE: Final = tuple(SmallTalk).index


def small_talk(message: str, own_names: Collection[str]) -> SmallTalk | None:
    """Return the kind of small talk, or None for any other message; `own_names` are the bank's names."""
    if len(message) > _LONGEST_MESSAGE:
        return None
    remaining = _letters(message)
    for name in own_names:
        remaining = remaining.replace(_letters(name), "")
    kinds: set[SmallTalk] = set()
    while remaining:
        beginnings = (remaining[:length] for length in range(min(_LONGEST_PHRASE, len(remaining)), 0, -1))
        phrase = next((text for text in beginnings if text in _KIND_OF or text in _FILLERS), None)
        if phrase is None:
            return None
        if phrase in _KIND_OF:
            kinds.add(_KIND_OF[phrase])
        remaining = remaining[len(phrase) :]
    return max(kinds, key=_PRECEDENCE, default=None)
