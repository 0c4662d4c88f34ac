"""Stand-ins: a gate that says what it is told, a clock that stands still, a store that remembers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from guardrails_mw.event import Event
from guardrails_mw.gate import Gate, GateConfig, GateTypes, Site
from guardrails_mw.store import Again, Claim, Entry, Refusal
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.verdict import Verdict

__all__ = ["FakeGate", "FrozenClock", "RecordingStore"]


class FakeGate(Gate):
    r"""A gate that gives the verdicts it was made with, in turn; the last one again and again.

    >>> from guardrails_mw import Guard, Policy
    >>> from guardrails_mw.document import Document
    >>> gate = FakeGate("mine", Verdict.block("no"), Verdict.allow())
    >>> source = "version: 1\ngates: {mine: {type: fake}}\nstages: {input: [mine]}"
    >>> with Guard(Policy.load(Document(source), gate.types), types=gate.types) as guard:
    ...     [guard.check("hello").action.word for _ in range(3)]
    ['block', 'allow', 'allow']
    >>> [event.content.value for event in gate.seen]
    ['hello', 'hello', 'hello']
    """

    def __init__(self, name: str, *verdicts: Verdict) -> None:
        super().__init__(name)
        self._verdicts = verdicts or (Verdict.allow(),)
        self.seen: list[Event] = []
        """The events that it was asked about."""

    @property
    def types(self) -> GateTypes:
        """The installed gate types and the type ``fake``, which is this gate."""
        this = self

        class Fake(Gate):
            @classmethod
            def build(cls, config: GateConfig, site: Site) -> Gate:  # noqa: ARG003 - there is one
                this.name = site.name
                return this

            def check(self, event: Event) -> Verdict:  # never built, so never asked
                return this.check(event)

        installed = GateTypes.installed()
        return GateTypes({**{name: installed.get(name) for name in installed.names}, "fake": Fake})

    def check(self, event: Event) -> Verdict:
        """The next verdict."""
        self.seen.append(event)
        return self._verdicts[min(len(self.seen), len(self._verdicts)) - 1]


class FrozenClock:
    """Seconds that pass when you say so; goes wherever a clock is taken.

    >>> clock = FrozenClock(100.0)
    >>> clock.pass_by(5)
    >>> clock()
    105.0
    """

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """What time it is."""
        return self.now

    def pass_by(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class RecordingStore(MemoryStore):
    """A store in memory that remembers every change that it was asked for: the method and its first argument.

    >>> store = RecordingStore()
    >>> store.swap("key", None, "value"), store.done
    (True, [('swap', 'key')])
    """

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[str, str]] = []

    def append(self, run: str, key: str, at: float, kind: str, body: str) -> Entry:
        """Like any store's."""
        self.done.append(("append", run))
        return super().append(run, key, at, kind, body)

    def reserve(self, key: str, claims: Sequence[Claim], now: float, ttl: float) -> Refusal | Again | None:
        """Like any store's."""
        self.done.append(("reserve", key))
        return super().reserve(key, claims, now, ttl)

    def settle(self, key: str, amounts: Mapping[str, int]) -> bool:
        """Like any store's."""
        self.done.append(("settle", key))
        return super().settle(key, amounts)

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        """Like any store's."""
        self.done.append(("swap", key))
        return super().swap(key, expected, new, due)

    def entries(self) -> Iterator[Entry]:
        """Everything in the log."""
        for run in self.runs():
            yield from self.read(run.run)
