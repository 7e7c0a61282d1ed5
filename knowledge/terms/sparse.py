"""Sparse vectors of BM25 term weights: the lexical half of the search, for names, numbers and product terms.

Korean terms are Kiwi morphemes (a particle never hides a noun, and a compound matches by its parts), English terms are
Snowball stems, and numbers are kept whole without thousands separators. A term's index is a hash of its text, so no
vocabulary has to be stored or shared. Passages carry BM25 term frequencies; the collection multiplies them by IDF.
Two neighbouring terms of an English text form another term, a pair: "credit card" means more than credit and card.
Two neighbouring Korean nouns also form one joined term, so that a compound matches however it is spaced or split.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import blake2b
from itertools import pairwise
from threading import Lock
from unicodedata import normalize

from kiwipiepy import Kiwi, Token
from snowballstemmer import stemmer

# Nouns, verbs, adjectives, roots, adverbs and Hanja. Kiwi's suffixes such as "VV-R" (regular conjugation) are removed
# first; particles, endings and punctuation carry no topic; letters and digits are matched by `_WORD` in any language.
_TOPICAL = frozenset({"NNG", "NNP", "NNB", "NR", "NP", "VV", "VA", "XR", "MAG", "XPN", "SH"})

# A letter of Hangul, or a Hanja.
_HANGUL = re.compile(r"[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3\u3400-\u9fff]")
# A number with its separators, or a word in Latin letters ("bank's").
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[a-z\u00c0-\u024f]+(?:'[a-z]+)?")

# Common English words, which would only make a passage count as longer.
_STOPWORD_LIST = (
    "a an the and or of to in on at by for from with as is are was were be been being am do does did done has have had "
    "having i me my we us our you your he him his she her it its they them their this that these those there here what "
    "which who whom when where why how if then than so not no nor can could will would shall should may might must "
    "about into over under up down out off again further once s t d ll m re ve"
)
_STOPWORDS = frozenset(_STOPWORD_LIST.split())

_NOUN_TAGS = frozenset({"NNG", "NNP"})
# The parts of compounds: nouns, numerals, roots, Hanja, and the prefixes and suffixes of nouns.
_COMPOUND_TAGS = frozenset({"NNG", "NNP", "NNB", "NR", "XR", "SH", "XPN", "XSN"})
# Words of questions and of everyday life, which are not banking topics.
_GENERIC_WORDS = (
    "얼마 며칠 경우 정도 무엇 가능 방법 질문 안내 이유 문제 도움 확인 사용 이용 필요 생각 마음 사람 오늘 어제 "
    "내일 지금 요즘 이번 지난달 다음 처음 나중 아침 저녁 주말 우리 저희 거기 여기 때문 동안 이후 이전 엄마 아빠 "
    "어머니 아버지 부모님 할머니 할아버지 형제 자매 남매 언니 누나 오빠 동생 남편 아내 아들 친구 지인 서울 부산 "
    "대구 인천 광주 대전 much many long get got want need tell know please take took give given gave "
    "make made let put keep use go went come came back move moved home away still yet just also only even really "
    "another other others someone something anything everyone everything thing way big small enough normal usual "
    "usually instead through during without within before after around between every each both all any some few "
    "more most less least one two first last next good better best new old same different sure like say said ask "
    "asked asking see look find found try tried happen happens think mean morning evening night today tomorrow "
    "yesterday week weekend friend friends mother father mom dad wife husband son daughter brother sister "
    "grandmother grandfather people person hello thanks"
)

# BM25's constants; a typical passage length, in terms, replaces the mean, which changes as a corpus grows. English
# texts have fewer terms for their length (docs/decisions/0001-fusion-of-scores.md).
_K1 = 1.2
_B_KO, _B_EN = 0.75, 0.9
_TYPICAL_TERMS_KO, _TYPICAL_TERMS_EN = 150.0, 60.0
# Weights in a question, whose own terms weigh 1: of a pair, of a synonym, and of a term of earlier questions only.
_PAIR_KO, _PAIR_EN = 0.3, 0.5
_SYNONYM_KO, _SYNONYM_EN = 0.5, 1.0
_EARLIER = 0.7


@dataclass(frozen=True, slots=True)
class SparseTerms:
    """A sparse vector: distinct term hashes in ascending order, each with its weight."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Morpheme:
    """A morpheme with its part of speech in the Sejong tag set, and its offsets in the text."""

    form: str
    tag: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _TextTerms:
    """The words and pairs of a text in order, with repetitions."""

    words: list[str]
    pairs: list[str]
    is_korean: bool


class Terms:
    """Turns text into sparse vectors; thread-safe, and all instances of a process share one Kiwi."""

    def __init__(self) -> None:
        self._kiwi, self._lock = _kiwi_and_lock()
        self._stem = lru_cache(maxsize=50_000)(stemmer("english").stemWord)
        self._generic = frozenset(form for word in _GENERIC_WORDS.split() for form in (word, self._stem(word)))

    def words(self, text: str) -> list[str]:
        """Return the terms of a text in order, with repetitions and without pairs."""
        return self._terms_of(text).words

    def morphemes(self, text: str) -> list[Morpheme]:
        """Return the Korean morphemes of a text in order; forms are in lower case, offsets count characters."""
        with self._lock:
            tokens = self._tokens(text)
        return [Morpheme(t.form.lower(), _kind(t), t.start, t.start + t.len) for t in tokens]

    def topics(self, text: str) -> list[str]:
        """Return the distinct topics of a text: Korean nouns, and stems of English words of three or more letters."""
        plain = normalize("NFKC", text).lower()
        with self._lock:
            words = (match.group() for match in _WORD.finditer(plain))
            topics = [self._word(word) for word in words if len(word) > 2 and word not in _STOPWORDS and word.isalpha()]
            if _HANGUL.search(plain):
                nouns = (token.form for token in self._tokens(plain) if token.tag in _NOUN_TAGS)
                topics += [noun for noun in nouns if len(noun) > 1]
        return [word for word in dict.fromkeys(topics) if word not in self._generic]

    def passage(self, text: str) -> SparseTerms:
        """Return BM25's term frequencies: saturated, and lower in a passage longer than typical."""
        terms = self._terms_of(text)
        b = _B_KO if terms.is_korean else _B_EN
        typical_length = _TYPICAL_TERMS_KO if terms.is_korean else _TYPICAL_TERMS_EN
        length_factor = _K1 * (1 - b + b * len(terms.words) / typical_length)
        counts = Counter([*terms.words, *terms.pairs])
        return _vector((term, n * (_K1 + 1) / (n + length_factor)) for term, n in counts.items())

    def query(self, text: str, *, earlier: str = "", synonyms: str = "") -> SparseTerms:
        """Return the terms of a question, and with lower weights those of earlier questions and of synonyms.

        A Korean question's weights are scaled by one factor, so that its words and pairs have the total weight of its
        words alone. This keeps the best score, which decides answerability, on its scale.
        """
        terms = self._terms_of(text)
        own_weights = self._question_weights(terms)
        weights = {term: _EARLIER * weight for term, weight in self._question_weights(self._terms_of(earlier)).items()}
        weights |= dict.fromkeys(self.words(synonyms), _SYNONYM_KO if terms.is_korean else _SYNONYM_EN)
        weights |= own_weights
        factor = len(set(terms.words)) / sum(own_weights.values()) if terms.words and terms.is_korean else 1.0
        return _vector((term, factor * weight) for term, weight in weights.items())

    def _question_weights(self, terms: _TextTerms) -> dict[str, float]:
        pair_weight = _PAIR_KO if terms.is_korean else _PAIR_EN
        return dict.fromkeys(terms.pairs, pair_weight) | dict.fromkeys(terms.words, 1.0)

    def _terms_of(self, text: str) -> _TextTerms:
        """Return the words and pairs of a text: stems and numbers, and in Korean text also topical morphemes."""
        plain = normalize("NFKC", text).lower()
        with self._lock:
            words = [self._word(match.group()) for match in _WORD.finditer(plain) if match.group() not in _STOPWORDS]
            if not _HANGUL.search(plain):
                pairs = [f"{left} {right}" for left, right in pairwise(words) if left != right]
                return _TextTerms(words=words, pairs=pairs, is_korean=False)
            tokens = self._tokens(plain)
        words += [token.form for token in tokens if _kind(token) in _TOPICAL and _HANGUL.search(token.form)]
        return _TextTerms(words=words, pairs=list(_noun_pairs(tokens)), is_korean=True)

    def _word(self, word: str) -> str:
        """Return the term of a word: its stem, or the digits of a number without separators of thousands."""
        if word[0].isdigit():
            return word.replace(",", "")
        return str(self._stem(word))

    def _tokens(self, text: str) -> list[Token]:
        # Given a list, Kiwi works in its own thread and releases the GIL; given a string, it holds the GIL.
        tokens: list[Token] = next(iter(self._kiwi.tokenize([text])))
        return tokens


@cache
def morphology() -> Kiwi:
    """Return this process's Kiwi (loads in 0.9 s). Its thread starts with the first text; fork before that."""
    # One worker: Kiwi's own pool would compete with the embedder for the same cores. Without its dictionaries of
    # names Kiwi takes 250 MB less, loads in 0.9 s instead of 3 s, and splits compounds, so that they match by their
    # parts. The nDCG of the terms alone on ko_autorag_docs is .939 with and without them.
    return Kiwi(num_workers=1, load_default_dict=False, load_typo_dict=False, load_multi_dict=False)


@cache
def _kiwi_and_lock() -> tuple[Kiwi, Lock]:
    """Return the Kiwi of this process and the lock for Kiwi and the stemmer.

    Snowball's stemmer keeps the word in its own state, and Kiwi is not documented as thread-safe.
    """
    kiwi = morphology()
    # Build its tables now: the first text blocks all threads for 0.4 s.
    next(iter(kiwi.tokenize(["예금"])))
    return kiwi, Lock()


def _kind(token: Token) -> str:
    tag: str = token.tag
    return tag.partition("-")[0]


def _noun_pairs(tokens: Iterable[Token]) -> Iterator[str]:
    """Yield each pair of neighbouring nouns, at most one character apart, as one term."""
    for left, right in pairwise(tokens):
        is_near = right.start - left.end <= 1
        if is_near and _kind(left) in _COMPOUND_TAGS and _kind(right) in _COMPOUND_TAGS:
            yield f" {left.form}{right.form}"  # no other term begins with a space


def _vector(weights: Iterable[tuple[str, float]]) -> SparseTerms:
    hashed: dict[int, float] = {}
    for term, weight in weights:
        index = _index(term)
        hashed[index] = max(hashed.get(index, 0.0), weight)
    indices: Sequence[int] = sorted(hashed)
    return SparseTerms(tuple(indices), tuple(hashed[i] for i in indices))


@lru_cache(maxsize=100_000)
def _index(term: str) -> int:
    """Return a 32-bit hash that, unlike `hash()`, is the same in every process and release."""
    return int.from_bytes(blake2b(term.encode(), digest_size=4).digest(), "big")
