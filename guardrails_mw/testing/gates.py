"""What every gate must do, as tests to run against a gate of your own."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import random
import threading
import time
from collections.abc import Awaitable, Callable

from guardrails_mw.event import Content, Event, Stage, ToolCall
from guardrails_mw.gate import ALL_STAGES, EFFECTS, Cost, Gate
from guardrails_mw.verdict import Action, Edit, Finding, Verdict

__all__ = ["GateConformance"]

_ALPHABET = "ab 1\n.é漢😀\u200b\x00@:{}\"'\\-"
_SIZE = 4_000


class GateConformance:
    """Subclass it in a module of your tests and say how the gate is made and what it should find.

    ```python
    class TestMine(GateConformance):
        found = ("a text that it blocks or edits", "another")

        @pytest.fixture
        def make(self):
            return lambda: MyGate("mine")
    ```

    Attributes:
        found: texts that the gate has something to say about; at least one.
        stages: where it is asked; the gate's own stages if left out.
        grows: how much slower it may be on a text eight times as long; 8 is linear, the rest is for a busy machine.
    """

    found: tuple[str, ...] = ()
    stages: frozenset[Stage] | None = None
    grows: float = 40.0

    def test_what_it_declares(self, make: Callable[[], Gate]) -> None:
        """Stages, cost, effects and bounds are ones that there are."""
        gate = make()
        assert gate.stages
        assert gate.stages <= ALL_STAGES
        assert gate.cost in Cost
        assert all(gate.may(stage) <= EFFECTS for stage in gate.stages)
        assert all(bound is None or bound >= 0 for bound in (gate.look_back, gate.look_ahead, gate.max_span))

    def test_it_finds_something(self, make: Callable[[], Gate]) -> None:
        """It says something about what it is for, at one stage at least."""
        gate = make()
        for text in self.found:
            said = [asked(gate, event) for event in self._events(gate, text)]
            assert any(each.action > Action.ALLOW or each.edits or each.findings for each in said)

    def test_verdicts_fit(self, make: Callable[[], Gate]) -> None:
        """Whatever it reads it answers with a verdict: a code as its reason, spans inside the text they are of."""
        gate = make()
        for text in [*self.found, *_odd_texts()]:
            for event in self._events(gate, text):
                verdict = asked(gate, event)
                assert isinstance(verdict, Verdict)
                assert len(verdict.reason) <= 64
                assert verdict.reason.isascii()
                assert " " not in verdict.reason
                parts = event.content.parts
                for span in _said(verdict):
                    assert 0 <= span.part < len(parts)
                    assert 0 <= span.start <= span.end <= len(parts[span.part].text)

    def test_it_does_only_what_it_may(self, make: Callable[[], Gate]) -> None:
        """Blocks, edits and questions are among those that `may` names for the stage."""
        gate = make()
        for text in [*self.found, *_odd_texts()]:
            for event in self._events(gate, text):
                verdict, may = asked(gate, event), gate.may(event.stage)
                assert verdict.action is not Action.BLOCK or "block" in may
                assert verdict.action is not Action.ASK or "ask" in may
                assert not verdict.edits or "edit" in may

    def test_the_same_again(self, make: Callable[[], Gate]) -> None:
        """The same event has the same verdict, in this gate and in another one made alike."""
        gate, other = make(), make()
        for text in [*self.found, *_odd_texts()]:
            for event in self._events(gate, text):
                assert asked(gate, event) == asked(gate, event) == asked(other, event)

    def test_many_at_once(self, make: Callable[[], Gate]) -> None:
        """Eight threads get what one gets."""
        gate = make()
        events = [event for text in [*self.found, "nothing"] for event in self._events(gate, text)]
        expected, got = [asked(gate, event) for event in events], list[list[Verdict]]()
        threads = [
            threading.Thread(target=lambda: got.append([asked(gate, event) for event in events])) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert got == [expected] * 8

    def test_warm_and_close_twice(self, make: Callable[[], Gate]) -> None:
        """Loading and freeing twice does no harm."""
        gate = make()
        for _ in range(2):
            gate.warm()
        for event in self._events(gate, "nothing"):
            asked(gate, event)
        for _ in range(2):
            gate.close()

    def test_linear_work(self, make: Callable[[], Gate]) -> None:
        """A linear gate takes no more than linear time, on texts that are hard for patterns too."""
        gate = make()
        if gate.cost is not Cost.LINEAR:
            return
        for unit in ("a", "1", " ", "a@", "(", "é", "😀", *self.found):
            short, long = (unit * (size // len(unit)) for size in (_SIZE, 8 * _SIZE))
            took = [min(self._timed(gate, text) for _ in range(3)) for text in (short, long)]
            assert took[1] <= self.grows * max(took[0], 0.002), f"{took[1] / took[0]:.0f} times as long"

    def test_bounds_hold(self, make: Callable[[], Gate]) -> None:
        """What a bounded gate says of a settled piece does not change, whatever follows and wherever it is cut."""
        gate, chance = make(), random.Random(7)  # noqa: S311 - repeatable, not secret
        if not gate.bounded:
            return
        for number in range(60):
            text = "".join(
                chance.choice([*self.found, "".join(chance.choices(_ALPHABET, k=chance.randint(1, 40)))])
                for _ in range(chance.randint(1, 6))
            )
            for stage in sorted(self.stages or gate.stages):
                whole = _spans(asked(gate, _event(stage, text)))
                end = chance.randint(0, len(text))
                settled = gate.settled(text[:end], end)
                assert 0 <= settled <= end
                early = _spans(asked(gate, _event(stage, text[:end])))
                assert _before(early, settled) == _before(whole, settled), f"seed {number}"

    def test_it_travels(self, make: Callable[[], Gate]) -> None:
        """A gate for a process of its own has a recipe that can be pickled."""
        gate = make()
        if gate.cost is not Cost.ISOLATED:
            return
        recipe = getattr(gate, "recipe", None)
        assert recipe is not None
        assert pickle.loads(pickle.dumps(recipe())) == recipe()  # noqa: S301 - our own

    def _events(self, gate: Gate, text: str) -> list[Event]:
        return [_event(stage, text) for stage in sorted(self.stages or gate.stages) if stage is not Stage.MODEL]

    def _timed(self, gate: Gate, text: str) -> float:
        events = self._events(gate, text)
        began = time.thread_time()
        for event in events:
            asked(gate, event)
        return time.thread_time() - began


def asked(gate: Gate, event: Event) -> Verdict:
    """What a gate says, also one that has to be awaited."""
    said = gate.check(event)
    return asyncio.run(_awaited(said)) if inspect.isawaitable(said) else said


async def _awaited(said: Awaitable[Verdict]) -> Verdict:
    return await said


def _event(stage: Stage, text: str) -> Event:
    args = {"q": text}
    call = ToolCall("look", args, "c1") if stage in (Stage.TOOL_CALL, Stage.TOOL_RESULT) else None
    return Event(stage, Content(args if stage is Stage.TOOL_CALL else text), call=call)


def _odd_texts() -> list[str]:
    chance = random.Random(3)  # noqa: S311 - repeatable, not secret
    made = ["".join(chance.choices(_ALPHABET, k=chance.randint(1, 200))) for _ in range(20)]
    return ["", " ", "\x00", "\ud800 alone", "null", '{"a": [1]}', "a" * 5_000, *made]


def _spans(verdict: Verdict) -> set[tuple[int, int]]:
    return {(span.start, span.end) for span in _said(verdict)}


def _said(verdict: Verdict) -> list[Edit | Finding]:
    return [*verdict.edits, *verdict.findings]


def _before(spans: set[tuple[int, int]], settled: int) -> set[tuple[int, int]]:
    return {span for span in spans if span[0] < settled}
