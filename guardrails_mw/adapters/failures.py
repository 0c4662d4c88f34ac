"""What an exception of a tool or model says, and the exception that stands in where that must not be heard."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from langchain_core.tools import ToolException
from langgraph.errors import GraphBubbleUp

__all__ = ["ModelFailed", "ToolFailed", "heard", "words_of"]

T = TypeVar("T")


class ToolFailed(ToolException):
    """A tool's exception whose own words must not be read. Says what was left of them, or why nothing was."""


class ModelFailed(RuntimeError):
    """A model's exception whose own words must not be read. Says what was left of them."""


async def heard(call: Awaitable[T], instead: Callable[[Exception], Awaitable[Exception]]) -> T:
    """What a call gives back. Its exception passes as it is, or as the other one that `instead` makes of it."""
    try:
        return await call
    except GraphBubbleUp:
        raise
    except Exception as error:
        failure = await instead(error)
        if failure is error:
            raise
    raise failure  # out here, so that it does not carry the other along


def words_of(error: BaseException) -> list[str]:
    """All that an exception would say in a log: its text, its form in code, its notes, its parts, what led to it.

    >>> words_of(ValueError("no"))
    ['no', "ValueError('no')"]
    """
    words, seen, left = list[str](), set[int](), list[BaseException | None]([error])
    while left:
        each = left.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        words += [_word(str, each), _word(repr, each), *(_word(str, note) for note in getattr(each, "__notes__", ()))]
        left += [each.__cause__, None if each.__suppress_context__ else each.__context__]
        left += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return words


def _word(say: Callable[[object], str], what: object) -> str:
    try:
        return say(what)
    except Exception:  # noqa: BLE001 - what cannot say what it is says nothing in a log either
        return type(what).__name__
