"""Where a text that still arrives may be cut: between words, and not inside what may be a number."""

from __future__ import annotations

import re

from guardrails_mw.gates.disguise import UNSEEN

__all__ = ["LAG", "apart", "between_words", "in_number", "until_apart", "words_back"]

LAG = 64
"""Characters that must follow a cut, disguise undone: more than the longest value with spaces has, an IBAN in fours."""

_BLANKS = " \n\t\r"
_RUN = UNSEEN.union(
    "+\uff0b-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u30fc\uff0d\uff0e\uff0f \n\t\r\u00a0\u2007\u2009\u202f"
    "\u3000()\uff08\uff09\uff3b\uff3d.[]/,:"
)
"""What may stand between the digits of one number."""
_NUMBER = re.compile(r"[\s()+./,:;-]{0,8}\d")
_WORD = re.compile(r"(?<![^\W\d_])[^\W\d_]{4,}")
_PLAIN = re.compile(r"(?<![^\s(\"'])[^\W\d_]{4,}(?=[,.;:!?)\"']*(?:\s|$))")
_REACH = 512
_FAR = 4096


def between_words(text: str, limit: int) -> int:
    """The last position up to `limit` that follows a blank and is inside no number; 0 if there is none.

    >>> between_words("call 212 555 0123 now and then", 12)
    5
    """
    while limit > 0:
        while limit > 0 and text[limit - 1] not in _BLANKS:
            limit -= 1
        if limit == 0:
            break
        start = in_number(text, limit)
        if start == limit:
            return limit
        limit = start
    return 0


def apart(text: str, limit: int) -> int:
    """The last position up to `limit` between two words, of which the second is no number; 0 if there is none.

    A number may be hidden with the word before it, so nothing is cut there.

    >>> apart("call 212 555 0123 now and then", 12), apart("call 212 555 0123 now and then", 20)
    (0, 18)
    """
    while limit > 0:
        limit = between_words(text, limit)
        if not _NUMBER.match(text, limit):
            return limit
        limit -= 1
    return 0


def until_apart(text: str, position: int) -> int:
    """The first position from `position` on that is `apart`; the text's end if there is none.

    >>> until_apart("call 212 555 0123 now and then", 2), until_apart("call 212 555 0123 now and then", 18)
    (18, 18)
    """
    start = position
    while start > 0 and (text[start - 1] in _RUN or text[start - 1].isdecimal()):
        start -= 1
    digits, beyond = any(map(str.isdecimal, text[start:position])), -1
    for index in range(position, len(text)):
        if index > 0 and text[index - 1] in _BLANKS:
            if beyond < index:
                beyond = index
                while beyond < len(text) and text[beyond] in _RUN:
                    beyond += 1
            number = digits and (beyond == len(text) or text[beyond].isdecimal())
            if not number and not _NUMBER.match(text, index):
                return index
        if text[index].isdecimal():
            digits = True
        elif text[index] not in _RUN:
            digits = False
    return len(text)


def in_number(text: str, position: int) -> int:
    """Where the number begins that a position is inside of; the position itself where there is none.

    A run of digits and of what stands between digits is taken for one number.
    """
    start, first = position, -1
    while start > 0 and (text[start - 1] in _RUN or text[start - 1].isdecimal()):
        start -= 1
        if text[start].isdecimal():
            first = start
    if first < 0:
        return position
    end = position
    while end < len(text) and text[end] in _RUN:
        end += 1
    if end < len(text) and not text[end].isdecimal():
        return position
    while first > start and text[first - 1] not in _BLANKS:  # a bracket or a plus belongs to it
        first -= 1
    return first


def words_back(text: str, position: int, count: int) -> int:
    """How far back so many words of four letters or more reach; 0 where there are fewer.

    Words inside of addresses, names and code do not count, as they may be part of a value that is hidden; where plain
    ones are rare, they do from `_FAR` characters on.

    >>> words_back("some words are short, others long", 33, 2)
    22
    """
    end = position
    while end > 0:
        begin = max(0, end - _REACH)
        word = _PLAIN if position - end < _FAR else _WORD
        found = [match.start() for match in word.finditer(text, begin, end)]  # none whose beginning is further back
        if len(found) >= count:
            return found[-count]
        count -= len(found)
        end = begin
    return 0
