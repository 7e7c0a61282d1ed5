"""Writes a Korean question of a conversation out so that it is understood alone (docs/decisions/0025).

Korean leaves out what was named before: after a question about a deposit, "앱으로 가입하면 더 주나요?" asks about the
deposit. Search, the probe, the prompt and the checks need the whole question. It is completed by grammar, with words
that the customer or the bank's titles have; no model writes anything, so the same conversation gives the same question.
An English question is not completed: there only the search knows the questions before (`SearchQuery`).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

from knowledge.passage import language_of
from knowledge.terms import Morpheme, Terms

LONGEST: Final = 400
"""Characters of a question that is written out; a longer one stays as it was asked."""

MOST_EARLIER: Final = 8
"""Questions that are looked back on."""

_NOUN_TAGS: Final = frozenset({"NNG", "NNP", "XR", "SL", "XPN", "XSN", "SN", "SH"})
_NAMING_TAGS: Final = frozenset({"NNG", "NNP", "XR", "SL"})
# What nearly every title of a bank says, and what customers ask about any product: neither names a subject.
_OF_TITLES: Final = frozenset(
    {
        *("안내", "상품", "설명서", "약관", "서비스", "이용", "은행", "신고", "접수"),
        *("개설", "지급", "대응", "고시", "소비자", "권리", "가이드"),
    }
)
_OF_ANY_PRODUCT: Final = frozenset(
    {
        *("수수료", "금리", "이자", "이율", "한도", "금액", "기간", "기한", "서류", "심사"),
        *("신청", "가입", "해지", "조건", "방법", "절차", "비용", "가격", "나이", "시간"),
        *("은행", "통장", "계좌", "고객", "상품", "우대", "기본", "최대", "최소", "최고"),
        *("최저", "하루", "번", "만기", "돈", "지점", "영업점", "앱", "보관", "이용"),
        *("조회", "발급", "재발급", "안내", "처리", "보증", "연락처", "전화", "번호", "디자인"),
        *("변경", "소득", "월급", "이번", "다음", "중도", "중간", "원금", "사람"),
    }
)

_OPENERS: Final = re.compile(
    r"^(?:(?:그럼|그러면|그렇다면|근데|그런데|그리고|그래도|그래서|또|또한|아니|아뇨|아|네|넵|참|음|오"
    r"|혹시|그렇군요|알겠어요|감사합니다|고마워요)[\s,.!?~]+){1,4}"
)
_REFERRING: Final = re.compile(
    r"(?<![가-힣])(?P<noun>그거|그것|그건|그걸|그게|이거|이것|이건|이걸|이게|거기|거긴)(?P<after>[가-힣]*)"
)
_CONTRACTED: Final = {"건": "은", "걸": "을", "게": "이", "긴": "은"}
_IF: Final = re.compile(r"면(?:은)?요\s?[?.!]{0,3}$")
_ENDS_IN_TOPIC: Final = re.compile(r"(?P<topic>[가-힣](?:은|는|도))요\s?[?.!]{0,3}$")
_CORRECTION: Final = re.compile(
    r"^(?P<former>[^.?!]{0,60}?)\s?(?:말고|아니고|아니라)\s(?P<meant>[^.?!]{1,60}?)(?:이에요|예요|이요|인데요|요)(?=[\s.?!,]|\Z)"
)
_CHOICE: Final = re.compile(
    r"(?:둘 중(?:에)? )?(?:(?P<first>앞에?|첫\s?번째|먼저 말한|전자)|뒤에?|둘째|두\s?번째|나중에 말한|후자)"
    r"(?:\s?[거것꺼]|(?<=[전후]자))(?P<particle>[는은도로])?(?=[\s?])"
)
_TOPIC_OR_SUBJECT: Final = re.compile(r"[이가은는]\Z")
_SENTENCE_END: Final = re.compile(r"[?.!]")
_AND: Final = re.compile(r"(?:이랑|랑|와|과|하고|이나|나|,|\s?아니면)\s?")
_AT_FIRST: Final = re.compile(r"맨 처음|처음에 (?:말|물)")


@dataclass(frozen=True, slots=True)
class EarlierQuestion:
    """A question of the conversation, written out, with the titles of the passages found for it, best first."""

    text: str
    titles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _NounPhrase:
    """Nouns that follow each other, with their place in the text."""

    nouns: tuple[Morpheme, ...]

    @property
    def start(self) -> int:
        return self.nouns[0].start

    @property
    def end(self) -> int:
        return self.nouns[-1].end

    def naming(self, but: frozenset[str]) -> list[str]:
        """Return the words that may name a subject."""
        return [noun.form for noun in self.nouns if noun.tag in _NAMING_TAGS and noun.form not in but]


class StandaloneQuestions:
    """Completes the questions of conversations."""

    def __init__(self, terms: Terms, own_names: Collection[str]) -> None:
        self._terms = terms
        self._named_by = lru_cache(maxsize=4096)(self._words_of_title)
        self._of_titles = _OF_TITLES | {noun.form for name in own_names for noun in terms.morphemes(name)}

    def write_out(self, question: str, earlier: Sequence[EarlierQuestion], titles: Sequence[str]) -> str:
        """Return the question as it is understood alone, or "" where that is not known.

        `earlier` are the customer's questions before it, oldest first, at least one; `titles` are those of the passages
        found for the question by itself, best first: what names one of these documents needs nothing of an earlier one.
        """
        if language_of(question) != "ko":
            return ""
        whole = self._written_out(_OPENERS.sub("", question).strip(), earlier[-MOST_EARLIER:], titles)
        return whole if len(whole) <= LONGEST else ""

    def _written_out(self, said: str, earlier: Sequence[EarlierQuestion], titles: Sequence[str]) -> str:
        before = self._continued(said, earlier)
        subject, own_subject = self._subject(before), self._named(said, titles)
        if chosen := self._with_choice(said, earlier):
            return chosen
        if correction := _CORRECTION.match(said):
            rest = said[correction.end() :].lstrip(" .?!,")
            return _corrected(correction, rest, before.text, subject, own_subject)
        if _IF.search(said) and not _SENTENCE_END.search(said[:-1]):  # "토요일이면요?" asks the same of a Saturday
            condition = _REFERRING.sub("", _IF.sub("면", said)).strip()
            return f"{condition} {earlier[-1].text}"
        if own_subject or (subject and self._words(said) >= self._words(subject)):
            return said
        if not subject:
            return ""
        if referring := _REFERRING.search(said):
            return said[: referring.start()] + _in_place_of(referring, subject) + said[referring.end() :]
        if fragment := _ENDS_IN_TOPIC.search(said):
            return f"{subject} {said[: fragment.end('topic')]} 어떻게 되나요?"
        return f"{with_particle(subject, '은')} {said}"

    def _continued(self, said: str, earlier: Sequence[EarlierQuestion]) -> EarlierQuestion:
        """Return the earlier question that shares most words with what was said: the last one where none shares any."""
        if _AT_FIRST.search(said):
            return earlier[0]
        words = self._words(said)
        newest_first = list(reversed(earlier))
        return max(
            newest_first, key=lambda question: len(words & self._words(f"{question.text} {self._subject(question)}"))
        )

    def _subject(self, question: EarlierQuestion) -> str:
        """Return the words of a question that name a document found for it: what it is about; "" where none do."""
        return self._named(question.text, question.titles)

    def _named(self, text: str, titles: Sequence[str]) -> str:
        """Return the words of the text that name one of the first three documents, by two of the title's words."""
        most, named, phrases = 1, "", self._phrases(text)
        for title in titles[:3]:
            of_title = self._named_by(title)
            for phrase in phrases:
                places = [n for n, noun in enumerate(phrase.nouns) if noun.form in of_title]
                if len({phrase.nouns[n].form for n in places}) <= most:
                    continue
                last = places[-1]
                while last + 1 < len(phrase.nouns) and phrase.nouns[last + 1].start == phrase.nouns[last].end:
                    last += 1  # 파킹통장 is one word
                most = len({phrase.nouns[n].form for n in places})
                named = text[phrase.nouns[places[0]].start : phrase.nouns[last].end]
        return named

    def _words_of_title(self, title: str) -> frozenset[str]:
        words = {word for phrase in self._phrases(title) for word in phrase.naming(self._of_titles)}
        return frozenset(words - _OF_ANY_PRODUCT)

    def _with_choice(self, said: str, earlier: Sequence[EarlierQuestion]) -> str:
        """Return what was said with the chosen one of two things ("앞에 거") named; "" where no two were named."""
        if not (choice := _CHOICE.search(said)):
            return ""
        pair = next(filter(None, (self._pair(question.text) for question in reversed(earlier))), None)
        if pair is None:
            return ""
        chosen = with_particle(pair[0 if choice["first"] else 1], choice["particle"] or "")
        return said[: choice.start()] + chosen + said[choice.end() :]

    def _pair(self, text: str) -> tuple[str, str] | None:
        """Return the two things that a text names beside each other."""
        phrases = self._phrases(text)
        for left, right in pairwise(phrases):
            if (
                _AND.fullmatch(text[left.end : right.start])
                and left.naming(_OF_ANY_PRODUCT)
                and right.naming(_OF_ANY_PRODUCT)
            ):
                return text[left.start : left.end], text[right.start : right.end]
        return None

    def _words(self, text: str) -> set[str]:
        return {word for phrase in self._phrases(text) for word in phrase.naming(_OF_ANY_PRODUCT)}

    def _phrases(self, text: str) -> list[_NounPhrase]:
        """Return the noun phrases of a text; a blank does not end one."""
        phrases: list[list[Morpheme]] = [[]]
        for morpheme in self._terms.morphemes(text):
            if morpheme.tag not in _NOUN_TAGS:
                phrases.append([])
                continue
            if phrases[-1] and morpheme.start > phrases[-1][-1].end + 1:
                phrases.append([])
            phrases[-1].append(morpheme)
        found = (_NounPhrase(tuple(nouns)) for nouns in phrases if nouns)
        return [phrase for phrase in found if phrase.naming(frozenset())]


def _corrected(correction: re.Match[str], rest: str, before: str, subject: str, own_subject: str) -> str:
    """Return the question that a correction ("수도권 아니고 대전이에요") asks; "" where that is not known."""
    meant, former = correction["meant"].strip(), _TOPIC_OR_SUBJECT.sub("", "".join(correction["former"].split()[-1:]))
    if rest and own_subject:
        return f"{with_particle(own_subject, '은')} {rest}"
    if subject and meant.endswith("면"):
        return f"{with_particle(subject, '은')} {meant} 어떻게 되나요?"
    return f"{before.replace(former, meant)} {rest}".strip() if former and former in before else ""


def _in_place_of(referring: re.Match[str], subject: str) -> str:
    """Return the subject as it stands in place of a word that refers to it: 그건 is 그것은."""
    after = referring["after"]
    if after.startswith(("로", "으로")):
        return with_particle(subject, "로") + after.removeprefix("으").removeprefix("로")
    return with_particle(subject, _CONTRACTED.get(referring["noun"][-1], "")) + after


_FORMS: Final = (("은", "는"), ("이", "가"), ("을", "를"), ("과", "와"))


def with_particle(word: str, particle: str) -> str:
    """Return the word with the form of a particle that its last syllable asks for: 예금은, 카드는."""
    last = word[-1:]
    final = (ord(last) - ord("가")) % 28 if "가" <= last <= "힣" else 0
    if particle in {"로", "으로"}:
        return word + ("로" if final in {0, 8} else "으로")  # 8 is ㄹ
    forms = next((pair for pair in _FORMS if particle in pair), (particle, particle))
    return word + forms[0 if final else 1]
