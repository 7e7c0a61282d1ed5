"""The prompt of a turn, built from the files in `prompts/`: system, history, passages, question, in that order.

The order keeps prefixes stable for vLLM's prefix cache. A probe ("is the answer in this passage?") is asked of each of
the first passages by itself: a small model judges one passage far better than five. System, history and passage come
first, so customers who ask about the same passage share its prefill. Passages are data: they stand between markers
that no text in the prompt can forge, neither theirs, nor their titles', nor the customer's; so do the numbered excerpts
of the prompt that repairs a withheld answer. Every text that is not the bank's own passes through `as_data`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from chatbot.chat import Chat, Message
from chatbot.tokens import TokenCounter
from knowledge.passage import Language, Passage

PROBED = 3
"""Passages that a probe is made for, the most that may be asked: they hold the answer to 94 % of questions."""

_OF_PROBES = ("system.", "question.", "probe.")
_ANGLES = str.maketrans("<>＜＞﹤﹥", "‹›‹›‹›")  # the wide ones too: a small model reads them alike
_MARKS: Mapping[Language, str] = {"ko": "문서", "en": "document"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The messages of the answer's prompt and of the probe of each of the first passages.

    The messages `before` the last one are those of every prompt. The field names stand in checkpoints
    (`chatbot.turns`).
    """

    before: tuple[Message, ...]
    answer_text: str
    probe_texts: tuple[str, ...]
    passages: int
    """How many passages fit into the answer's prompt."""
    tokens: int
    """The tokens of the answer's prompt; an estimate until a server has counted them."""
    probe_tokens: int
    """Those of the longest probe, estimated."""

    @property
    def answer(self) -> Chat:
        """The prompt of the answer."""
        return Chat(messages=(*self.before, Message("user", self.answer_text)), tokens=self.tokens)

    @property
    def probes(self) -> tuple[Chat, ...]:
        """The prompts of the probes."""
        return tuple(
            Chat(messages=(*self.before, Message("user", text)), tokens=self.probe_tokens, thinks=False)
            for text in self.probe_texts
        )


@dataclass(frozen=True, slots=True)
class Templates:
    """The texts of `prompts/`, by file name without its ending; `version` changes when any of them does."""

    texts: Mapping[str, str]
    version: str

    @property
    def probe_version(self) -> str:
        """The version of those texts that a probe consists of."""
        return _version({name: text for name, text in self.texts.items() if name.startswith(_OF_PROBES)})


def load_templates() -> Templates:
    """Read `prompts/*.md` of this package."""
    folder = files("chatbot") / "prompts"
    texts = {
        p.name.removesuffix(".md"): p.read_text("utf-8").strip() for p in folder.iterdir() if p.name.endswith(".md")
    }
    return Templates(texts, _version(texts))


def _version(texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256("\0".join(f"{name}\0{texts[name]}" for name in sorted(texts)).encode())
    return digest.hexdigest()[:12]


class PromptBuilder:
    """Builds prompts that fit: passages are taken in order while they fit `passage_tokens`, at least one always."""

    def __init__(self, templates: Templates, counter: TokenCounter, *, passage_tokens: int) -> None:
        self._templates = templates
        self._counter = counter
        self._passage_tokens = passage_tokens

    @property
    def version(self) -> str:
        """The version of the templates."""
        return self._templates.version

    @property
    def probe_version(self) -> str:
        """The version of the templates of probes."""
        return self._templates.probe_version

    def build(
        self,
        question: str,
        *,
        bank: str,
        history: Sequence[Message],
        passages: Sequence[Passage],
        language: Language,
    ) -> Prompt:
        """Return the prompt of a question to the bank of this name: history oldest first, passages best first."""
        marked = self._fitting([mark(passage, n, language) for n, passage in enumerate(passages, 1)])
        system = Message("system", self._text("system", language).format(bank=bank))
        before = (system, *(Message(message.role, as_data(message.content)) for message in history))

        answer = self._last_message("answer", question, marked, language)
        probes = [
            self._last_message("probe", question, [mark(passage, 1, language)], language)
            for passage in passages[:PROBED]
        ]
        shared = self._counter.count_chat(before)
        probe_tokens = [self._counter.count_chat([Message("user", probe)]) for probe in probes]
        return Prompt(
            before=before,
            answer_text=answer,
            probe_texts=tuple(probes),
            passages=len(marked),
            tokens=self._counter.count_chat([Message("user", answer)]) + shared,
            probe_tokens=shared + max(probe_tokens, default=0),
        )

    def repair(
        self, question: str, *, before: Sequence[Message], excerpts: Sequence[Passage], language: Language
    ) -> Chat:
        """Return the prompt that asks for the number, from 1, of the excerpt that states the answer.

        `before` are the messages before the last one of the answer's prompt; an excerpt is a passage cut to one quote.
        """
        numbered = "\n\n".join(number(excerpt, n) for n, excerpt in enumerate(excerpts, 1))
        content = self._last_message("repair", question, [numbered], language)
        messages = (*before, Message("user", content))
        return Chat(messages=messages, tokens=self._counter.count_chat(messages), thinks=False)

    def _last_message(self, task: str, question: str, passages: Sequence[str], language: Language) -> str:
        return self._text("question", language).format(
            passages="\n".join(passages), question=as_data(question), task=self._text(task, language)
        )

    def _text(self, name: str, language: Language) -> str:
        return self._templates.texts[f"{name}.{language}"]

    def _fitting(self, marked: Sequence[str]) -> list[str]:
        fitting: list[str] = []
        tokens_left = self._passage_tokens
        for text in marked:
            tokens_left -= self._counter.count(text)
            if tokens_left < 0 and fitting:
                break
            fitting.append(text)
        return fitting


def mark(passage: Passage, n: int, language: Language) -> str:
    """Return the passage as the model sees it: numbered, titled, dated, and unable to close its own marker."""
    name = _MARKS[language]
    return f"<{name} {n}> {_titled(passage)}\n{as_data(passage.text)}\n</{name} {n}>"


def number(excerpt: Passage, n: int) -> str:
    """Return the excerpt as the model sees it: numbered, titled, dated, and unable to begin another excerpt.

    With the markers of passages the small model prefers the first place even more (docs/decisions/0002).
    """
    body = f"{_titled(excerpt)}\n{as_data(excerpt.text)}".replace("[", "(").replace("]", ")")
    return f"[{n}] {body}"


def _titled(passage: Passage) -> str:
    dated = f" ({passage.effective_from.isoformat()})" if passage.effective_from else ""
    # Between title and section stands a ">" of ours, which closes nothing by itself.
    return f"{' '.join(as_data(passage.heading).split()).replace(' › ', ' > ')}{dated}"


def as_data(text: str) -> str:
    """Return a text that is not the bank's own as it may stand in a prompt: unable to open or close a marker."""
    return text.translate(_ANGLES)
