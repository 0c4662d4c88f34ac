"""The boundary: applying edits, and removing from everything recorded or traced what must not leave.

Edits from several gates are applied to the original content at once. Where spans overlap they become one
span that shows the strongest operator's replacement, so nothing of a hidden value can survive between two
edits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from guardrails_mw.blocks import together
from guardrails_mw.errors import GateError
from guardrails_mw.event import ANONYMOUS, Content, Event, Stage, Where
from guardrails_mw.gate import Gate
from guardrails_mw.verdict import Edit, Operator, Verdict

__all__ = ["WITHHELD", "Redactor", "apply", "resolve", "unread"]

LIMIT = 16_384
"""Characters that the redacting gates read on their own account, outside any deadline."""

WITHHELD = "[withheld: could not be redacted]"
"""Stands for content that the redacting gates failed on."""


def unread(value: object) -> str:
    """What stands in a record for a value that no gate can read: what it is. Its own words may say anything.

    >>> unread(b"raw")
    '<bytes>'
    """
    return f"<{type(value).__name__}>"


def resolve(edits: Iterable[Edit]) -> list[Edit]:
    """The edits of one part as non-overlapping spans, in order.

    >>> [(e.start, e.end, e.text) for e in resolve([Edit(0, 5, "M"), Edit(3, 9, "R", operator=Operator.REMOVE)])]
    [(0, 9, 'R')]
    """
    result: list[Edit] = []
    for edit in sorted(set(edits)):
        last = result[-1] if result else None
        if last is None or edit.start >= last.end:
            result.append(edit)
            continue
        strongest = max(last, edit, key=lambda e: (e.operator, e.end - e.start, e.text))
        result[-1] = Edit(last.start, max(last.end, edit.end), strongest.text, edit.part, strongest.operator)
    return result


def apply(content: Content, edits: Sequence[Edit]) -> Content:
    """A copy of the content with the edits applied; the same object when there are none.

    Edits outside their part are cut to it; edits of a part that does not exist raise `IndexError`.

    >>> apply(Content("mail bob@x.org"), [Edit(5, 14, "[EMAIL]")]).value
    'mail [EMAIL]'
    """
    if not edits:
        return content
    by_part: dict[int, list[Edit]] = {}
    for edit in edits:
        by_part.setdefault(edit.part, []).append(edit)
    texts: dict[int, str] = {}
    for index, group in by_part.items():
        text, pieces, position = content.written(index), [], 0
        for edit in resolve(group):
            start = max(edit.start, position)
            pieces += [text[position:start], edit.text]
            position = max(edit.end, start)
        texts[index] = "".join([*pieces, text[position:]])
    return content.replaced(texts)


def _verdicts(gate: Gate, event: Event) -> list[Verdict]:
    """What a gate says of an event, and of its blocks as one text. Raises `GateError` for what is no verdict."""
    joined = together(event) if gate.joins else None
    verdicts = [gate.check(event)]
    if joined is not None and isinstance(other := gate.check(joined.event), Verdict):
        verdicts.append(joined.original(other))
    found = [verdict for verdict in verdicts if isinstance(verdict, Verdict)]
    if len(found) < (1 if joined is None else 2):
        raise GateError("not_a_verdict")
    return found


def _hiding(verdict: Verdict) -> list[Edit]:
    """Edits that hide everything a verdict found, also where the gate itself would only flag or block."""
    covered = {(edit.part, edit.start, edit.end) for edit in verdict.edits}
    named = (
        Edit(f.start, f.end, f"[{f.type}]", f.part, Operator.REMOVE)
        for f in verdict.findings
        if (f.part, f.start, f.end) not in covered
    )
    return [*verdict.edits, *named]


class Redactor:
    """Removes from a content what the policy's `record.redact` gates find.

    It fails closed: where a gate cannot answer, or would have to read more than `LIMIT` characters that
    nobody has decided on, the content is withheld.

    Args:
        gates: the redacting gates; all of them synchronous.
    """

    def __init__(self, gates: Sequence[Gate]) -> None:
        self._gates = tuple(gates)

    def content(self, event: Event, known: Mapping[str, Verdict] | None = None) -> Content:
        """The event's content as it may be kept. `known` holds verdicts on this very content."""
        edits: list[Edit] = []
        try:
            for gate in self._gates:
                verdicts = [known[gate.name]] if known and gate.name in known else None
                if verdicts is None:
                    if event.content.size > LIMIT:
                        return Content(WITHHELD)
                    verdicts = _verdicts(gate, event)
                edits += [edit for verdict in verdicts for edit in _hiding(verdict)]
            return apply(event.content, edits)
        except Exception:  # noqa: BLE001 - whatever a gate raises, nothing may leave unredacted
            return Content(WITHHELD)

    def text(self, text: str) -> str:
        """A text as it may be kept."""
        if not text or not self._gates:
            return text
        value = self.content(Event(Stage.OUTPUT, Content(text), actor=ANONYMOUS, where=Where())).value
        return value if isinstance(value, str) else WITHHELD

    def value(self, value: object) -> object:
        """A JSON value as it may be kept; keys are redacted too."""
        if isinstance(value, str):
            return self.text(value)
        return self.content(Event(Stage.OUTPUT, Content(value))).value
