"""Writes a small model and converts it, in a process of its own, because torch's memory would stay allocated.

python -m tests.converted_here FOLDER
"""

import sys
from pathlib import Path

from llm_server.conversion import convert_model
from tests.tiny_bert import write_bert

if __name__ == "__main__":
    written = Path(sys.argv[1])
    write_bert(written, "mean")
    convert_model(written)
