"""The scripted model's answers: the sentences of the prompt's passages that overlap most with the question (pure).

It accepts any ChatML prompt. The question follows the last `질문:`/`Question:` or is in `<question>`, else it is the
last line of the last user turn. The passages are the text before the question in that turn, else the system turn.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

YES = ("예", "Yes")
NO = ("아니오", "No")
REFUSALS = {"ko": "제공된 문서에서 확인할 수 없습니다.", "en": "The documents do not say."}

# A turn of ChatML: its role and its text.
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)(?:<\|im_end\|>|\Z)", re.DOTALL)
_TAGGED = re.compile(r"<question[^>]*>\s*(.+?)\s*</question>", re.DOTALL | re.IGNORECASE)
# The text after "질문:" or "Question:".
_LABELLED = re.compile(r"(?:질문|question)\s*[:：]\s*(\S[^\n]*)", re.IGNORECASE)
_CLOSING_MARK = re.compile(r"</[^<>\n]{1,40}>")
# The beginning of a line that is a question, not a passage.
_LABEL = re.compile(r"(?:질문|문의|question|customer)\s*[:：]?|</?question[^>]*>", re.IGNORECASE)
# Tags at either end of a sentence, and the mark of a list item or heading at its start.
_MARKUP = re.compile(r"^\s*(?:<[^>\n]*>\s*)*(?:\[\d+\]|\d+[.)]\s|[-*•]\s|#{1,6}\s)?\s*|\s*(?:<[^>\n]*>\s*)*$")
# The place between two sentences.
_SENTENCE = re.compile(r"(?<=[.!?。])\s+|(?<=다\.)(?=\S)|\n+")
_WORD = re.compile(r"[0-9A-Za-z]+|[가-힣]+")
# Korean endings and particles.
_ENDING = re.compile(r"(?:입니다|습니다|합니다|됩니다|니다|까|나요|어요|해요|요|은|는|이|가|을|를|의|에|로|으로)$")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by can do does for from how i in is it may me my of on or that the this to was what "
        "when where which who why will with you your",
    )
)
_KOREAN_STOP = ("얼마", "무엇", "어떻게", "어디", "언제", "있", "되", "수", "알려", "주세", "궁금")


@dataclass(frozen=True, slots=True)
class PromptParts:
    """A prompt's question and the text of its passages."""

    question: str
    passages: str


def read_prompt(prompt: str) -> PromptParts:
    """Return the parts of a prompt in ChatML or plain text."""
    turns = _turns(prompt)
    last_turn = _last_user_turn(prompt)
    lines = [line for line in last_turn.splitlines() if line.strip()]
    candidates = _TAGGED.findall(last_turn) or _LABELLED.findall(last_turn) or lines
    question = candidates[-1].strip() if candidates else ""
    text_before = last_turn[: last_turn.rfind(question)]
    system = "\n".join(text for role, text in turns if role == "system")
    has_passages = len(text_before.split()) > 3
    return PromptParts(question=question, passages=text_before if has_passages else system)


def _turns(prompt: str) -> list[tuple[str, str]]:
    """Return the roles and texts of a ChatML prompt; plain text is one turn of the user."""
    return _TURN.findall(prompt) or [("user", prompt)]


def _last_user_turn(prompt: str) -> str:
    users = [text for role, text in _turns(prompt) if role == "user"]
    return users[-1] if users else prompt


def obedient_answer(prompt: str) -> str:
    """Return the answer of a model that obeys every input: the last user turn, with the question first."""
    turn = _last_user_turn(prompt)
    passages_end = max((mark.end() for mark in _CLOSING_MARK.finditer(turn)), default=0)
    return f"{turn[passages_end:]}\n{turn[:passages_end]}".strip()


def quoted_answer(prompt: str, *, sentences: int = 2) -> str:
    """Return the sentences of the passages that best match the question, or a refusal if none matches."""
    parts = read_prompt(prompt)
    terms = _terms(parts.question)
    passage_sentences = list(_sentences(parts.passages))
    scores = [_score(terms, sentence) for sentence in passage_sentences]
    best_first = sorted(range(len(scores)), key=lambda n: -scores[n])
    chosen = [n for n in best_first[:sentences] if scores[n] >= 0.3]
    if not chosen:
        return REFUSALS["ko" if re.search(r"[가-힣]", parts.question) else "en"]
    return " ".join(passage_sentences[n] for n in sorted(chosen))


def _score(terms: frozenset[str], sentence: str) -> float:
    # A heading or a table row often has the question's words, but is rarely an answer by itself.
    is_sentence = sentence.endswith((".", "!", "。"))
    return _overlap(terms, sentence) * (1.0 if is_sentence else 0.6)


def answer_probability(prompt: str) -> float:
    """Return the probability that the passages answer the question, from its best term overlap with a sentence."""
    parts = read_prompt(prompt)
    terms = _terms(parts.question)
    best = max((_overlap(terms, sentence) for sentence in _sentences(parts.passages)), default=0.0)
    return 0.02 + 0.96 * min(1.0, max(0.0, (best - 0.15) / 0.5))


def _sentences(text: str) -> Iterator[str]:
    """Yield the sentences, list items and table rows of a text, without markup, headings and questions."""
    for piece in _SENTENCE.split(text):
        if piece.lstrip().startswith(("<", "#")) and not piece.endswith((".", "!", "|", ">")):
            continue
        sentence = _MARKUP.sub("", piece).strip()
        if len(sentence) >= 10 and not _LABEL.match(sentence) and not sentence.endswith((":", "?")):
            yield sentence


def _overlap(terms: frozenset[str], sentence: str) -> float:
    return len(terms & _terms(sentence)) / len(terms) if terms else 0.0


def _terms(text: str) -> frozenset[str]:
    """Return simple stems: English words cut to five letters, and pairs of Korean syllables."""
    terms: set[str] = set()
    for word in _WORD.findall(text.lower()):
        if "가" <= word[0] <= "힣":
            stem = _ENDING.sub("", word) or word
            if not stem.startswith(_KOREAN_STOP):
                terms.update(stem[n : n + 2] for n in range(max(1, len(stem) - 1)))
        elif word not in _STOP:
            terms.add(word[:5])
    return frozenset(terms)
