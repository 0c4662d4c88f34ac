"""Text that arrives in pieces: how much of it may be shown before the rest is there.

Nothing is shown before the gates that must see it have. A gate with bounds looks at a window of the text and says
how much of it is settled, a classifier is asked about the whole so far, and every other gate waits for the end.
What is shown early is the beginning of what the decision on the whole text would leave, however the text was cut
into pieces; that is checked when the whole text is decided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from guardrails_mw.event import Content, Event, Stage, encodable
from guardrails_mw.gate import Gate
from guardrails_mw.redaction import resolve
from guardrails_mw.seam import ANYWHERE, Seam
from guardrails_mw.verdict import Action, Check, Decision, Edit
from guardrails_mw.wait import Flow, drive, drive_async

__all__ = ["STEP", "Flowing", "Hold", "Holding", "Pace", "Shown", "Stream", "Text", "flowing"]

STEP = 72
"""Characters that have to arrive before gates look again: more cost less and hold longer."""
_CHARACTERS = 4
"""Characters to a token, roughly."""
_TOGETHER = 1024
"""Pieces that are joined into one: a string of its own takes 50 bytes more than its characters."""
_GROWTH = 4
"""What is held grows by a fourth before gates look again: a text that stays held is not read again and again."""


class Holding(StrEnum):
    """What a gate makes a stream wait for: ``span``, ``stride`` or ``all``."""

    SPAN = "span"
    STRIDE = "stride"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Pace:
    """How classifiers look at a stream, from the policy: never before its end, or every so many tokens."""

    every_tokens: int = 64
    window: bool = False

    def holding(self, gate: Gate) -> Holding:
        """What a gate makes a stream wait for."""
        if gate.bounded:
            return Holding.SPAN
        return Holding.STRIDE if gate.classifies and self.window else Holding.ALL

    @property
    def characters(self) -> int:
        """Characters between two looks of a classifier."""
        return self.every_tokens * _CHARACTERS


@dataclass(frozen=True, slots=True)
class Flowing:
    """The gates of a stage whose streams flow: those that look at windows, those that look now and then."""

    spans: tuple[Gate, ...]
    strides: tuple[Gate, ...]
    every: int
    """Characters between two looks."""


def flowing(gates: Iterable[Gate], pace: Pace) -> Flowing | None:
    """How a text flows past these gates; None where one of them has to see all of it first."""
    gates = tuple(gates)
    kinds = [pace.holding(gate) for gate in gates]
    if Holding.ALL in kinds:
        return None
    sorted_ = {kind: tuple(g for g, k in zip(gates, kinds, strict=True) if k is kind) for kind in Holding}
    return Flowing(sorted_[Holding.SPAN], sorted_[Holding.STRIDE], pace.characters)


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown of an event before it was decided.

    Attributes:
        characters: how many, as they were edited.
        fits: whether they are the beginning of what a content says.
        checks: what gates said in the middle of it that ends it.
    """

    characters: int
    fits: Callable[[Content], bool]
    checks: tuple[Check, ...] = ()


class Watch(Protocol):
    """What a stream needs of the engine."""

    def flow(self, stage: Stage) -> Flowing | None:
        """How texts of this stage flow; None where they are held."""

    def opening(self, event: Event, seam: Seam) -> Flow[Decision | None]:
        """Keep that something is about to be shown; a block where that fails and must not."""

    def glancing(self, event: Event, seam: Seam, gates: Sequence[Gate]) -> Flow[Decision]:
        """What some gates of the stage say of a piece; recorded nowhere."""


class Text:
    """A text that grows by small pieces and takes little more room than its characters.

    >>> text = Text()
    >>> text.add("a"), text.add("b"), str(text), len(text)
    (None, None, 'ab', 2)
    """

    __slots__ = ("_fresh", "_joined", "_length")

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._fresh: list[str] = []
        self._length = 0

    def add(self, piece: str) -> None:
        """Put a piece at the end."""
        self._fresh.append(piece)
        self._length += len(piece)
        if len(self._fresh) >= _TOGETHER:
            self._joined.append("".join(self._fresh))
            self._fresh.clear()

    def __len__(self) -> int:
        return self._length

    def __str__(self) -> str:
        return "".join((*self._joined, *self._fresh))


Frame = Callable[[str], Content]
"""A text as it stands in the content that is decided in the end."""


class Hold:
    """Holds back what of one text may not be shown yet.

    Args:
        watch: the engine.
        event: the event that will be decided; its content does not matter.
        seam: where the decision is carried out.
        frame: how the text stands in that event's content.
    """

    def __init__(self, watch: Watch, event: Event, seam: Seam = ANYWHERE, frame: Frame = Content) -> None:
        self._watch, self._event, self._seam, self._frame = watch, event, seam, frame
        self._flow = watch.flow(event.stage)
        self._window, self._left = "", 0  # `_left` characters of the window have been shown
        self._new: list[str] = []
        self._fresh, self._due = 0, STEP
        self._whole = Text()  # only where a classifier has to see it
        self._length, self._vetted = 0, 0
        self._digest = hashlib.blake2b(digest_size=16)
        self.shown = 0
        """Characters that were shown, as they were edited."""
        self.stopped: Decision | None = None
        """What a gate said that ends the stream, or keeps the rest of it for the whole decision."""

    @property
    def held(self) -> int:
        """Characters that have arrived and were not shown."""
        return len(self._window) - self._left + self._fresh

    @property
    def ending(self) -> tuple[Check, ...]:
        """What gates said that blocks the rest."""
        checks = self.stopped.checks if self.stopped is not None else ()
        return tuple(check for check in checks if check.verdict.action is Action.BLOCK)

    async def feeding(self, text: str) -> str:
        """Take a piece; what may be shown now, edited, perhaps nothing."""
        flow = self._flow
        if flow is None or self.stopped is not None:
            return ""
        if not (flow.spans or flow.strides):
            return self._show(text)
        self._new.append(text)
        self._fresh += len(text)
        if self._fresh < self._due:
            return ""
        self._window += "".join(self._new)
        if flow.strides:
            self._whole.add(self._window[-self._fresh :])
        self._length += self._fresh
        self._new, self._fresh = [], 0
        return await self._released(flow)

    def fits(self, text: str) -> bool:
        """Whether what was shown is the beginning of a text."""
        return hashlib.blake2b(_bytes(text[: self.shown]), digest_size=16).digest() == self._digest.digest()

    def _show(self, text: str) -> str:
        self._digest.update(_bytes(text))
        self.shown += len(text)
        return text

    async def _released(self, flow: Flowing) -> str:
        cut = await self._passed(flow)
        cut = _settled(flow.spans, encodable(self._window), cut)
        if cut > self._left and self.stopped is None:
            cut, edits = await self._examined(flow, cut)
            if cut > self._left and not self.shown:  # nothing is shown that is not on record
                self.stopped = await self._watch.opening(self._event, self._seam)
            if cut > self._left and self.stopped is None:
                return self._forward(flow, cut, edits)
        self._due = max(STEP, self.held // _GROWTH)
        return ""

    async def _passed(self, flow: Flowing) -> int:
        """How far classifiers have agreed, as a position in the window."""
        if not flow.strides:
            return len(self._window)
        due = self._length - self._vetted >= flow.every
        if due and await self._glance(str(self._whole), flow.strides) is not None:
            self._vetted = self._length
        return len(self._window) - (self._length - self._vetted)

    async def _examined(self, flow: Flowing, cut: int) -> tuple[int, Sequence[Edit]]:
        """Have the window read: the cut moved in front of what crosses it, and the edits before it."""
        if not flow.spans:
            return cut, ()
        decision = await self._glance(self._window, flow.spans)
        if decision is None:
            return 0, ()
        edits = resolve(decision.verdict.edits)
        spans = [(e.start, e.end) for e in edits] + [(f.start, f.end) for f in decision.verdict.findings]
        while crossing := [start for start, end in spans if start < cut < end]:
            cut = _settled(flow.spans, encodable(self._window), min(crossing))
        return cut, [edit for edit in edits if edit.end <= cut and edit.end > self._left]

    async def _glance(self, text: str, gates: Sequence[Gate]) -> Decision | None:
        """What gates say of a piece, if it may go on; anything else stops the stream here."""
        event = replace(self._event, content=self._frame(text))
        decision = await self._watch.glancing(event, self._seam, gates)
        if decision.shadow or decision.action <= Action.FLAG:
            return decision
        self.stopped = decision
        return None

    def _forward(self, flow: Flowing, cut: int, edits: Sequence[Edit]) -> str:
        """Show the window up to the cut, and keep of it what is read again."""
        pieces, position = [], self._left
        for edit in edits:
            pieces += [self._window[position : edit.start], edit.text]
            position = max(position, edit.end)
        text = "".join([*pieces, self._window[position:cut]])
        read = encodable(self._window)
        begin = min((gate.context(read, cut) for gate in flow.spans), default=cut)
        self._window, self._left = self._window[begin:], cut - begin
        self._due = STEP
        return self._show(text)


def _settled(gates: Sequence[Gate], text: str, limit: int) -> int:
    """How much of a text is settled for all gates: the greatest cut that suits each."""
    while limit > 0:
        cut = min((gate.settled(text, limit) for gate in gates), default=limit)
        if cut == limit:
            break
        limit = cut
    return max(0, limit)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class Decides(Watch, Protocol):
    """What a public stream needs of the engine besides."""

    def deciding(self, event: Event, seam: Seam = ANYWHERE, *, shown: Shown | None = None) -> Flow[Decision]:
        """The decision on the whole."""


class Stream:
    r"""A text decided as it arrives. Made by `Guard.open`.

    Feed pieces and show what comes back; then `close` and show the `rest`, unless the decision blocks. The decision
    is the one that `Guard.decide` gives on the whole text.

    >>> from guardrails_mw import Content, Event, Guard, Policy, Stage
    >>> from guardrails_mw.document import Document
    >>> source = "version: 1\ngates: {keys: {type: secrets}}\nstages: {output: [keys]}"
    >>> stream = Guard(Policy.load(Document(source))).open(Event(Stage.OUTPUT, Content("")))
    >>> shown = [stream.feed(word + " ") for word in "a password is hunter2-Xy9! and no more of it".split()]
    >>> "".join(shown) + stream.rest(stream.close())
    'a password is [SECRET:generic] and no more of it '
    """

    def __init__(self, engine: Decides, event: Event, seam: Seam = ANYWHERE) -> None:
        self._engine, self._event, self._seam = engine, event, seam
        self._hold, self._text = Hold(engine, event, seam), Text()

    @property
    def shown(self) -> int:
        """Characters that were given back so far."""
        return self._hold.shown

    @property
    def stopped(self) -> bool:
        """Whether a gate wants no more of it: nothing further comes back, and `close` may be called at once."""
        return self._hold.stopped is not None

    def feed(self, text: str) -> str:
        """Take a piece; returns what may be shown already."""
        return drive(self._fed(text))

    async def afeed(self, text: str) -> str:
        """Take a piece in a running loop; returns what may be shown already."""
        return await drive_async(self._fed(text))

    def close(self) -> Decision:
        """Decide the whole."""
        return drive(self._closed())

    async def aclose(self) -> Decision:
        """Decide the whole in a running loop."""
        return await drive_async(self._closed())

    def rest(self, decision: Decision) -> str:
        """What is still to be shown after `close`; empty where it is blocked."""
        return "" if decision.blocked else str(decision.content.value)[self.shown :]

    async def _fed(self, text: str) -> str:
        self._text.add(text)
        return await self._hold.feeding(text)

    async def _closed(self) -> Decision:
        event = replace(self._event, content=Content(str(self._text)))
        shown = Shown(self.shown, lambda content: self._hold.fits(str(content.value)), self._hold.ending)
        return await self._engine.deciding(event, self._seam, shown=shown)
