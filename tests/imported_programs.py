"""The fork server's imports: our programs, with all imported objects excluded from garbage collection.

It also loads the models that take seconds at a program's start and survive a fork.
"""

import gc
from importlib import import_module

from ingest.parsing import open_tokenizer
from ingest.settings import Settings
from knowledge.embedding import DEFAULT_FOLDER, cached_model, read_tokenizer
from knowledge.terms import morphology

PROGRAMS = ("chatbot.__main__", "ingest.__main__", "evals.__main__", "llm_server.scripted.__main__")


def read_models() -> None:
    """Load Kiwi, and the embedder's tokenizer if its weights exist."""
    morphology()
    folder = Settings().weights_dir.expanduser() / DEFAULT_FOLDER
    if folder.exists():
        open_tokenizer(folder)
        read_tokenizer(cached_model(folder))


gc.disable()
for program in PROGRAMS:
    import_module(program)
read_models()
gc.freeze()
gc.enable()
