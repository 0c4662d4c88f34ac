"""The canary watch: runs a graph of yours on canaries and searches everything that left for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, cast

from langchain_core.tools import BaseTool
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from guardrails_mw.event import Content, Event, Stage, ToolCall
from guardrails_mw.gate import GateTypes
from guardrails_mw.guard import Guard
from guardrails_mw.policy import Policy
from guardrails_mw.redaction import Redactor
from guardrails_mw.sections import Otlp, TracesPolicy
from guardrails_mw.testing.canary import KINDS, Canaries, Kind
from guardrails_mw.testing.leaving import Collector, Leaving, bytes_of, file_bytes
from guardrails_mw.testing.planting import STORIES, CanaryModel, Planting, Story, stage_of
from guardrails_mw.testing.running import CANARY_MODES, Tracer, checkpoint_bytes, joined, ran
from guardrails_mw.verdict import Action, Decision

__all__ = ["CANARY_MODES", "HELD", "Leak", "SeamName", "Watch", "canary_watch"]

SeamName: TypeAlias = Literal["graph", "middleware", "nodes", "model", "runnable", "callbacks"]

_ALL = frozenset({Stage.INPUT, Stage.TOOL_CALL, Stage.TOOL_RESULT, Stage.OUTPUT})
_INSIDE = _ALL - {Stage.INPUT}
_LEFT = ("returned", "raised", "checkpoints", "tracer")
_RUN = frozenset({*_LEFT, "model", "tools"})
_GIVEN = frozenset({Stage.INPUT, Stage.TOOL_RESULT})  # a model that is asked again reads its own answer as it was
_AGENT = {**dict.fromkeys(_LEFT, _INSIDE), "model": _GIVEN, "tools": _ALL}
HELD: Mapping[SeamName, Mapping[str, frozenset[Stage]]] = {
    "graph": {**dict.fromkeys(_RUN, _ALL), "model": _GIVEN},
    "middleware": _AGENT,
    "nodes": _AGENT,
    "model": {
        "returned": frozenset({Stage.OUTPUT, Stage.TOOL_CALL}),
        "raised": _ALL,
        "tracer": _ALL,
        "model": _GIVEN,
    },
    "runnable": {"returned": frozenset({Stage.OUTPUT}), "model": frozenset({Stage.INPUT})},
    "callbacks": {},
}
"""What stays where in a run, by the outermost seam: on each surface, the stages whose edits and blocks hold there."""

NAMES = frozenset({"call.name", "call.id", "call.word", "input.id"})
"""Names and ids that messages and calls are matched by: they stay in the conversation, and are kept from records.

`guard.graph` gives a message another id if its own is no name.
"""

_KEYS = {"LANGFUSE_PUBLIC_KEY": "pk-lf-canary", "LANGFUSE_SECRET_KEY": "sk-lf-canary"}


@dataclass(frozen=True, slots=True, order=True)
class Leak:
    """A canary where the policy does not want it. It says where, never what.

    Attributes:
        surface: where it was found, such as ``file guard.db-wal`` or ``tracer on_tool_end``.
        field: where it was planted, such as ``result.message.artifact``; empty for a part of one.
        kind: what it is.
        form: how it was written: ``clear``, ``base64`` or another of `forms`.
    """

    surface: str
    field: str
    kind: str
    form: str


class Watch:
    """A guard for the policy, things that say canaries, and the search for them. Made by `canary_watch`.

    Attributes:
        guard: enforces the policy, with its store in a file and its traces sent to `collector`.
        model: a chat model that calls `tools` and answers, with canaries in every field.
        tools: tools that answer with canaries, under the names that you gave.
        saver: a checkpointer whose content is searched; `keep` takes others.
        collector: a server that takes any request; send your own exporters' there too.
        folder: its files are searched.
    """

    def __init__(
        self,
        guard: Guard,
        seam: SeamName,
        canaries: Canaries,
        tools: Sequence[str],
        *,
        collector: Collector,
        folder: Path,
    ) -> None:
        self.guard, self.seam, self.canaries = guard, seam, canaries
        self.collector, self.folder = collector, folder
        self.planting = Planting(canaries)
        self.model = CanaryModel.of(self.planting, tools)
        self.tools: list[BaseTool] = [self.planting.tool(name) for name in tools]
        self.saver = InMemorySaver()
        self._kept: list[tuple[str, object]] = [("checkpoints", self.saver)]
        self.found: list[tuple[str, bytes]] = []
        """Everything that was kept: the surface and its bytes. Complete once the watch is over."""
        self._runs = 0
        self.redacted, self.hidden = _redacted(guard, canaries), _hidden(guard, canaries)
        """Kinds that the policy keeps from records, and from going on, by stage."""

    def text(self, field: str) -> str:
        """A text with canaries for a field of your own: ``input.…``, ``output.…``, ``call.…``, ``result.…`` or any."""
        return self.canaries.text(field)

    def keep(self, surface: str, what: object) -> None:
        """Search this too: a checkpointer, a file (by its `Path`), or any value, as it is at the end.

        Values are part of the run: name them ``returned``, ``checkpoints``, ``tracer``, ``model`` or ``tools``, with
        more words behind if you like; everything else is a record.
        """
        self._kept.append((surface, what))

    def run(
        self,
        target: object,
        mode: str = "invoke",
        *,
        stories: Iterable[Story] = STORIES,
        state: Mapping[str, object] | None = None,
        given: object = None,
        context: object = None,
    ) -> None:
        """Run a graph, agent, model or chain on canaries, in one of `CANARY_MODES`, once for every story.

        Args:
            target: what to run.
            mode: how.
            stories: what happens.
            state: more of a graph's input besides its messages.
            given: the input, if it is something else than messages.
            context: the runtime context of a graph.
        """
        is_graph = hasattr(target, "get_state")
        for story in stories:
            self.planting.story = story
            self._runs += 1
            messages = self.planting.messages()
            value = given if given is not None else {"messages": messages, **(state or {})} if is_graph else messages
            tracer = Tracer()
            config = self._config(tracer)
            options: dict[str, object] = {} if context is None else {"context": context}
            try:
                returned = ran(target, mode, value, config, options)
                self.found += [("returned", bytes_of(returned)), ("returned tokens", joined(returned))]
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a surface
                self.found.append(("raised", bytes_of(error)))
            self.found += tracer.told()

    def _config(self, tracer: Tracer) -> dict[str, object]:
        config = self.planting.config()
        callbacks = self.guard.callbacks() if self.seam == "callbacks" else self.guard.traces()
        configurable = {**cast("dict[str, object]", config["configurable"]), "thread_id": f"canary-{self._runs}"}
        return {**config, "configurable": configurable, "callbacks": [*callbacks, tracer]}

    def leaks(self) -> list[Leak]:
        """Where canaries are that should not be there. Complete once the watch is over."""
        found: set[Leak] = set()
        for surface, data in self.found:
            for each in self.canaries.find(data):
                if self.promised(surface, each.field, each.kind):
                    found.add(Leak(surface, each.field, each.kind, each.form))
        return sorted(found)

    def promised(self, surface: str, field: str, kind: str) -> bool:
        """Whether the policy keeps a kind, planted in a field, from a surface."""
        place = surface.partition(" ")[0]
        if place not in _RUN:
            return kind in self.redacted
        held, stage = HELD[self.seam].get(place, frozenset()), stage_of(field)
        if not field:  # part of a value: of a field that cannot be told, so it counts where all of them are held
            return held == _ALL and all(kind in self.hidden[each] for each in _ALL)
        if field in NAMES and not (self.seam == "graph" and stage is Stage.INPUT):
            return False
        return stage in held and kind in self.hidden[stage]

    def assert_clean(self) -> None:
        """Fail with every leak, by surface, field, kind and form; also where the policy hides nothing at all."""
        assert self.redacted or any(self.hidden.values()), "the policy hides none of these kinds: nothing is watched"
        assert self._runs or len(self._kept) > 1, "nothing was run"
        leaks = self.leaks()
        lines = [f"{leak.kind} of {leak.field or 'some field'} in {leak.surface} ({leak.form})" for leak in leaks]
        assert not leaks, f"{len(leaks)} leaks:\n" + "\n".join(lines)

    def collect(self, leaving: Leaving) -> None:
        """Take what is left to take, when everything is closed."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                self.found.append((f"file {path.name}", file_bytes(path)))
        self.found += [("request", data) for data in self.collector.received]
        self.found += leaving.kept()

    def settle(self) -> None:
        """Take what is in memory, while it is open."""
        self.found += [("model heard", bytes_of(self.planting.heard)), ("tools got", bytes_of(self.planting.got))]
        for surface, what in self._kept:
            if isinstance(what, BaseCheckpointSaver):
                data = checkpoint_bytes(what)
            else:
                data = file_bytes(what) if isinstance(what, Path) else bytes_of(what)
            self.found.append((surface, data))


@contextmanager
def canary_watch(
    policy: Policy | str | Path,
    *,
    seam: SeamName = "graph",
    tools: Sequence[str] = ("lookup",),
    kinds: Sequence[Kind] = KINDS,
    types: GateTypes | None = None,
) -> Iterator[Watch]:
    r"""Watch everything that leaves this process while a graph of yours runs on canaries.

    Args:
        policy: a policy or its file. Its store becomes a file of the watch, its traces go to the watch.
        seam: the outermost seam that you use, which says what holds where; see `HELD`.
        tools: names that the watch's tools go by. Take some that the policy allows.
        kinds: what to plant.
        types: gate types, where they are not installed ones.

    >>> from guardrails_mw.document import Document
    >>> source = "gates: {pii: {type: pii}, keys: {type: secrets}}\nstages: {input: [pii, keys], output: [pii, keys]}"
    >>> with canary_watch(Policy.load(Document("version: 1\n" + source)), seam="model") as watch:
    ...     watch.run(watch.guard.model(watch.model), stories=["says"])
    >>> watch.assert_clean()
    """
    policy = policy if isinstance(policy, Policy) else Policy.read(policy, types)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="canary-")))
        collector, leaving = Collector(), Leaving()
        stack.callback(collector.close)
        traces = TracesPolicy(otlp=[Otlp(endpoint=f"{collector.url}/v1/traces")], langfuse=True)
        policy = policy.model_copy(update={"store": f"sqlite:///{folder}/guard.db", "traces": traces})
        with leaving, Guard(policy, types=types, env={**_KEYS, "LANGFUSE_BASE_URL": collector.url}) as guard:
            watch = Watch(guard, seam, Canaries(kinds), tools, collector=collector, folder=folder)
            yield watch
            watch.settle()
            if guard.tracing:
                guard.tracing.flush(10.0)
            watch.collect(leaving)  # while the log of the database is a file of its own
        watch.collect(leaving)


def _redacted(guard: Guard, canaries: Canaries) -> frozenset[str]:
    """The kinds that the policy's redacting gates find."""
    redactor = Redactor([guard.gates[name] for name in guard.policy.record.redact])
    texts = {kind: f"Note {kind.name} {canaries.value('probe', kind)}." for kind in canaries.kinds}
    return frozenset(kind.name for kind, text in texts.items() if not canaries.find(bytes_of(redactor.text(text))))


def _hidden(guard: Guard, canaries: Canaries) -> dict[Stage, frozenset[str]]:
    """By stage, the kinds that the policy edits out or blocks: it is asked, about a value and about none."""
    hidden: dict[Stage, frozenset[str]] = {}
    for stage in _ALL:
        stopped = _decided(guard, stage, "Note nothing.").action is Action.BLOCK
        found = set[str]()
        for kind in canaries.kinds:
            decision = _decided(guard, stage, f"Note {kind.name} {canaries.value('probe', kind)}.")
            blocked = decision.action is Action.BLOCK and not stopped and stage is not Stage.TOOL_CALL
            if blocked or not canaries.find(bytes_of(decision.content.value)):
                found.add(kind.name)
        hidden[stage] = frozenset(found)
    return hidden


def _decided(guard: Guard, stage: Stage, text: str) -> Decision:
    args = {"q": text}
    call = ToolCall("probe", args) if stage in (Stage.TOOL_CALL, Stage.TOOL_RESULT) else None
    return guard.decide(Event(stage, Content(args if stage is Stage.TOOL_CALL else text), call=call))
