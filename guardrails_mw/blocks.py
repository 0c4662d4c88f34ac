"""Content blocks that are read as one text: what stands in two blocks of a message, a reader sees in one piece.

Hosts join the text blocks of a message without a sign between them, so half a value in each of two blocks is a value.
Gates that look at texts are therefore asked about such blocks twice: one by one, and together.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TypeVar

from guardrails_mw.event import Blocks, Content, Event, Path
from guardrails_mw.verdict import Edit, Finding, Verdict

__all__ = ["Together", "together"]

_FIELDS: Mapping[str, frozenset[str]] = {
    "text": frozenset({"text", "text-plain", "input_text", "output_text", "summary_text"}),
    "reasoning": frozenset({"reasoning"}),
    "thinking": frozenset({"thinking"}),
}
"""Keys that hold the texts of blocks, and the types of those blocks."""

S = TypeVar("S", Edit, Finding)


@dataclass(frozen=True, slots=True)
class Together:
    """An event whose blocks stand together.

    Attributes:
        event: the same event; each of its parts is several blocks of the original, as one text.
        members: of each part, the indices of the original parts that it is made of, in order.
        starts: of each part, where those begin in it, and where it ends.
    """

    event: Event
    members: Sequence[Sequence[int]]
    starts: Sequence[Sequence[int]]

    def original(self, verdict: Verdict) -> Verdict:
        """A verdict on the joined event as one on the original: what it found, block by block."""
        if not (verdict.edits or verdict.findings):
            return verdict
        edits = [each for edit in verdict.edits for each in self._split(edit)]
        findings = [each for finding in verdict.findings for each in self._split(finding)]
        return replace(verdict, edits=tuple(edits), findings=tuple(findings))

    def _split(self, span: S) -> list[S]:
        """The pieces of a span; each block that has one shows the whole replacement, as none may become empty."""
        members, starts, pieces = self.members[span.part], self.starts[span.part], list[S]()
        number = max(0, bisect_right(starts, span.start) - 1)
        while number < len(members) and starts[number] < span.end:
            base, low, high = starts[number], max(span.start, starts[number]), min(span.end, starts[number + 1])
            if low < high:
                pieces.append(replace(span, start=low - base, end=high - base, part=members[number]))
            number += 1
        return pieces


def together(event: Event) -> Together | None:
    """The event with the texts of each message joined; None where no message has several.

    >>> from guardrails_mw.event import Stage
    >>> halves = [{"type": "text", "text": "4111 1111 "}, {"type": "text", "text": "1111 1111"}]
    >>> together(Event(Stage.INPUT, Content(halves, blocks=True))).event.content.text
    '4111 1111 1111 1111'
    """
    content = event.content
    if isinstance(content.value, str) or not isinstance(content.value, Mapping | list | tuple):
        return None
    groups: dict[tuple[Path, str], list[int]] = {}
    for index, part in enumerate(content.parts):
        if part.kind == "text" and (place := _place(part.path)) is not None:
            groups.setdefault(place, []).append(index)
    members = [
        kept
        for (path, field), group in groups.items()
        if len(group) > 1 and len(kept := _blocks(content, path, field, group)) > 1
    ]
    if not members:
        return None
    texts = [[content.parts[index].text for index in group] for group in members]
    starts = [list(accumulate(map(len, group), initial=0)) for group in texts]
    return Together(replace(event, content=Content(["".join(group) for group in texts], blocks=True)), members, starts)


def _place(path: Path) -> tuple[Path, str] | None:
    """The list that a text's block is in and the key it is under; a text in the list itself counts as ``text``."""
    if path and isinstance(path[-1], int):
        return path[:-1], "text"
    if len(path) > 1 and isinstance(path[-2], int) and path[-1] in _FIELDS:
        return path[:-2], str(path[-1])
    return None


def _blocks(content: Content, path: Path, field: str, group: Sequence[int]) -> list[int]:
    """Those parts of the group that are texts of blocks."""
    items: object = content.value
    for step in path:
        items = _item(items, step)
    listed = isinstance(items, Blocks) or (content.blocks and not path)
    found = []
    for index in group:
        number = content.parts[index].path[len(path)]
        item = _item(items, number)
        if listed if isinstance(item, str) else isinstance(item, Mapping) and str(item.get("type")) in _FIELDS[field]:
            found.append(index)
    return found


def _item(items: object, step: str | int) -> object:
    """What a step of a path leads to; keys that are no texts are written as texts in paths."""
    if isinstance(items, Mapping):
        return items[step] if step in items else next(item for key, item in items.items() if str(key) == step)
    assert isinstance(items, Sequence)
    return items[int(step)]
