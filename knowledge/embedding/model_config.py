"""A model's prefixes and length limit, read from the files of its sentence-transformers folder.

Pooling, normalisation and dense layers are not read here, because the folder's own modules are run or converted.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from knowledge.embedding.errors import EmbeddingUnavailable
from knowledge.embedding.settings import EmbedderSettings

_T = TypeVar("_T", bound=msgspec.Struct)
# The word "e5" in a model's name, between its separators.
_E5 = re.compile(r"(?:^|[-_/])e5(?:[-_@]|$)")
_PASSAGE_PROMPTS = ("document", "passage", "corpus")
"""The prompt names that sentence-transformers looks up, in its order."""
_NO_LIMIT = 10**6
"""A tokenizer's `model_max_length` above this means that it has no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The prefixes of questions and passages, and the most tokens of a text (None: unknown)."""

    query_prefix: str
    passage_prefix: str
    max_tokens: int | None


class _Config(msgspec.Struct):
    prompts: dict[str, str | None] = {}


class _Lengths(msgspec.Struct):
    max_seq_length: int | None = None
    model_max_length: float | None = None
    max_position_embeddings: int | None = None


def read_model_config(settings: EmbedderSettings) -> ModelConfig:
    """Return the configuration from the settings, else from the folder's files (blocking), else by the model's name.

    Raises:
        EmbeddingUnavailable: a file is not valid JSON.
    """
    folder = settings.folder or settings.tokenizer
    prompts = {} if folder is None else _read(folder / "config_sentence_transformers.json", _Config).prompts
    is_e5 = _E5.search(settings.name.lower()) is not None and "instruct" not in settings.name.lower()
    query = settings.query_prefix
    if query is None:
        query = _first_prompt(prompts, ("query",)) or ("query: " if is_e5 else "")
    passage = settings.passage_prefix
    if passage is None:
        passage = _first_prompt(prompts, _PASSAGE_PROMPTS) or ("passage: " if is_e5 else "")
    return ModelConfig(
        query_prefix=query, passage_prefix=passage, max_tokens=None if folder is None else _max_tokens(folder)
    )


def _first_prompt(prompts: dict[str, str | None], names: tuple[str, ...]) -> str:
    """Return the first non-empty prompt with one of the names, or an empty text."""
    candidates = (prompts.get(name) for name in names)
    return next((prompt for prompt in candidates if prompt), "")


def _max_tokens(folder: Path) -> int | None:
    lengths = [
        _read(folder / "sentence_bert_config.json", _Lengths).max_seq_length,
        _read(folder / "tokenizer_config.json", _Lengths).model_max_length,
        _read(folder / "config.json", _Lengths).max_position_embeddings,
    ]
    return next((int(length) for length in lengths if length is not None and 0 < length < _NO_LIMIT), None)


def _read(file: Path, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except FileNotFoundError:
        return kind()
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise EmbeddingUnavailable(f"{file} cannot be read: {exc}") from exc
