"""A model's prefixes and length limit, from its files or from its name alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from knowledge.embedding.errors import EmbeddingUnavailable
from knowledge.embedding.model_config import read_model_config
from knowledge.embedding.settings import EmbedderSettings


def written(folder: Path, **files: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.with_suffix(".json").write_text(json.dumps(content), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("prompts", "prefixes"),
    [
        ({"query": "Q: ", "passage": "P: "}, ("Q: ", "P: ")),
        ({"query": "Q: ", "document": "D: ", "passage": "P: "}, ("Q: ", "D: ")),
        ({"query": "", "document": ""}, ("", "")),
        ({"s2p_query": "Instruct: "}, ("", "")),
        ({"query": None}, ("", "")),
    ],
)
def test_prefixes_are_the_prompts_of_the_folder(
    tmp_path: Path, prompts: dict[str, str], prefixes: tuple[str, str]
) -> None:
    folder = written(tmp_path / "m", config_sentence_transformers={"prompts": prompts, "default_prompt_name": None})
    read = read_model_config(EmbedderSettings(folder=folder))
    assert (read.query_prefix, read.passage_prefix) == prefixes
    own = EmbedderSettings(folder=folder, query_prefix="mine ", passage_prefix="")
    read = read_model_config(own)
    assert (read.query_prefix, read.passage_prefix) == ("mine ", "")


@pytest.mark.parametrize(
    ("model", "query_prefix"),
    [
        ("intfloat/multilingual-e5-small", "query: "),
        ("e5-small", "query: "),
        ("intfloat/multilingual-e5-large-instruct", ""),
        ("some5/model", ""),
        ("BAAI/bge-m3", ""),
    ],
)
def test_an_e5_model_has_its_prefixes_without_a_configuration(model: str, query_prefix: str) -> None:
    of_endpoint = EmbedderSettings.model_validate({"url": "http://127.0.0.1:1", "model": model})
    of_hub = EmbedderSettings(model=model, revision="0" * 40)
    for settings in (of_endpoint, of_hub):
        assert read_model_config(settings).query_prefix == query_prefix


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"sentence_bert_config": {"max_seq_length": 128}, "tokenizer_config": {"model_max_length": 512}}, 128),
        ({"sentence_bert_config": {}, "tokenizer_config": {"model_max_length": 512}}, 512),
        ({"tokenizer_config": {"model_max_length": 1e30}, "config": {"max_position_embeddings": 514}}, 514),
        ({}, None),
    ],
)
def test_the_longest_text_is_read_from_the_folder(tmp_path: Path, files: dict[str, Any], most: int | None) -> None:
    assert read_model_config(EmbedderSettings(folder=written(tmp_path / "m", **files))).max_tokens == most


def test_an_invalid_json_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EmbeddingUnavailable, match=r"config\.json cannot be read"):
        read_model_config(EmbedderSettings(folder=tmp_path))
