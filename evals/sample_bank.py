"""The sample bank of `make run`, whose documents the evaluations ask about."""

from functools import cache
from pathlib import Path
from typing import Final

from knowledge.bank import Banks, read_banks

SAMPLE_BANK: Final = Path(__file__).parent / "datasets" / "hanbit" / "bank.yaml"


@cache
def sample_banks() -> Banks:
    """Return the sample bank."""
    return read_banks(SAMPLE_BANK)
