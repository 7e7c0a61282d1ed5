"""Made-up identifiers in messages, composed by another hand than the patterns that mask them (pure; seeded).

Who wrote it knew what is to be masked (separators, words between, line breaks, digits of every script) and had read
neither the patterns nor the spellings and compositions beside this file. It may grow by what is missed in the field; it
is never fitted to the patterns.
"""

import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache


@dataclass(frozen=True, slots=True)
class HeldOutIdentifier:
    """One message with the places of what must be masked."""

    kind: str
    form: str
    text: str
    pieces: tuple[tuple[int, int], ...]


class _Message:
    """Text that remembers where its secret parts stand."""

    def __init__(self) -> None:
        self.text = ""
        self.secrets: list[tuple[int, int]] = []

    def say(self, words: str) -> None:
        self.text += words

    def hide(self, secret: str) -> None:
        self.secrets.append((len(self.text), len(self.text) + len(secret)))
        self.text += secret


@cache
def _scripts() -> list[str]:
    """The ten decimal digits of every script of Unicode; a look at all its characters takes a seventh of a second."""
    zeros = [
        c for c in range(0x110000) if unicodedata.category(chr(c)) == "Nd" and unicodedata.digit(chr(c), None) == 0
    ]
    return ["".join(chr(zero + n) for n in range(10)) for zero in zeros]


_ASCII = "0123456789"
_SERIES = [
    "⓪①②③④⑤⑥⑦⑧⑨", "⓿❶❷❸❹❺❻❼❽❾", "⁰¹²³⁴⁵⁶⁷⁸⁹", "₀₁₂₃₄₅₆₇₈₉", "〇一二三四五六七八九", "零壹貳參四五六七八九",
    "🄋➀➁➂➃➄➅➆➇➈",
]  # fmt: skip
_KEYCAPS = [f"{n}\ufe0f\u20e3" for n in range(10)]
_KOREAN = [list("공일이삼사오육칠팔구"), list("영일이삼사오육칠팔구")]
_ENGLISH = [
    ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
    ["oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
]

_MARKS = [
    "-", " ", ".", "/", ",", "_", "~", ":", ";", "|", "*", "+", "=", "·", "•", "…", "\\", "'", "‐", "‑", "‒", "–", "—",
    "―", "−", "－", "ー", "ㅡ", "﹣", "／", "．", "，", "、", "。", "：", "＿", "～", " - ", " / ", ", ", ". ", " – ",
    " — ", " : ", "--", "---", "..", "  ", "   ", "->", " → ", " > ", "\u00a0", "\u3000", "\u2009", "\u202f", "\u200b",
    "\u2060", "\u2063", "\ufeff", "\u00ad", "\t",
]  # fmt: skip
_BREAKS = [
    "\n", "\r\n", "\n\n", " \n", "\n ", "-\n", "\n-", ",\n", "\u2028", "\n\t", "\r", "\n- ", "\n* ", "\x0b", "\x85",
]  # fmt: skip
_WORDS_KO = [
    "다시", "그리고", "그 다음", "다음", "다음은", "하이픈", "대시", "빼기", "작대기", "줄", "이고", "하고", "에",
    "이랑", "이고요", "이어서", "뒤에", "뒤는", "나머지는", "음", "그 뒤로", "또", "바", "짝대기", "마이너스", "쩜",
    "띄고", "한칸 띄고",
]  # fmt: skip
_WORDS_EN = [
    "dash", "hyphen", "then", "and", "and then", "followed by", "next", "minus", "space", "the rest is", "plus",
    "after that", "um", "dot", "slash", "next comes", "continuing", "it goes on",
]  # fmt: skip


def _digits(number: str, rng: random.Random, system: str) -> str:
    """The number's digits in one system of writing."""
    if system == "ascii":
        return number
    if system == "script":
        row: Sequence[str] = rng.choice(_scripts())
    elif system == "series":
        row = rng.choice(_SERIES)
    elif system == "keycap":
        row = _KEYCAPS
    elif system == "korean":
        row = rng.choice(_KOREAN)
        return rng.choice(["", " "]).join(row[int(n)] for n in number)
    elif system == "english":
        row = rng.choice(_ENGLISH)
        return rng.choice([" ", "-", ", "]).join(row[int(n)] for n in number)
    else:  # Each digit in a script of its own.
        return "".join(rng.choice(_scripts())[int(n)] for n in number)
    return "".join(row[int(n)] for n in number)


def _system(rng: random.Random) -> str:
    return rng.choices(
        ["ascii", "script", "series", "keycap", "korean", "english", "mixed"], weights=[10, 5, 2, 1, 1, 1, 1]
    )[0]


def _between(rng: random.Random, form: str, *, korean: bool) -> str:
    if form == "marks":
        return rng.choice(_MARKS)
    if form == "breaks":
        return rng.choice(_BREAKS)
    word = rng.choice(_WORDS_KO if korean else _WORDS_EN)
    if korean:
        return rng.choice([f" {word} ", f"{word} ", f", {word} ", f" {word}, ", f"\n{word} "])
    return rng.choice([f" {word} ", f", {word} ", f" {word}, ", f" {word}: ", f"\n{word} "])


def _grouped(groups: Sequence[str], rng: random.Random, form: str, *, korean: bool) -> str:
    """The groups of a number with what stands between them, one thing throughout or each its own."""
    system = _system(rng)
    if form == "apart":  # Every digit by itself.
        mark = rng.choice([" ", "-", ".", ",", "  ", "\u200b", "\u3000", "_", "·", "\n", "/"])
        system = "ascii" if system in {"korean", "english"} else system
        return mark.join(_digits(digit, rng, system) for digit in "".join(groups))
    if form == "joined":
        return _digits("".join(groups), rng, system)
    same = _between(rng, form, korean=korean) if rng.random() < 0.7 else None
    written = _digits(groups[0], rng, system)
    for group in groups[1:]:
        if rng.random() < 0.1:
            system = _system(rng)
        written += (same or _between(rng, form, korean=korean)) + _digits(group, rng, system)
    return written


def _day(rng: random.Random) -> date:
    return date(1935, 1, 1) + timedelta(days=rng.randrange(365 * 88))


def _resident(rng: random.Random) -> tuple[date, str]:
    day = _day(rng)
    first = rng.choice("1256" if day.year < 2000 else "3478")
    return day, first + "".join(rng.choices(_ASCII, k=6))


_RESIDENT_KO = [
    "제 주민번호는 {}입니다", "주민등록번호 {} 인데 대출 되나요?", "주민번호: {}", "{} 이게 제 주민번호예요",
    "실명확인 {}", "주민 {} 홍길동", "본인확인용으로 {} 알려드려요", "외국인등록번호 {} 입니다", "{}",
    "민증번호 {}로 조회해주세요", "{} 로 가입된 계좌 있나요?", "네, {} 이에요.", "주민번호를 불러드릴게요. {} 맞죠?",
]  # fmt: skip
_RESIDENT_EN = [
    "my resident registration number is {}", "RRN {}", "my rrn: {} can I get a loan?", "{}",
    "{} is my Korean ID number", "alien registration number {}", "resident number {}, please check", "ID: {}",
    "I was asked for it, it's {}.",
]  # fmt: skip
_HALVES_KO = [
    ("주민번호 앞자리 ", "front", " 뒷자리 ", "back", ""), ("앞자리는 ", "front", "이고 뒷자리는 ", "back", "입니다"),
    ("주민등록번호 앞 여섯자리 ", "front", ", 뒤 일곱자리 ", "back", " 입니다"),
    ("뒷자리는 ", "back", ", 앞자리는 ", "front", "이에요"),
    ("주민번호 앞은 ", "front", "이고요 뒤는 ", "back", "이에요"),
    ("주민번호 앞 6자리: ", "front", "\n주민번호 뒤 7자리: ", "back", ""),
    ("생년월일 ", "front", " 주민번호 뒷자리 ", "back", ""), ("앞번호 ", "front", " 뒷번호 ", "back", " 조회요"),
    ("1) ", "front", "\n2) ", "back", " 주민번호예요"), ("주민번호 뒤 ", "back", " 앞 ", "front", ""),
    ("제 주민번호 앞자리가 ", "front", "인데요, 뒷자리까지 말씀드리면 ", "back", "요"),
]  # fmt: skip
_HALVES_EN = [
    ("first half ", "front", ", second half ", "back", " of my resident number"),
    ("RRN front ", "front", " back ", "back", ""),
    ("the first six digits are ", "front", " and the last seven are ", "back", ""),
    ("my resident number ends in ", "back", " and begins with ", "front", ""),
    ("date of birth ", "front", ", rest of my resident number ", "back", ""),
    ("first 6: ", "front", "\nlast 7: ", "back", ""),
]  # fmt: skip
_DAYS = [
    "{y:02}년{m:02}월{d:02}일", "{y:02}년 {m}월 {d}일", "{Y}년 {m}월 {d}일", "{Y}{m:02}{d:02}", "{Y}.{m:02}.{d:02}",
    "{Y}-{m:02}-{d:02}", "{y:02}.{m:02}.{d:02}", "{y:02}/{m:02}/{d:02}", "{y:02} {m:02} {d:02}",
    "{y:02}-{m:02}-{d:02}", "{Y}/{m}/{d}", "{y:02}. {m}. {d}.",
]  # fmt: skip


def _fill(kind: str, form: str, carrier: str, secret: str) -> HeldOutIdentifier:
    message = _Message()
    before, after = carrier.split("{}")
    message.say(before)
    message.hide(secret)
    message.say(after)
    return HeldOutIdentifier(kind, form, message.text, tuple(message.secrets))


def _residents(rng: random.Random) -> HeldOutIdentifier:
    korean = rng.random() < 0.7
    day, back = _resident(rng)
    front = day.strftime("%y%m%d")
    forms = ["joined", "marks", "breaks", "words", "apart", "halves", "date"]
    form = rng.choices(forms, weights=[1, 4, 3, 4, 1, 3, 3])[0]
    if form == "halves":
        message, system = _Message(), _system(rng)
        for part in rng.choice(_HALVES_KO if korean else _HALVES_EN):
            if part in {"front", "back"}:
                message.hide(_digits(front if part == "front" else back, rng, system))
            else:
                message.say(part)
        return HeldOutIdentifier("resident", form, message.text, tuple(message.secrets))
    carrier = rng.choice(_RESIDENT_KO if korean else _RESIDENT_EN)
    if form == "date":
        written = rng.choice(_DAYS).format(y=day.year % 100, Y=day.year, m=day.month, d=day.day)
        join = rng.choice(["-", " ", " - ", ",", "생 ", "생, ", " 다시 ", "\n", "/", "", " 그리고 ", "~", "."])
        if not join and written[-1].isdigit():
            join = "-"
        return _fill("resident", form, carrier, f"{written}{join}{back}")
    return _fill("resident", form, carrier, _grouped([front, back], rng, form, korean=korean))


def _luhn(body: str) -> str:
    total = 0
    for place, digit in enumerate(reversed(body)):
        value = int(digit) * (2 if place % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return body + str(-total % 10)


_CARD_KO = [
    "카드번호 {} 분실했어요", "제 카드 {} 정지해주세요", "{} 결제가 안돼요", "{}", "신용카드 {} 한도 알려줘",
    "체크카드번호는 {}입니다", "카드 번호 불러드릴게요 {} 이에요", "이 카드요: {}", "{} 유효기간 12/29",
    "{} 이걸로 5만원 결제 취소요", "법인카드 {} 재발급",
]  # fmt: skip
_CARD_EN = [
    "my card {} is lost", "card number: {}", "{}", "please block {}", "I paid with {} yesterday", "cc {} exp 12/29",
    "my debit card number is {}, why was it declined?", "Visa {} for 30 dollars",
]  # fmt: skip


def _cards(rng: random.Random) -> HeldOutIdentifier:
    korean = rng.random() < 0.6
    if rng.random() < 0.15:
        number = _luhn(rng.choice(["34", "37"]) + "".join(rng.choices(_ASCII, k=12)))
        groups = [number[:4], number[4:10], number[10:]]
    else:
        issuer = rng.choice(["4", "51", "52", "53", "54", "55", "35", "62", "94", "90", "65"])
        number = _luhn((issuer + "".join(rng.choices(_ASCII, k=16)))[:15])
        groups = [number[n : n + 4] for n in range(0, 16, 4)] if rng.random() < 0.9 else [number[:8], number[8:]]
    form = rng.choices(["joined", "marks", "breaks", "words", "apart"], weights=[2, 4, 4, 4, 1])[0]
    return _fill("card", form, rng.choice(_CARD_KO if korean else _CARD_EN), _grouped(groups, rng, form, korean=korean))


_BANKS = [
    "국민은행", "신한", "우리은행", "하나은행", "농협", "기업은행", "카카오뱅크", "토스뱅크", "케이뱅크", "새마을금고",
    "우체국", "SC제일은행", "부산은행", "수협",
]  # fmt: skip
_SHAPES = [
    (6, 2, 6), (3, 3, 6), (4, 3, 6), (3, 6, 5), (3, 4, 4, 2), (3, 6, 2, 3), (4, 2, 7), (4, 4, 4), (3, 2, 6), (6, 2, 5),
    (3, 4, 6), (4, 4, 4, 1),
]  # fmt: skip
_ACCOUNT_KO = [
    "계좌번호 {} 입니다", "{bank} {} 잔액이요", "{bank} {}로 3만원 보내줘", "제 계좌 {} 만기가 언제예요?",
    "계좌 {} 만기 해지", "{} 계좌 억울하게 정지됐어요", "통장 {} 만 조회해줘", "{bank} 계좌 {} 으로 이체",
    "입금계좌: {bank} {}", "계좌 {} 억대 예금 이자", "예금 계좌번호가 {} 인데 만원 출금", "{} ({bank}) 자동이체 등록",
    "{} 이 계좌 해지하고 싶어요", "적금계좌 {}만기일", "출금계좌번호는 {}이고 입금은 나중에",
    "가상계좌 {} 로 납부했어요",
]  # fmt: skip
_ACCOUNT_EN = [
    "my account number is {}", "account {} balance please", "transfer 30,000 won to account {}", "acct no. {}",
    "a/c {} matures when?", "close account {}", "the account {} was frozen", "from my savings account {} to hers",
    "bank account: {}",
]  # fmt: skip


def _accounts(rng: random.Random) -> HeldOutIdentifier:
    korean = rng.random() < 0.7
    groups = ["".join(rng.choices(_ASCII, k=size)) for size in rng.choice(_SHAPES)]
    if rng.random() < 0.5:
        groups[0] = rng.choice(["110", "1002", "3333", "100", "301", "020"])
    form = rng.choices(["joined", "marks", "breaks", "words", "apart"], weights=[3, 5, 2, 3, 1])[0]
    carrier = rng.choice(_ACCOUNT_KO if korean else _ACCOUNT_EN).replace("{bank}", rng.choice(_BANKS))
    return _fill("account", form, carrier, _grouped(groups, rng, form, korean=korean))


_PHONE_KO = [
    "제 번호는 {}입니다", "{} 로 연락주세요", "휴대폰 {}", "핸드폰 번호 {} 바꿨어요", "{}", "전화 {} 으로 문자 주세요",
    "연락처: {}",
]  # fmt: skip
_PHONE_EN = ["call me at {}", "my phone is {}", "mobile: {}", "text {} please", "{}", "my number's {}"]


def _phones(rng: random.Random) -> HeldOutIdentifier:
    korean = rng.random() < 0.7
    middle, last = ("".join(rng.choices(_ASCII, k=4)) for _ in range(2))
    form = rng.choices(["joined", "marks", "breaks", "words", "apart"], weights=[2, 4, 2, 3, 1])[0]
    groups = [rng.choice(["010", "010", "010", "011", "016"]), middle, last]
    carrier = rng.choice(_PHONE_KO if korean else _PHONE_EN)
    if rng.random() < 0.15 and form == "marks":
        groups[0] = rng.choice(["+82 10", "+82-10", "82 10", "(+82)10", "0082 10"])
        return _fill("phone", form, carrier, rng.choice(["-", " ", "."]).join(groups))
    return _fill("phone", form, carrier, _grouped(groups, rng, form, korean=korean))


_AT = [
    "(at)", " (at) ", " at ", "[at]", " [at] ", "{at}", "<at>", " AT ", "골뱅이", " 골뱅이 ", " 앳 ", "＠", " @ ",
    "﹫", "_at_", " -at- ", "(골뱅이)", " 골뱅이, ", "@\n", "\n@", "@\u200b", "(@)", "[@]", " (AT) ", "(앳)", "* at *",
    " @\n",
]  # fmt: skip
_DOT = [
    "(dot)", " (dot) ", " dot ", "[dot]", " [dot] ", "{dot}", "<dot>", " DOT ", "점", " 점 ", " 닷 ", "．", " . ",
    "。", "_dot_", " -dot- ", "(점)", ",", " 쩜 ", ".\n", "․", ".\u200b", "(.)", "[.]", " (DOT) ", "(닷)", " . ",
]  # fmt: skip
_EMAIL_KO = [
    "이메일 {} 로 보내주세요", "메일주소는 {} 입니다", "{}", "메일: {}", "{} 로 명세서 받고 싶어요",
    "제 이메일이 {} 인데 변경할게요",
]  # fmt: skip
_EMAIL_EN = [
    "my email is {}", "send it to {} please", "{}", "e-mail: {}", "mail me: {}", "statements go to {}, change that",
]  # fmt: skip
_NAMES = [
    "hong", "kim.minsu", "lee_jh", "park88", "choi-yj", "jdoe", "mary.smith", "s2young", "abc123", "hello.world99",
    "y.kang",
]  # fmt: skip
_DOMAINS = [
    "gmail com", "naver com", "daum net", "hanmail net", "kakao com", "outlook com", "yahoo co kr", "company co kr",
    "example org", "nate com",
]  # fmt: skip


def _wide(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def _emails(rng: random.Random) -> HeldOutIdentifier:
    korean = rng.random() < 0.5
    name, domain = rng.choice(_NAMES), rng.choice(_DOMAINS).split()
    pair = rng.randrange(len(_AT))
    form = rng.choices(["plain", "paired", "crossed", "wide", "apart", "upper"], weights=[2, 8, 4, 1, 1, 1])[0]
    if form == "paired":
        written = name + _AT[pair] + _DOT[pair].join(domain)
    elif form == "crossed":
        written = name + rng.choice(["@", _AT[pair]]) + rng.choice([".", rng.choice(_DOT)]).join(domain)
    else:
        written = name + "@" + ".".join(domain)
        if form == "wide":
            written = _wide(written)
        elif form == "apart":
            written = rng.choice([" ", "\u200b", "\u2063"]).join(written)
        elif form == "upper":
            written = written.upper()
    return _fill("e-mail", form, rng.choice(_EMAIL_KO if korean else _EMAIL_EN), written)


_OTP_KO = [
    "OTP {} 입력했는데 안돼요", "OTP번호 {}", "otp가 {} 이라고 나와요", "일회용 비밀번호는 {}입니다",
    "일회용비밀번호 {}", "인증번호 {} 왔어요", "인증번호는 [{}] 입니다", "문자로 온 인증번호가 {} 인데 맞나요",
    "SMS 인증 코드 {}", "오티피 {} 틀렸대요", "제 OTP 생성기에 {} 떠요", "{} 이게 OTP 번호예요",
    "본인확인 인증번호({})를 입력하여 주세요", "승인번호 말고 인증번호: {}", "오티피번호는 {}이에요",
]  # fmt: skip
_OTP_EN = [
    "my OTP is {}", "OTP: {}", "one-time password {} does not work", "one time passcode is {}", "verification code {}",
    "the verification code is {}", "I got the code {} by text, it is my OTP", "authentication code: {}", "otp={}",
    "your one-time code {} expired", "{} is my verification code", "security code from the SMS: {}",
    "passcode {} not accepted", "2FA code {}",
]  # fmt: skip
_CARD_CODES_KO = [
    ("보안카드 {i}번 ", "4"), ("보안카드 {i}번째 숫자가 ", "4", " 맞나요"),
    ("보안카드 {i}번 앞 두자리 ", "2", ", {j}번 뒤 두자리 ", "2", " 입력했어요"), ("보안카드 코드 ", "4", " 틀렸대요"),
    ("보안카드 번호는 ", "4", " 입니다"), ("보안카드 {i}번은 ", "4", "이고 {j}번은 ", "4", "이에요"),
    ("보안카드:\n{i}) ", "4", "\n{j}) ", "4", ""), ("보안 카드 {i}번 코드는 ", "4", " {j}번 코드는 ", "4", ""),
    ("안전카드 {i}번 ", "4", " 오류"), ("보안카드 {i}번의 앞자리는 ", "2", "고 {j}번의 뒷자리는 ", "2", "입니다"),
]  # fmt: skip
_CARD_CODES_EN = [
    ("security card no. {i} is ", "4", ""), ("security card number {i}: ", "4", ", number {j}: ", "4", ""),
    ("my security card code is ", "4", ""), ("code {i} on my security card is ", "4", ""),
    ("security card row {i} says ", "4", " and row {j} says ", "4", ""),
    ("first two digits of security card {i} are ", "2", ""),
]  # fmt: skip


def _otps(rng: random.Random) -> HeldOutIdentifier:
    korean = rng.random() < 0.7
    number = "".join(rng.choices(_ASCII, k=rng.choice([6, 6, 6, 4, 5, 7, 8])))
    form = rng.choices(["joined", "marks", "apart", "words"], weights=[6, 3, 1, 1])[0]
    half = len(number) // 2
    groups = [number[:half], number[half:]]
    carrier = rng.choice(_OTP_KO if korean else _OTP_EN)
    return _fill("one-time password", form, carrier, _grouped(groups, rng, form, korean=korean))


def _card_codes(rng: random.Random) -> HeldOutIdentifier:
    korean = rng.random() < 0.7
    first, second = rng.sample(range(1, 36), k=2)
    message, system = _Message(), _system(rng)
    for part in rng.choice(_CARD_CODES_KO if korean else _CARD_CODES_EN):
        if part in {"2", "4"}:
            message.hide(_digits("".join(rng.choices(_ASCII, k=int(part))), rng, system))
        else:
            message.say(part.format(i=first, j=second))
    return HeldOutIdentifier("security card", "codes", message.text, tuple(message.secrets))


_KINDS: list[Callable[[random.Random], HeldOutIdentifier]] = [
    _residents,
    _cards,
    _accounts,
    _phones,
    _emails,
    _otps,
    _card_codes,
]


def held_out_identifiers(count: int, seed: int = 1) -> Iterator[HeldOutIdentifier]:
    """`count` messages of each kind; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311
    for compose in _KINDS:
        for _ in range(count):
            yield compose(rng)
