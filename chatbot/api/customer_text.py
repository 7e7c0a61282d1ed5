"""What a customer writes, as every route takes it: its Hangul composed before anything reads it."""

from typing import Annotated

from pydantic import BeforeValidator, StringConstraints

from knowledge.hangul import composed

_NO_CONTROL = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"

COMPOSED = BeforeValidator(lambda value: composed(value) if isinstance(value, str) else value)
"""Stands last in the annotation of every text of a customer, so that its bounds hold for the composed text."""

Composed = Annotated[str, COMPOSED]
_Plain = Annotated[str, StringConstraints(strip_whitespace=True, pattern=_NO_CONTROL)]
Message = Annotated[_Plain, StringConstraints(min_length=1, max_length=4000), COMPOSED]
Comment = Annotated[_Plain, StringConstraints(max_length=1000), COMPOSED]
