"""The prompt of a turn, built from the files in `prompts/`: system, history, passages, question, in that order.

The order keeps prefixes stable for vLLM's prefix cache. A probe ("is the answer in this passage?") is asked of each of
the first passages by itself: a small model judges one passage far better than five. System, history and passage come
first, so customers who ask about the same passage share its prefill. Passages are data: they stand between markers
that their own text cannot forge, as sentences of them are numbered for the repair of an answer that was withheld.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from chatbot.tokenizer import Message, Rendered, Tokenizer
from knowledge.passage import Language, Passage

PROBED = 3
"""Of so many passages the model is asked whether they hold the answer: 94 % of questions find it there."""

_MARKS: Mapping[Language, str] = {"ko": "문서", "en": "document"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Token ids for the answer and for the probe of each of the first passages, and how many passages found room.

    The texts are what the ids say, for a model with another tokenizer: `before` is the same in all of them.
    """

    answer_ids: tuple[int, ...]
    probes_ids: tuple[tuple[int, ...], ...]
    passages: int
    before: tuple[Message, ...] = ()
    answer_text: str = ""
    probe_texts: tuple[str, ...] = ()

    @property
    def answer(self) -> Rendered:
        """The prompt of the answer."""
        return self._rendered(self.answer_ids, self.answer_text)

    @property
    def probes(self) -> tuple[Rendered, ...]:
        """The prompts of the probes."""
        texts = self.probe_texts or [""] * len(self.probes_ids)
        return tuple(self._rendered(ids, text) for ids, text in zip(self.probes_ids, texts, strict=True))

    def _rendered(self, ids: tuple[int, ...], text: str) -> Rendered:
        return Rendered(ids, (*self.before, Message("user", text)) if text else ())


@dataclass(frozen=True, slots=True)
class Templates:
    """The texts of `prompts/`, by file name without its ending; `version` changes when any of them does."""

    texts: Mapping[str, str]
    version: str


def load_templates() -> Templates:
    """Read `prompts/*.md` of this package."""
    folder = files("chatbot") / "prompts"
    texts = {
        p.name.removesuffix(".md"): p.read_text("utf-8").strip() for p in folder.iterdir() if p.name.endswith(".md")
    }
    digest = hashlib.sha256("\0".join(f"{name}\0{texts[name]}" for name in sorted(texts)).encode())
    return Templates(texts, digest.hexdigest()[:12])


class PromptBuilder:
    """Builds prompts that fit: passages are taken in order while they fit `passage_tokens`, at least one always."""

    def __init__(
        self, templates: Templates, tokenizer: Tokenizer, *, banks: Mapping[Language, str], passage_tokens: int
    ) -> None:
        self._templates = templates
        self._tokenizer = tokenizer
        self._banks = banks
        self._passage_tokens = passage_tokens

    @property
    def version(self) -> str:
        """The version of the templates."""
        return self._templates.version

    def build(
        self, question: str, *, history: Sequence[Message], passages: Sequence[Passage], language: Language
    ) -> Prompt:
        """Return the prompt of a question, its history (oldest first) and its passages (best first)."""
        marked = self._that_fit([mark(passage, n, language) for n, passage in enumerate(passages, 1)])
        before = (Message("system", self._text("system", language).format(bank=self._banks[language])), *history)

        answer = self._asking("answer", question, marked, language)
        probes = [
            self._asking("probe", question, [mark(passage, 1, language)], language) for passage in passages[:PROBED]
        ]
        return Prompt(
            answer_ids=self._ids(before, answer),
            probes_ids=tuple(self._ids(before, probe) for probe in probes),
            passages=len(marked),
            before=before,
            answer_text=answer,
            probe_texts=tuple(probes),
        )

    def repair(
        self, question: str, *, before: Sequence[Message], excerpts: Sequence[Passage], language: Language
    ) -> Rendered:
        """Return the prompt that asks which excerpt states the answer, by its number from 1 on.

        `before` is what stands before the question in the answer's prompt; an excerpt is a passage cut to one quote.
        """
        numbered = "\n\n".join(number(excerpt, n) for n, excerpt in enumerate(excerpts, 1))
        content = self._asking("repair", question, [numbered], language)
        return Rendered(self._ids(before, content), (*before, Message("user", content)))

    def _asking(self, task: str, question: str, shown: Sequence[str], language: Language) -> str:
        return self._text("question", language).format(
            passages="\n".join(shown), question=question, task=self._text(task, language)
        )

    def _ids(self, before: Sequence[Message], content: str) -> tuple[int, ...]:
        return tuple(self._tokenizer.render([*before, Message("user", content)]))

    def _text(self, name: str, language: Language) -> str:
        return self._templates.texts[f"{name}.{language}"]

    def _that_fit(self, marked: Sequence[str]) -> list[str]:
        fitting: list[str] = []
        left = self._passage_tokens
        for text in marked:
            left -= self._tokenizer.count(text)
            if left < 0 and fitting:
                break
            fitting.append(text)
        return fitting


def mark(passage: Passage, n: int, language: Language) -> str:
    """Return the passage as the model sees it: numbered, titled, dated, and unable to close its own marker."""
    name = _MARKS[language]
    body = passage.text.replace("<", "‹").replace(">", "›")
    return f"<{name} {n}> {_titled(passage)}\n{body}\n</{name} {n}>"


def number(excerpt: Passage, n: int) -> str:
    """Return the excerpt as the model chooses it: numbered, titled, dated, and unable to begin another.

    In the markers of passages the small model chooses by place still more (decision 0002).
    """
    said = f"{_titled(excerpt)}\n{excerpt.text}".replace("[", "(").replace("]", ")")
    return f"[{n}] {said}"


def _titled(passage: Passage) -> str:
    dated = f" ({passage.effective_from.isoformat()})" if passage.effective_from else ""
    return f"{passage.heading}{dated}"
