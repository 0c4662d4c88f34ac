"""A host's stream in either world, read piece by piece."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Generic, TypeVar

from guardrails_mw.wait import Either

__all__ = ["Source"]

T = TypeVar("T")


class Source(Generic[T]):
    """The pieces of a host's stream, in either world.

    Args:
        sync: begins the stream; `asynchronous` likewise.

    Attributes:
        ended: whether the last piece was given; what `next` gives then is none.
    """

    def __init__(
        self,
        sync: Callable[[], Iterator[T]],
        asynchronous: Callable[[], AsyncIterator[T]],
    ) -> None:
        self._sync, self._async = sync, asynchronous
        self.ended = False
        self._here: Iterator[T] | None = None
        self._there: AsyncIterator[T] | None = None

    def next(self) -> Either[T | None]:
        """The next piece; None at the end."""
        return Either(self._next, self._anext)

    def close(self) -> Either[None]:
        """Tell the host that nobody listens any more."""
        return Either(self._close, self._aclose)

    def _next(self) -> T | None:
        if self._here is None:
            self._here = iter(self._sync())
        try:
            return next(self._here)
        except StopIteration:
            self.ended = True
            return None

    async def _anext(self) -> T | None:
        if self._there is None:
            self._there = aiter(self._async())
        try:
            return await anext(self._there)
        except StopAsyncIteration:
            self.ended = True
            return None

    def _close(self) -> None:
        close = getattr(self._here, "close", None)
        if close is not None:
            close()

    async def _aclose(self) -> None:
        close = getattr(self._there, "aclose", None)
        if close is not None:
            await close()
