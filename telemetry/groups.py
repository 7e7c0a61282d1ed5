"""What task groups raise, taken apart for whoever tells a person about it."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """Yield the exceptions of a group that are no groups themselves, however deep they lie."""
    for one in group.exceptions:
        if isinstance(one, BaseExceptionGroup):
            yield from leaves(one)
        else:
            yield one


@contextmanager
def first_failure() -> Generator[None]:
    """Let what ends a task group leave it as itself, however deep it lies."""
    try:
        yield
    except ExceptionGroup as failed:
        raise next(leaves(failed)) from None
