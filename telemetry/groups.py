"""Flattens exception groups, for error messages."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield the exceptions of a group, at any depth, without the groups."""
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from leaves(exc)
        else:
            yield exc


@contextmanager
def first_failure() -> Generator[None]:
    """Raise the first exception of a group, at any depth, in place of the group."""
    try:
        yield
    except ExceptionGroup as group:
        raise next(leaves(group)) from None
