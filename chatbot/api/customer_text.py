"""The types of customers' texts in every route: Hangul is composed before a text is used."""

from typing import Annotated

from pydantic import BeforeValidator, StringConstraints

from knowledge.hangul import composed

_NO_CONTROL = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"

COMPOSED = BeforeValidator(lambda value: composed(value) if isinstance(value, str) else value)
"""Must be last in the annotation of every customer's text, so that the length limits apply to the composed text."""

Composed = Annotated[str, COMPOSED]
_Plain = Annotated[str, StringConstraints(strip_whitespace=True, pattern=_NO_CONTROL)]
Message = Annotated[_Plain, StringConstraints(min_length=1, max_length=4000), COMPOSED]
Comment = Annotated[_Plain, StringConstraints(max_length=1000), COMPOSED]
