"""The served model's tokenizer and chat template, read from its folder: exact token counts and prompts as token ids.

`encodings.py` turns text into ids and back. The chat template is rendered as transformers does, in jinja2's sandbox.

A customer cannot forge a role: special-token strings inside a message (`<|im_start|>`) are broken up before rendering
and reach the model as ordinary text. Only the template's own markers become special tokens.

A reasoning model thinks between markers before it answers (docs/decisions/0024-thinking.md). Which ones, and whether
its template opens the block, is read here; a prompt without thinking is rendered by the template's own switch, or ends
with a closed block.
"""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal, NoReturn

import msgspec
from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from chatbot.encodings import Encoding, UnknownTokenizer, read_encoding, read_file

THINKING_MARKERS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel>", "<channel|>"),  # Gemma 4, whose `<|think|>` only asks for it
    ("<|think|>", "<|content|>"),  # Solar Open
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|plamo:begin_think:plamo|>", "<|plamo:end_think:plamo|>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<mm:think>", "</mm:think>"),
    ("<ifm|think>", "</ifm|think>"),
    ("<ifm|think_fast>", "</ifm|think_fast>"),
    ("<ifm|think_faster>", "</ifm|think_faster>"),
)
"""What reasoning models open and close their thinking with."""
_UNKNOWN_THINKING = re.compile(
    r"reasoning_content|assistant/think|[<[◁][^\s<>[\]◁▷']*(?:think|thought|reasoning)[^\s<>[\]◁▷']*[>\]▷]"
)
"""What a chat template of a reasoning model has in it, whatever its markers are."""
_NO_THINKING = {"enable_thinking": False, "thinking": False}
"""The switches of chat templates: Qwen's and most others', and Granite's and DeepSeek V3.1's."""

Role = Literal["system", "user", "assistant"]


class _NamedTemplate(msgspec.Struct, frozen=True):
    name: str
    template: str


class _SpecialToken(msgspec.Struct, frozen=True):
    content: str


_TokenText = str | _SpecialToken | None


class _Config(msgspec.Struct, frozen=True):
    """The part of a `tokenizer_config.json` that a chat template may use."""

    chat_template: str | tuple[_NamedTemplate, ...] | None = None
    bos_token: _TokenText = None
    eos_token: _TokenText = None
    pad_token: _TokenText = None
    unk_token: _TokenText = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A chat as token ids; its `messages` are needed where a model with another tokenizer may be called.

    `thinks`: a reasoning model may think before it answers.
    """

    ids: Sequence[int]
    messages: Sequence[Message] = ()
    thinks: bool = True


def alternating(messages: Iterable[Message]) -> list[Message]:
    """Return the chat with what one role says in a row as one message: many chat templates refuse it otherwise."""
    runs = groupby(messages, key=lambda message: message.role)
    return [Message(role, "\n\n".join(message.content for message in run)) for role, run in runs]


class Tokenizer:
    """Counts tokens, renders chats to prompt ids, encodes text and decodes ids."""

    def __init__(self, encoding: Encoding, template: "ChatTemplate") -> None:
        self._encoding = encoding
        self._added = {token.content: token.id for token in encoding.added}
        # vLLM leaves out special ones, and shows the others (Qwen3's `<think>`).
        self._added_bytes = {token.id: b"" if token.special else token.content.encode() for token in encoding.added}
        self._template = template

    @classmethod
    def load(cls, folder: Path, *, template_kwargs: Mapping[str, object] | None = None) -> "Tokenizer":
        """Read the tokenizer of a model folder; about half a second for 150,000 tokens.

        `template_kwargs` are given to every rendering of the chat template (`enable_thinking: false`).

        Raises:
            UnknownTokenizer: the message says why the folder cannot be used.
        """
        encoding = read_encoding(folder / "tokenizer.json")
        tokenizer = cls(encoding, ChatTemplate.load(folder, kwargs=template_kwargs or {}))
        try:
            tokenizer.render(
                [Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "u")]
            )
        except (TemplateError, TypeError) as exc:
            raise UnknownTokenizer(f"the chat template of {folder} cannot be rendered: {exc}") from exc
        return tokenizer

    def count(self, text: str) -> int:
        """Return how many tokens `text` is inside a message."""
        return len(self._encoding.encode(self._encoding.harmless(text)))

    def render(
        self, messages: Sequence[Message], *, continue_with: str = "", thinks: bool = True, at: float | None = None
    ) -> list[int]:
        """Return the prompt's ids, with the assistant's turn opened and begun with `continue_with`.

        Without `thinks` a reasoning model answers at once. Some templates tell the date: that of `at`, or of now.
        """
        harmless = self._encoding.harmless
        conversation = [{"role": said.role, "content": harmless(said.content)} for said in alternating(messages)]
        rendered = self._template.render(conversation, thinks=thinks, at=at)
        return self._encoding.encode(rendered + (harmless(continue_with) if continue_with else ""))

    def encode(self, text: str) -> list[int]:
        """Return the ids of our own text (never a customer's), in which special-token strings are special tokens."""
        return self._encoding.encode(text)

    def encode_within(self, text: str) -> list[int]:
        """Return ids that add exactly this text to another: an answer's, piece by piece."""
        return self._encoding.encode_within(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of answer ids as vLLM shows it: without special tokens, broken characters replaced."""
        return b"".join(self.token_bytes(token) for token in ids).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of an ordinary token; special and unknown ones have none."""
        added = self._added_bytes.get(token)
        return self._encoding.token_bytes(token) if added is None else added

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The id of the token that ends an answer, where the folder names one."""
        end = self._added.get(self._template.end_token)
        return () if end is None else (end,)

    @property
    def template_kwargs(self) -> Mapping[str, object]:
        """What the chat template is given beside the messages."""
        return self._template.kwargs

    @property
    def thinks(self) -> bool:
        """Whether the model may think before it answers: its template names the markers and is not switched off."""
        return self._template.thinks

    @property
    def thinks_unknown(self) -> bool:
        """Whether the model thinks, as its template tells, in a form of its own: only its server can tell it apart."""
        return self._template.thinks_unknown

    @property
    def opens_thinking(self) -> bool:
        """Whether a prompt ends inside a block of thinking, so that the model's output begins there."""
        return self._template.opens_thinking

    @cached_property
    def thinking_ids(self) -> tuple[frozenset[int], frozenset[int]]:
        """The ids of the markers that open and that close thinking; empty where the tokenizer has no pair of them."""
        pairs = [pair for pair in THINKING_MARKERS if all(marker in self._added for marker in pair)]
        opening, closing = (frozenset(self._added[pair[n]] for pair in pairs) for n in (0, 1))
        return opening, closing


class ChatTemplate:
    """A model's chat template, compiled once, with the special tokens it may name and the bank's own switches."""

    def __init__(self, source: str, tokens: Mapping[str, str], kwargs: Mapping[str, object]) -> None:
        self._tokens = dict(tokens)
        self.kwargs = dict(kwargs)
        begin, *commented = source.split("{#")
        rules = begin + "".join(part.partition("#}")[2] for part in commented)
        self._markers = next((pair for pair in THINKING_MARKERS if any(marker in rules for marker in pair)), None)
        self.thinks_unknown = self._markers is None and _UNKNOWN_THINKING.search(rules) is not None
        # As transformers' `apply_chat_template` compiles it. A template comes with the weights and is not trusted, so
        # it runs in the immutable sandbox.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        self._template = environment.from_string(source)

    @classmethod
    def load(cls, folder: Path, *, kwargs: Mapping[str, object]) -> "ChatTemplate":
        """Read `chat_template.jinja`, or the template in `tokenizer_config.json`.

        Raises:
            UnknownTokenizer: the folder has none, or it is no jinja template.
        """
        config = read_file(folder / "tokenizer_config.json", _Config)
        file = folder / "chat_template.jinja"
        source = file.read_text("utf-8") if file.is_file() else _default_template(config)
        if source is None:
            raise UnknownTokenizer(f"{folder} has no chat template: serve an instruct model")
        special = {name: getattr(config, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
        tokens = {name: token if isinstance(token, str) else token.content for name, token in special.items() if token}
        try:
            return cls(source, tokens, kwargs)
        except TemplateError as exc:
            raise UnknownTokenizer(f"the chat template of {folder} cannot be read: {exc}") from exc

    @property
    def end_token(self) -> str:
        """The text of the token that ends an answer; empty where the folder names none."""
        return self._tokens.get("eos_token", "")

    @cached_property
    def thinks(self) -> bool:
        """Whether the model may think, as far as its template tells."""
        return self._markers is not None and not self._rendered_sample.endswith(self._markers[1])

    @cached_property
    def opens_thinking(self) -> bool:
        """Whether a rendered chat ends inside a block of thinking."""
        return self._markers is not None and self._rendered_sample.endswith(self._markers[0])

    @cached_property
    def _rendered_sample(self) -> str:
        return self._rendered([{"role": "user", "content": "u"}], self.kwargs).rstrip()

    def render(self, messages: Sequence[Mapping[str, str]], *, thinks: bool = True, at: float | None = None) -> str:
        """Return the chat's text with the assistant's turn opened, and with thinking closed unless `thinks`."""
        if thinks or self._markers is None:
            return self._rendered(messages, self.kwargs, at)
        opening, closing = self._markers
        switched_off = self._rendered(messages, {**self.kwargs, **_NO_THINKING}, at)
        if switched_off.rstrip().endswith(opening):
            return f"{switched_off.rstrip()}\n\n{closing}\n\n"
        has_switch = switched_off != self._rendered(messages, self.kwargs, at)
        if has_switch or switched_off.rstrip().endswith(closing):
            return switched_off
        return f"{switched_off}{opening}\n\n{closing}\n\n"

    def _rendered(
        self, messages: Sequence[Mapping[str, str]], kwargs: Mapping[str, object], at: float | None = None
    ) -> str:
        # The server's own date, as transformers takes it.
        now = datetime.fromtimestamp(time.time() if at is None else at).astimezone()
        return self._template.render(
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=True,
            strftime_now=now.strftime,
            **self._tokens,
            **kwargs,
        )


class _Generation(Extension):
    """`{% generation %}` of transformers, which marks what a model is trained on: what is in it is shown."""

    tags = {"generation"}  # noqa: RUF012  as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Return what stands inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _default_template(config: _Config) -> str | None:
    if isinstance(config.chat_template, tuple):
        return next((named.template for named in config.chat_template if named.name == "default"), None)
    return config.chat_template


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  as transformers has it
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    # jinja's own filter escapes HTML characters.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
