"""Build a turn's prompts from the files in `prompts/`: system, history, passages, question, in that order.

The order keeps prefixes stable for vLLM's prefix cache: customers who ask about the same passage share its prefill.
A probe asks "is the answer in this passage?" about one passage, because a small model judges one far better than five.
Passages are untrusted data. They stand between markers that no title, passage or question can forge, because every text
that the bank did not write passes through `as_data`. The numbered excerpts of a choice are escaped too.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from chatbot.chat import Chat, Message
from chatbot.tokens import TokenCounter
from knowledge.passage import Language, Passage

PROBED = 3
"""The maximum number of probed passages: the first three hold the answer to 94 % of questions."""

_PROBE_TEMPLATES = ("system.", "question.", "probe.")
_ANGLES = str.maketrans("<>＜＞﹤﹥", "‹›‹›‹›")  # full-width ones too: a small model reads them alike
_MARKER_NAMES: Mapping[Language, str] = {"ko": "문서", "en": "document"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The messages of the answer's prompt and of one probe for each of the first passages.

    All of these prompts begin with the messages in `before`: the system message and the history. Checkpoints
    (`chatbot.turns`) store the field names.
    """

    before: tuple[Message, ...]
    answer_text: str
    probe_texts: tuple[str, ...]
    passages: int
    """The number of passages in the answer's prompt."""
    tokens: int
    """The token count of the answer's prompt; an estimate until a server has counted it."""
    probe_tokens: int
    """The estimated token count of the longest probe."""

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
    """The texts of `prompts/` by file name without extension; `version` is a hash of all of them."""

    texts: Mapping[str, str]
    version: str

    @property
    def probe_version(self) -> str:
        """A hash of the texts that probes use."""
        return _version({name: text for name, text in self.texts.items() if name.startswith(_PROBE_TEMPLATES)})


def load_templates() -> Templates:
    """Read `prompts/*.md` of this package."""
    folder = files("chatbot") / "prompts"
    paths = [path for path in folder.iterdir() if path.name.endswith(".md")]
    texts = {path.name.removesuffix(".md"): path.read_text("utf-8").strip() for path in paths}
    return Templates(texts, _version(texts))


def _version(texts: Mapping[str, str]) -> str:
    digest = hashlib.sha256("\0".join(f"{name}\0{texts[name]}" for name in sorted(texts)).encode())
    return digest.hexdigest()[:12]


class PromptBuilder:
    """Builds prompts with the first passages that fit into `passage_tokens`, and always at least one passage."""

    def __init__(self, templates: Templates, counter: TokenCounter, *, passage_tokens: int) -> None:
        self._templates = templates
        self._counter = counter
        self._passage_tokens = passage_tokens

    @property
    def version(self) -> str:
        """A hash of the templates."""
        return self._templates.version

    @property
    def probe_version(self) -> str:
        """A hash of the probes' templates."""
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
        """Return the prompt of a question; `bank` is the bank's name, history is oldest first, passages best first."""
        all_passages = [marked_passage(passage, n, language) for n, passage in enumerate(passages, 1)]
        marked_passages = self._within_token_limit(all_passages)
        system = Message("system", self._text("system", language).format(bank=bank))
        before = (system, *(Message(message.role, as_data(message.content)) for message in history))

        answer = self._last_message("answer", question, marked_passages, language)
        probes = [
            self._last_message("probe", question, [marked_passage(passage, 1, language)], language)
            for passage in passages[:PROBED]
        ]
        shared_tokens = self._counter.count_chat(before)
        probe_tokens = [self._counter.count_chat([Message("user", probe)]) for probe in probes]
        return Prompt(
            before=before,
            answer_text=answer,
            probe_texts=tuple(probes),
            passages=len(marked_passages),
            tokens=self._counter.count_chat([Message("user", answer)]) + shared_tokens,
            probe_tokens=shared_tokens + max(probe_tokens, default=0),
        )

    def choice_prompt(
        self, question: str, *, before: Sequence[Message], excerpts: Sequence[Passage], language: Language
    ) -> Chat:
        """Return the prompt that asks for the number (from 1) of the excerpt that states the answer.

        `before` comes from the answer's `Prompt`; an excerpt is a passage cut to one quote. The template is `repair`.
        """
        numbered = "\n\n".join(number_excerpt(excerpt, n) for n, excerpt in enumerate(excerpts, 1))
        content = self._last_message("repair", question, [numbered], language)
        messages = (*before, Message("user", content))
        return Chat(messages=messages, tokens=self._counter.count_chat(messages), thinks=False)

    def _last_message(self, task: str, question: str, passages: Sequence[str], language: Language) -> str:
        return self._text("question", language).format(
            passages="\n".join(passages), question=as_data(question), task=self._text(task, language)
        )

    def _text(self, name: str, language: Language) -> str:
        return self._templates.texts[f"{name}.{language}"]

    def _within_token_limit(self, marked_passages: Sequence[str]) -> list[str]:
        """Return the first passages that fit into the limit, and always the first one."""
        selected: list[str] = []
        tokens_left = self._passage_tokens
        for text in marked_passages:
            tokens_left -= self._counter.count(text)
            if tokens_left < 0 and selected:
                break
            selected.append(text)
        return selected


def marked_passage(passage: Passage, n: int, language: Language) -> str:
    """Return the passage as the model sees it: numbered, titled, dated and escaped."""
    name = _MARKER_NAMES[language]
    return f"<{name} {n}> {_title_line(passage)}\n{as_data(passage.text)}\n</{name} {n}>"


def number_excerpt(excerpt: Passage, n: int) -> str:
    """Return the excerpt as the model sees it: numbered, titled, dated, and with its own brackets replaced.

    With passage markers the small model would prefer the first excerpt even more (docs/decisions/0002).
    """
    body = f"{_title_line(excerpt)}\n{as_data(excerpt.text)}".replace("[", "(").replace("]", ")")
    return f"[{n}] {body}"


def _title_line(passage: Passage) -> str:
    """Return the title and the section on one line, and the date."""
    date = f" ({passage.effective_from.isoformat()})" if passage.effective_from else ""
    heading = " ".join(as_data(passage.heading).split())
    # The ">" between title and section is ours; a ">" alone closes no marker.
    return f"{heading.replace(' › ', ' > ')}{date}"


def as_data(text: str) -> str:
    """Escape an untrusted text so that it cannot open or close a marker in a prompt."""
    return text.translate(_ANGLES)
