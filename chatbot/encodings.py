"""How text becomes token ids and ids become text, behind one seam: by tiktoken, or by the `tokenizers` library.

A byte-level BPE `tokenizer.json` whose ids follow its merges (Qwen, SmolLM2, GPT-2, Llama 3) becomes a
`tiktoken.Encoding`: the same ids, several times faster. Any other (SentencePiece with byte fallback, Unigram, unusual
normalizers and splits) is read by `tokenizers`, as transformers and vLLM do. Either joins a text from the bytes of
single tokens, as vLLM shows it after a prompt.

TokenizerError
└── UnknownTokenizer   the files are missing, or the tokenizer is of another kind; the message says which part
"""

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import tiktoken
import tokenizers

_File = TypeVar("_File")

# `Digits` before `ByteLevel` (SmolLM2) cuts the text at every digit, so that white space before a digit ends a segment:
# the look-ahead of GPT-2's pattern then sees an end where the joined pattern sees the digit.
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2_AFTER_DIGITS = r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

# Unicode's noncharacters are never text, so each may stand for the first character of a broken-up special token.
_STAND_INS = tuple(chr(code) for code in range(0xFDD0, 0xFDF0))
_ANY_STAND_IN = re.compile(f"[{_STAND_INS[0]}-{_STAND_INS[-1]}]")
_CHANNEL = "<|channel|>"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_SIMILAR_SIGNS = str.maketrans("<>|[]{}/_▁", "‹›¦()()∕‗‗")
_PLAIN = frozenset(".,:;?!%'\"-+()₩$~ \n")


class TokenizerError(Exception):
    """A tokenizer cannot be used."""


class UnknownTokenizer(TokenizerError):
    """The folder holds no tokenizer that is read exactly."""


class AddedToken(msgspec.Struct, frozen=True):
    """A token that is not made of merges: markers of roles and the like; `special` ones have no text."""

    id: int
    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


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


class _Bpe(msgspec.Struct, frozen=True):
    type: str
    vocab: dict[str, int]
    merges: tuple[str | tuple[str, str], ...]
    byte_fallback: bool = False


class _BpeFile(msgspec.Struct, frozen=True):
    """The part of a byte-level BPE `tokenizer.json` that decides how text becomes ids."""

    model: _Bpe
    pre_tokenizer: _PreTokenizer
    normalizer: _Normalizer | None = None
    added_tokens: tuple[AddedToken, ...] = ()


class _Decoder(msgspec.Struct, frozen=True):
    """What joins tokens to a text, or a sequence of such."""

    type: str
    decoders: "tuple[_Decoder, ...]" = ()
    pattern: Mapping[str, str] = {}
    content: str = ""
    replacement: str = "▁"

    def __iter__(self):  # type: ignore[no-untyped-def]
        yield self
        for part in self.decoders:
            yield from part


class _AnyFile(msgspec.Struct, frozen=True):
    """The part of any `tokenizer.json` that `tokenizers` does not tell."""

    added_tokens: tuple[AddedToken, ...] = ()
    decoder: _Decoder | None = None


class Encoding(Protocol):
    """Text to ids and back, for one model."""

    @property
    def added(self) -> Sequence[AddedToken]:
        """The tokens that are not made of merges."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text in which strings of added tokens are these tokens."""

    def encode_within(self, text: str) -> list[int]:
        """Return ids that add exactly this text to another."""

    def harmless(self, content: str) -> str:
        """Return a message's content as it may stand in a text for `encode`: no part of it becomes an added token."""

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of an ordinary token; unknown ones have none."""


def read_encoding(file: Path) -> Encoding:
    """Read a `tokenizer.json`; about half a second for 150,000 tokens.

    Raises:
        UnknownTokenizer: the message says why it cannot be used.
    """
    described = read_file(file, _AnyFile)
    if _CHANNEL in {token.content for token in described.added_tokens}:
        raise UnknownTokenizer(
            f"the model answers in channels ({_CHANNEL}, as gpt-oss does), and its thinking cannot be told from its "
            "answer here: serve a model that thinks between markers, or one that does not"
        )
    try:
        return TiktokenEncoding(read_file(file, _BpeFile), name=file.parent.name)
    except UnknownTokenizer as not_tiktoken:
        try:
            return LibraryEncoding(file, described)
        except UnknownTokenizer as exc:
            raise exc from not_tiktoken


def read_file(path: Path, kind: type[_File]) -> _File:
    """Read a file of a model's folder.

    Raises:
        UnknownTokenizer: it cannot be read, or is of another kind.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as exc:
        raise UnknownTokenizer(f"{path} cannot be read: set the folder of the served model") from exc
    except msgspec.MsgspecError as exc:
        raise UnknownTokenizer(f"{path} is not a tokenizer this client reads: {exc}") from exc


class TiktokenEncoding:
    """Byte-level BPE whose ids follow its merges."""

    def __init__(self, file: _BpeFile, *, name: str) -> None:
        if file.normalizer not in (None, _Normalizer("NFC")):
            raise UnknownTokenizer(f"the normalizer is {file.normalizer}: only NFC or none is read")
        stripping = [token.content for token in file.added_tokens if token.single_word or token.lstrip or token.rstrip]
        if stripping:
            raise UnknownTokenizer(f"added tokens take white space along: {stripping}")
        self.added = file.added_tokens
        self._added_ids = {token.content: token.id for token in file.added_tokens}
        # Longest first: where one added token begins like another, `tokenizers` takes the longer.
        longest_first = sorted(self._added_ids, key=len, reverse=True)
        self._added_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        firsts = sorted({text[0] for text in self._added_ids})
        if len(firsts) > len(_STAND_INS):
            raise UnknownTokenizer(f"the added tokens begin with more than {len(_STAND_INS)} different characters")
        self._stand_in = dict(zip(firsts, _STAND_INS, strict=False))
        self._original = {stand_in: first for first, stand_in in self._stand_in.items()}
        self._nfc = file.normalizer is not None
        ranks = _ranks(file.model)
        # tiktoken panics at bytes that no merge and no letter covers (0xFF in a trained vocabulary); `tokenizers` drops
        # them, and so does this class.
        unused = iter(range(max(*ranks.values(), *self._added_ids.values(), 0) + 1, 2**31))
        missing = {bytes([byte]): next(unused) for byte in range(256) if bytes([byte]) not in ranks}
        self._dropped = frozenset(missing.values())
        self._bpe = tiktoken.Encoding(
            name, pat_str=_pattern(file.pre_tokenizer), mergeable_ranks=ranks | missing, special_tokens={}
        )

    def harmless(self, content: str) -> str:
        """Return `content` with the first character of every added token's string replaced by its stand-in."""
        content = _ANY_STAND_IN.sub("\N{REPLACEMENT CHARACTER}", content)
        if self._added_pattern is None:
            return content
        return self._added_pattern.sub(lambda match: self._stand_in[match[0][0]] + match[0][1:], content)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; stand-ins are what they stand for, and no beginning of an added token."""
        ids: list[int] = []
        for piece in self._added_pattern.split(text) if self._added_pattern else [text]:
            token = self._added_ids.get(piece)
            if token is not None:
                ids.append(token)
            elif piece:
                ids += self._ordinary(_ANY_STAND_IN.sub(self._stood_for, piece))
        return ids

    def encode_within(self, text: str) -> list[int]:
        """Return ids that add this text to another."""
        return self.encode(_ANY_STAND_IN.sub("\N{REPLACEMENT CHARACTER}", text))

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of an ordinary token; unknown ones have none."""
        try:
            return b"" if token in self._dropped else self._bpe.decode_single_token_bytes(token)
        except KeyError:
            return b""

    def _stood_for(self, stand_in: re.Match[str]) -> str:
        return self._original.get(stand_in[0], "\N{REPLACEMENT CHARACTER}")

    def _ordinary(self, text: str) -> list[int]:
        if self._nfc and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        ids = self._bpe.encode_ordinary(text)
        return [token for token in ids if token not in self._dropped] if self._dropped else ids


class LibraryEncoding:
    """Any tokenizer of the library whose tokens each have bytes of their own."""

    def __init__(self, path: Path, file: _AnyFile) -> None:
        try:
            self._library = tokenizers.Tokenizer.from_file(str(path))
        except Exception as exc:
            raise UnknownTokenizer(f"{path} is not a tokenizer this client reads: {exc}") from exc
        self._library.no_truncation()
        self._library.no_padding()
        self.added = file.added_tokens
        self._markers = frozenset(token.id for token in file.added_tokens if token.content.strip())
        self._bytes_of = _bytes_of_pieces(file.decoder)

    def harmless(self, content: str) -> str:
        """Return `content`, with similar signs in place of its markup where it would become added tokens.

        A normalizer may make one of what is none (`＜s＞`), so the ids decide.
        """
        tried = (content, content.translate(_SIMILAR_SIGNS), "".join(c for c in content if c.isalnum() or c in _PLAIN))
        return next((text for text in tried if self._markers.isdisjoint(self.encode(text))), "")

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text in which strings of added tokens are these tokens."""
        try:
            encoded = self._library.encode(text, add_special_tokens=False)
        except TypeError:  # lone surrogates
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            encoded = self._library.encode(text, add_special_tokens=False)
        return list(encoded.ids)

    def encode_within(self, text: str) -> list[int]:
        """Return ids that add this text to another: without the space that some tokenizers begin a text with."""
        for before in ("", "\n", "."):
            ids = self.encode(before + text)[len(self.encode(before)) :]
            if b"".join(map(self.token_bytes, ids)) == text.encode():
                return ids
        pieces = [self._library.token_to_id(f"<0x{byte:02X}>") for byte in text.encode()]
        known = [piece for piece in pieces if piece is not None]
        return known if len(known) == len(pieces) else self.encode(text)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of an ordinary token; unknown ones have none."""
        piece = self._library.id_to_token(token)
        return b"" if piece is None else self._bytes_of(piece)


def _bytes_of_pieces(decoder: _Decoder | None) -> Callable[[str], bytes]:
    """Return what gives the bytes of a token's piece, as the decoder joins them."""
    parts = {part.type: part for part in decoder or ()}
    if "ByteLevel" in parts:
        letters = _bytes_of_letters()
        return lambda piece: bytes(letters[c] for c in piece) if letters.keys() >= set(piece) else piece.encode()
    if not parts or parts.keys() - {"Sequence", "Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        raise UnknownTokenizer(f"the decoder is of a kind whose tokens have no bytes of their own: {[*parts]}")
    spaces = {parts[kind].replacement for kind in parts if kind == "Metaspace"}
    replaced = {part.pattern.get("String", ""): part.content for part in decoder or () if part.type == "Replace"}
    replaced |= dict.fromkeys(spaces, " ")
    has_bytes = "ByteFallback" in parts

    def bytes_of(piece: str) -> bytes:
        if has_bytes and (byte := _BYTE_PIECE.fullmatch(piece)):
            return bytes.fromhex(byte[1])
        for old, new in replaced.items():
            piece = piece.replace(old, new)
        return piece.encode()

    return bytes_of


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
            raise UnknownTokenizer(f"the pre-tokenizer is not one that tiktoken splits alike: {other}")
