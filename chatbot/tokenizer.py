"""The served model's tokenizer and chat template, read from its folder: exact token counts and prompts as token ids.

A `tiktoken.Encoding` is built from a byte-level BPE `tokenizer.json` (Qwen, SmolLM2, GPT-2): the same ids as
`tokenizers`, several times faster. The chat template is rendered as transformers does, in jinja2's sandbox.

A customer cannot forge a role: special-token strings inside a message (`<|im_start|>`) are broken up before rendering
and reach the model as ordinary text. Only the template's own markers become special tokens.

A reasoning model thinks between markers before it answers (docs/decisions/0024-thinking.md). Which ones, and whether
its template opens the block, is read here; a prompt without thinking is rendered by the template's own switch, or ends
with a closed block.

TokenizerError
└── UnknownTokenizer   the files are missing, or the tokenizer is of another kind; the message says which part
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal, NoReturn, TypeVar

import msgspec
import tiktoken
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

_File = TypeVar("_File")

THINKING_MARKERS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
"""What reasoning models open and close their thinking with."""
_CHANNEL = "<|channel|>"
_NO_THINKING = {"enable_thinking": False, "thinking": False}
"""The switches of chat templates: Qwen's and most others', and Granite's and DeepSeek V3.1's."""

Role = Literal["system", "user", "assistant"]

# `Digits` before `ByteLevel` (SmolLM2) cuts the text at every digit, so that white space before a digit ends a segment:
# the look-ahead of GPT-2's pattern then sees an end where the joined pattern sees the digit.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_AFTER_DIGITS = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

# Unicode's noncharacters are never text, so each may stand for the first character of a broken-up special token.
_STAND_INS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
_ANY_STAND_IN = re.compile(f"[{_STAND_INS[0]}-{_STAND_INS[-1]}]")


class TokenizerError(Exception):
    """A tokenizer cannot be used."""


class UnknownTokenizer(TokenizerError):
    """The folder holds no byte-level BPE tokenizer that this module reads exactly."""


class _PreTokenizer(msgspec.Struct, frozen=True):
    """A pre-tokenizer, or a sequence of them."""

    type: str
    pretokenizers: "tuple[_PreTokenizer, ...]" = ()
    pattern: Mapping[str, str] = {}
    behavior: str = "Isolated"
    invert: bool = False
    add_prefix_space: bool = False
    use_regex: bool = True
    individual_digits: bool = False


class _Normalizer(msgspec.Struct, frozen=True):
    type: str


class _AddedToken(msgspec.Struct, frozen=True):
    id: int
    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


class _Bpe(msgspec.Struct, frozen=True):
    type: str
    vocab: dict[str, int]
    merges: tuple[str | tuple[str, str], ...]
    byte_fallback: bool = False


class _TokenizerFile(msgspec.Struct, frozen=True):
    """The part of a `tokenizer.json` that decides how text becomes ids."""

    model: _Bpe
    pre_tokenizer: _PreTokenizer
    normalizer: _Normalizer | None = None
    added_tokens: tuple[_AddedToken, ...] = ()


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


class Tokenizer:
    """Counts tokens, renders chats to prompt ids, encodes text and decodes ids."""

    def __init__(self, encoding: "_Encoding", added: Sequence[_AddedToken], template: "ChatTemplate") -> None:
        self._encoding = encoding
        self._special = special = {token.content: token.id for token in added}
        # vLLM leaves out special ones, and shows the others (Qwen3's `<think>`).
        self._added_bytes = {token.id: b"" if token.special else token.content.encode() for token in added}
        # Longest first: where one special token begins like another, `tokenizers` takes the longer.
        longest_first = sorted(special, key=len, reverse=True)
        self._special_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if special else None
        firsts = sorted({text[0] for text in special})
        self._stand_in = dict(zip(firsts, _STAND_INS, strict=False))
        self._original = {stand_in: first for first, stand_in in self._stand_in.items()}
        self._template = template

    @classmethod
    def load(cls, folder: Path, *, template_kwargs: Mapping[str, object] | None = None) -> "Tokenizer":
        """Read the tokenizer of a model folder; about half a second for 150,000 tokens.

        `template_kwargs` are given to every rendering of the chat template (`enable_thinking: false`).

        Raises:
            UnknownTokenizer: the message says why the folder cannot be used.
        """
        file = _read(folder / "tokenizer.json", _TokenizerFile)
        _check_added_tokens(file.added_tokens)
        template = ChatTemplate.load(folder, kwargs=template_kwargs or {})
        tokenizer = cls(_Encoding(file, name=folder.name), file.added_tokens, template)
        try:
            tokenizer.render(
                [Message("system", "s"), Message("user", "u"), Message("assistant", "a"), Message("user", "u")]
            )
        except (TemplateError, TypeError) as exc:
            raise UnknownTokenizer(f"the chat template of {folder} cannot be rendered: {exc}") from exc
        return tokenizer

    def count(self, text: str) -> int:
        """Return how many tokens `text` is inside a message."""
        return len(self._encoding.encode(text))

    def render(self, messages: Sequence[Message], *, continue_with: str = "", thinks: bool = True) -> list[int]:
        """Return the prompt's ids, with the assistant's turn opened and begun with `continue_with`.

        Without `thinks` a reasoning model answers at once.
        """
        conversation = [{"role": message.role, "content": self._broken_up(message.content)} for message in messages]
        return self._encode(self._template.render(conversation, thinks=thinks) + self._broken_up(continue_with))

    def encode(self, text: str) -> list[int]:
        """Return the ids of our own text (never a customer's), in which special-token strings are special tokens."""
        return self._encode(_ANY_STAND_IN.sub("\N{REPLACEMENT CHARACTER}", text))

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
        end = self._special.get(self._template.end_token)
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
    def opens_thinking(self) -> bool:
        """Whether a prompt ends inside a block of thinking, so that the model's output begins there."""
        return self._template.opens_thinking

    @cached_property
    def thinking_ids(self) -> tuple[frozenset[int], frozenset[int]]:
        """The ids of the markers that open and that close thinking; empty where the tokenizer has no pair of them."""
        pairs = [pair for pair in THINKING_MARKERS if all(marker in self._special for marker in pair)]
        opening, closing = (frozenset(self._special[pair[n]] for pair in pairs) for n in (0, 1))
        return opening, closing

    def _broken_up(self, content: str) -> str:
        """Return `content` with the first character of every special-token string replaced by its stand-in."""
        content = _ANY_STAND_IN.sub("\N{REPLACEMENT CHARACTER}", content)
        if self._special_pattern is None:
            return content
        return self._special_pattern.sub(lambda match: self._stand_in[match[0][0]] + match[0][1:], content)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in self._special_pattern.split(text) if self._special_pattern else [text]:
            token = self._special.get(piece)
            if token is not None:
                ids.append(token)
            elif piece:
                ids += self._encoding.encode(_ANY_STAND_IN.sub(lambda match: self._original[match[0]], piece))
        return ids


class ChatTemplate:
    """A model's chat template, compiled once, with the special tokens it may name and the bank's own switches."""

    def __init__(self, source: str, tokens: Mapping[str, str], kwargs: Mapping[str, object]) -> None:
        self._tokens = dict(tokens)
        self.kwargs = dict(kwargs)
        self._markers = next((pair for pair in THINKING_MARKERS if any(marker in source for marker in pair)), None)
        # As transformers' `apply_chat_template` compiles it. A template comes with the weights and is not trusted, so
        # it runs in the immutable sandbox.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
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
        config = _read(folder / "tokenizer_config.json", _Config)
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

    def render(self, messages: Sequence[Mapping[str, str]], *, thinks: bool = True) -> str:
        """Return the chat's text with the assistant's turn opened, and with thinking closed unless `thinks`."""
        if thinks or self._markers is None:
            return self._rendered(messages, self.kwargs)
        opening, closing = self._markers
        switched_off = self._rendered(messages, {**self.kwargs, **_NO_THINKING})
        if switched_off.rstrip().endswith(opening):
            return f"{switched_off.rstrip()}\n\n{closing}\n\n"
        has_switch = switched_off != self._rendered(messages, self.kwargs)
        if has_switch or switched_off.rstrip().endswith(closing):
            return switched_off
        return f"{switched_off}{opening}\n\n{closing}\n\n"

    def _rendered(self, messages: Sequence[Mapping[str, str]], kwargs: Mapping[str, object]) -> str:
        return self._template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._tokens, **kwargs
        )


class _Encoding:
    """Text to ids without special tokens, and back."""

    def __init__(self, file: _TokenizerFile, *, name: str) -> None:
        if file.normalizer not in (None, _Normalizer("NFC")):
            raise UnknownTokenizer(f"the normalizer is {file.normalizer}: only NFC or none is read")
        self._nfc = file.normalizer is not None
        ranks = _ranks(file.model)
        # tiktoken panics at bytes that no merge and no letter covers (0xFF in a trained vocabulary); `tokenizers` drops
        # them, and so does this class.
        unused = iter(range(max(*ranks.values(), *(token.id for token in file.added_tokens), 0) + 1, 2**31))
        missing = {bytes([byte]): next(unused) for byte in range(256) if bytes([byte]) not in ranks}
        self._dropped = frozenset(missing.values())
        self._bpe = tiktoken.Encoding(
            name, pat_str=_pattern(file.pre_tokenizer), mergeable_ranks=ranks | missing, special_tokens={}
        )

    def encode(self, text: str) -> list[int]:
        if self._nfc and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        ids = self._bpe.encode_ordinary(text)
        return [token for token in ids if token not in self._dropped] if self._dropped else ids

    def token_bytes(self, token: int) -> bytes:
        try:
            return b"" if token in self._dropped else self._bpe.decode_single_token_bytes(token)
        except KeyError:
            return b""


def _ranks(model: _Bpe) -> dict[bytes, int]:
    """Return every mergeable token's bytes and id.

    tiktoken merges by id, `tokenizers` by the place in `merges`: the same only where ids grow with the merges.
    """
    if model.type != "BPE" or model.byte_fallback:
        raise UnknownTokenizer(f"the tokenizer's model is {model.type}: only byte-level BPE is read")
    merged = ["".join(merge) if isinstance(merge, tuple) else merge.replace(" ", "", 1) for merge in model.merges]
    ids = [model.vocab[token] for token in merged]
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise UnknownTokenizer("the tokenizer's ids do not follow its merges: tiktoken would split words otherwise")
    byte_of_letter = _bytes_of_letters()
    letters = {bytes([byte]): model.vocab[letter] for letter, byte in byte_of_letter.items() if letter in model.vocab}
    try:
        words = {bytes(map(byte_of_letter.__getitem__, token)): n for token, n in zip(merged, ids, strict=True)}
    except KeyError as exc:
        raise UnknownTokenizer(f"the tokenizer is not byte-level: its merges hold {exc}") from exc
    return letters | words


def _bytes_of_letters() -> dict[str, int]:
    """Return the byte behind each printable letter of byte-level BPE (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(hidden)}


def _pattern(pre_tokenizer: _PreTokenizer) -> str:
    """Return one regular expression that splits text as the pre-tokenizer does."""
    match pre_tokenizer.pretokenizers or (pre_tokenizer,):
        case (
            _PreTokenizer(type="Split", behavior="Isolated", invert=False, pattern={"Regex": pattern}),
            _PreTokenizer(type="ByteLevel", add_prefix_space=False, use_regex=False),
        ):
            return pattern
        case (
            _PreTokenizer(type="Digits", individual_digits=True),
            _PreTokenizer(type="ByteLevel", add_prefix_space=False, use_regex=True),
        ):
            return _GPT2_AFTER_DIGITS
        case (_PreTokenizer(type="ByteLevel", add_prefix_space=False, use_regex=True),):
            return _GPT2
        case other:
            raise UnknownTokenizer(f"the pre-tokenizer is not one this client reads exactly: {other}")


def _check_added_tokens(added: Sequence[_AddedToken]) -> None:
    stripping = [token.content for token in added if token.single_word or token.lstrip or token.rstrip]
    if stripping:
        raise UnknownTokenizer(f"added tokens that take white space along are not read exactly: {stripping}")
    if len({token.content[:1] for token in added}) > len(_STAND_INS):
        raise UnknownTokenizer(f"the added tokens begin with more than {len(_STAND_INS)} different characters")
    if _CHANNEL in {token.content for token in added}:
        raise UnknownTokenizer(
            f"the model answers in channels ({_CHANNEL}, as gpt-oss does), and its thinking cannot be told from its "
            "answer here: serve a model that thinks between markers, or one that does not"
        )


def _read(path: Path, kind: type[_File]) -> _File:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as exc:
        raise UnknownTokenizer(f"{path} cannot be read: set the folder of the served model") from exc
    except msgspec.MsgspecError as exc:
        raise UnknownTokenizer(f"{path} is not a tokenizer this client reads: {exc}") from exc


def _default_template(config: _Config) -> str | None:
    if isinstance(config.chat_template, tuple):
        return next((named.template for named in config.chat_template if named.name == "default"), None)
    return config.chat_template


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(value: object, *, indent: int | None = None) -> str:
    # jinja's own filter escapes HTML characters.
    text: str = json.dumps(value, ensure_ascii=False, indent=indent)
    return text
