"""Converts in this process, because a separate process would spend most of its time importing torch.

    python -m tests.knowledge.embedding.converted_here FOLDER

It writes a small model and converts it.
"""

import sys
from pathlib import Path

from knowledge.embedding import openvino_cache
from knowledge.embedding.openvino_export import convert
from tests.tiny_bert import write_bert


def convert_here(folder: Path, target: Path) -> Path:
    target.mkdir()
    convert(str(folder), str(target))
    return target


if __name__ == "__main__":
    written = Path(sys.argv[1])
    write_bert(written, "mean")
    openvino_cache._convert = convert_here
    openvino_cache.cached_model(written)
