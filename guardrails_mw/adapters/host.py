"""What LangChain and LangGraph tell about a call: where it happens and who asks; and how they are stopped.

Only this module reads LangGraph's configuration. A run is one top-level invocation together with its
resumes; LangGraph gives every invocation, sub-agents included, one control object, which is what runs are
recognised by here. The id of a thread's running run is kept in the store, so that a resume in another
process belongs to the same run.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NoReturn

from langchain_core.runnables.config import RunnableConfig, ensure_config
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.types import interrupt

from guardrails_mw.enforcer import Enforcer
from guardrails_mw.errors import GuardrailBlocked
from guardrails_mw.event import ANONYMOUS, Actor, Content, Event, ModelCall, Origin, Stage, ToolCall, Where
from guardrails_mw.latch import Latch
from guardrails_mw.seam import GRAPH, Power, Seam
from guardrails_mw.store import Store
from guardrails_mw.verdict import Decision
from guardrails_mw.wait import Either

__all__ = [
    "CALLING",
    "BlockedInGraph",
    "Calling",
    "Here",
    "Runs",
    "actor_from",
    "block_error",
    "can_pause",
    "channel",
    "digest",
    "on_behalf",
    "pause",
    "pause_again",
    "raise_block",
]

_ENCLOSING: ContextVar[Here | None] = ContextVar("guardrails_mw_enclosing", default=None)
"""Where the enclosing seam stands: what begins inside of it belongs to its run, and acts for its actor."""

CALLING: ContextVar[Calling | None] = ContextVar("guardrails_mw_calling", default=None)
"""The tool call that a tool seam is running, so that callbacks do not decide it again."""

_MAX_RUNS = 65_536
_TASK = re.compile(r"[^|]+(?:\|\d+)*")  # a task's name and, of graphs that it calls one after the other, the number

_ON_BEHALF = "__guardrails_actor"
"""Where a configuration holds the actor that a seam was made for. Names like it are kept out of checkpoints."""


@dataclass(slots=True)
class Calling:
    """A tool call that a guard's tool seam permitted. It stands for one run of the tool at a time.

    What runs inside the tool is another call, also when a sub-agent's model gave it the same id.
    """

    guard: int
    call: str
    run: str = ""

    def covers(self, guard: int, call: str, run: str) -> bool:
        """Whether this run of a tool is the permitted call; from then on until `over`, no other is."""
        if (self.guard, self.call) != (guard, call) or self.run not in ("", run):
            return False
        self.run = run
        return True

    def over(self, run: str) -> None:
        """The run has ended; a retry may follow."""
        if self.run == run:
            self.run = ""


@dataclass(frozen=True, slots=True)
class Here:
    """Where an adapter stands and for whom it acts."""

    where: Where
    actor: Actor
    pausable: bool
    resuming: bool = False
    """Whether the host takes up again what it left off, so that questions may be on record already."""
    sent: bool = False
    """Whether this step of a graph was given a state of its own (`Send`)."""
    tries: Counter[str] = field(default_factory=Counter, compare=False, repr=False)
    """How often each tool call was tried in this invocation, by the key of its event."""
    invoked: bool = False
    """Whether this is inside an invocation of a graph, whose run goes on when it is resumed."""

    @contextmanager
    def enclosing(self) -> Iterator[None]:
        """What begins meanwhile begins inside of what happens here."""
        token = _ENCLOSING.set(self)
        try:
            yield
        finally:
            _ENCLOSING.reset(token)

    def key(self, *parts: str) -> str:
        """A key for something that happens here, stable when the node runs again.

        Ids of messages and calls are no more than a digest in it: stores keep keys, and others choose ids.
        """
        sort, *names = parts
        return "|".join((self.where.thread or self.where.run, sort, digest(names)))

    def event(
        self, stage: Stage, origin: Origin, content: Content, *key: str, call: ToolCall | ModelCall | None = None
    ) -> Event:
        """An event that happens here; `key` names it among others of this place."""
        return Event(stage, content, origin, self.actor, self.where, call, self.key(*key))

    @property
    def step(self) -> str:
        """The turn within its graph, the same whoever calls or resumes that."""
        return self.where.turn.rpartition("/")[2]

    def turn(self, answer: str) -> Here:
        """The same place for the calls of one answer, by the answer's id: a task may have many, one after the other."""
        if not (answer and self.where.turn):
            return self
        *around, _ = self.where.turn.split("/")
        return replace(self, where=replace(self.where, turn="/".join([*around, digest(answer)[:8]])))

    def within(self, seam: Seam) -> Seam:
        """What a seam can carry out here: nobody is asked where nothing can pause."""
        return seam if self.pausable else seam.without(Power.ASK)


class Runs:
    """Which run an invocation belongs to, and whether that run may still go on.

    Args:
        store: keeps the running run of each thread.
        latch: knows the runs that a raised block has ended.
    """

    def __init__(self, store: Store, latch: Latch) -> None:
        self._store, self._latch = store, latch
        self._known: OrderedDict[int, tuple[object, str, Counter[str]]] = OrderedDict()
        self._lock = threading.Lock()

    async def here(
        self,
        parent: str = "",
        actor: Actor | None = None,
        config: RunnableConfig | None = None,
        resuming: bool | None = None,
        control: object = None,
        saver: object = None,
        within: Here | None = None,
    ) -> Here:
        """Read the configuration, given or surrounding.

        An agent that a tool of another one calls is in that one's run, and acts for its actor, whatever thread it is
        given: what it does is done on behalf of who began the run.

        Args:
            parent: the host run to use where there is no graph.
            actor: for whom; read from the configuration if left out.
            config: the surrounding configuration if left out.
            resuming: whether the invocation is a resume, where the caller has seen it begin.
            control: the control object of an invocation that is about to begin.
            saver: its checkpointer.
            within: where the enclosing seam stands, if it is not surrounding.

        Raises:
            BlockedInGraph: a block was raised in this run, and something went on in spite of it.
        """
        config = ensure_config(config)
        configurable: Mapping[str, object] = config.get("configurable") or {}
        span = str(getattr(config.get("callbacks"), "parent_run_id", None) or parent)
        thread = str(configurable.get("thread_id") or "")
        runtime = configurable.get("__pregel_runtime")
        control = control or getattr(runtime, "control", None)
        flag = configurable.get("__pregel_resuming")  # LangGraph tells it in the first step of an invocation only
        within = within or _ENCLOSING.get()
        if control is not None:
            resuming = bool(flag) if resuming is None and flag is not None else resuming
            saver = configurable.get("__pregel_checkpointer") or saver
            run, tries = self._invocation(control) or await self._entered(control, thread, resuming, saver, within)
        else:
            run, tries = within.where.run if within else parent or span or _some_run(), Counter()
        self.going_on(run)
        where = replace(_place(config, within.where if within else None), run=run, thread=thread, span=span)
        actor, sent = actor or actor_from(configurable, runtime), _sent(config)
        if actor == ANONYMOUS and within is not None:
            actor = within.actor
        return Here(where, actor, can_pause(configurable), bool(flag), sent, tries, control is not None)

    def going_on(self, run: str) -> None:
        """Raise the block that has ended a run, if one has."""
        if (ended := self._latch.ended(run)) is not None:
            raise BlockedInGraph(*ended)

    def over(self, control: object) -> None:
        """The invocation that this object controls has returned; raise the block that was swallowed in it."""
        if (known := self._invocation(control)) is not None:
            self.going_on(known[0])

    def _invocation(self, control: object) -> tuple[str, Counter[str]] | None:
        """The run of an invocation that was seen before, and what was tried in it."""
        with self._lock:
            known = self._known.get(id(control))
            return known[1:] if known is not None and known[0] is control else None

    async def _entered(
        self, control: object, thread: str, resuming: bool | None, saver: object, within: Here | None
    ) -> tuple[str, Counter[str]]:
        """The run of an invocation that is seen for the first time."""
        if within is not None and (within.invoked or not thread):
            run = within.where.run
        else:
            run = await self._begun(thread, resuming, saver)
        with self._lock:
            known = self._known.get(id(control))
            if known is None or known[0] is not control:  # else a parallel branch was first
                known = self._known[id(control)] = (control, run, Counter())
            while len(self._known) > _MAX_RUNS:
                self._known.popitem(last=False)
            return known[1:]

    async def _begun(self, thread: str, resuming: bool | None, saver: object) -> str:
        """A new run, or the one that a resumed thread was in. The store keeps ``run@when it began``."""
        if not thread:
            return _some_run()
        name = f"run:{thread}"
        kept = self._store.get(name)
        if kept and resuming is not False:
            current, _, began = kept.rpartition("@")
            if resuming or not await _new_input(saver, thread, float(began)):
                return current
        run = f"{thread}/{secrets.token_hex(4)}"
        if self._store.swap(name, kept, f"{run}@{time.time()}"):
            return run
        return (self._store.get(name) or run).rpartition("@")[0] or run


def _some_run() -> str:
    return f"run-{secrets.token_hex(6)}"


async def _new_input(saver: object, thread: str, since: float) -> bool:
    """Whether a thread was given new input, by its checkpoints. Where nobody can tell, the run goes on."""
    if not isinstance(saver, BaseCheckpointSaver):
        return True  # without checkpoints nothing is ever resumed
    config: RunnableConfig = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
    only = {"source": "input"}

    async def there() -> CheckpointTuple | None:
        return await anext(saver.alist(config, filter=only, limit=1), None)

    try:
        last = await Either(lambda: next(iter(saver.list(config, filter=only, limit=1)), None), there)
        return last is not None and datetime.fromisoformat(last.checkpoint["ts"]).timestamp() > since
    except Exception:  # noqa: BLE001 - a checkpointer that fails must not renew a budget
        return False


def _place(config: RunnableConfig, caller: Where | None) -> Where:
    """The step of a graph that a configuration belongs to. One that a tool called may know nothing of its caller."""
    metadata, configurable = config.get("metadata") or {}, config.get("configurable") or {}
    task, step = str(configurable.get("checkpoint_ns") or ""), metadata.get("langgraph_step")
    turn = "" if step is None else _turn(task, step, configurable.get("checkpoint_map") or {})
    where = Where(task=task, agent=str(metadata.get("lc_agent_name") or ""), turn=turn)
    if caller is None or not caller.task or f"{task}|".startswith(f"{caller.task}|"):
        return where
    way = "/".join(filter(None, (caller.turn, digest(caller.task)[:8], turn)))
    return replace(where, caller=caller.caller or caller.task, turn=way)


def _sent(config: RunnableConfig) -> bool:
    return tuple((config.get("metadata") or {}).get("langgraph_triggers") or ()) == ("__pregel_push",)


def _turn(task: str, step: object, checkpoints: Mapping[str, str]) -> str:
    """The steps and tasks that something happens in, from the outermost graph inwards.

    A step is known by the checkpoint that it began from. What a task starts itself is no step of a graph, and has its
    task's checkpoint: which of such tasks were started at once nobody tells, so each is a turn.
    """
    *outer, last = _TASK.findall(task) or [""]
    parts, space, before = list[str](), "", ""
    for name in outer:
        before = str(checkpoints.get(space, ""))
        parts += (before, name)
        space = f"{space}|{name}" if space else name
    here = str(checkpoints.get(space, step))
    return "/".join(digest(part)[:8] for part in (*parts, last if here == before else here))


class BlockedInGraph(GuardrailBlocked, GraphBubbleUp, RuntimeError):
    """A block raised inside a host. What retries or excuses errors in graphs and agents lets it through."""


def block_error(enforcer: Enforcer, decision: Decision) -> BlockedInGraph:
    """The exception for a block, which ends its run; at the door of a graph no run has gone on yet."""
    mark = enforcer.mark(decision)
    block = (mark["decision"], mark["stage"], mark["gate"], mark["reason"])
    if decision.event.where.run and decision.seam != GRAPH.name:
        enforcer.seat.latch.end(decision.event.where.run, block)
    return BlockedInGraph(*block)


def raise_block(enforcer: Enforcer, decision: Decision) -> NoReturn:
    """Raise the exception for a block."""
    raise block_error(enforcer, decision)


def can_pause(configurable: Mapping[str, object]) -> bool:
    """Whether an interrupt here can be resumed: inside a graph that has a checkpointer."""
    return bool(configurable.get("__pregel_checkpointer")) and "__pregel_scratchpad" in configurable


def channel(key: str) -> object:
    """What the surrounding graph keeps a key of its state in; None outside of a graph, or where it has no such key."""
    read = (ensure_config().get("configurable") or {}).get("__pregel_read")
    channels = next((each for each in getattr(read, "args", ()) if isinstance(each, Mapping) and key in each), {})
    return channels.get(key)


def pause(payload: dict[str, object], *, earlier: bool = False) -> None:
    """Pause the graph until it is resumed. What the resume brings along is ignored.

    With `earlier` it takes the value that an earlier pause of this task got, if there is one, and goes on.
    """
    try:
        interrupt(payload)
    except GraphInterrupt:
        if not earlier:
            raise


def pause_again(payload: dict[str, object], *, earlier: bool = False) -> None:
    """Like `pause`, in a task that has taken the values of its earlier pauses already."""
    if not earlier:
        pause(payload)


def on_behalf(config: RunnableConfig | None, actor: Actor | None) -> RunnableConfig:
    """The configuration for what runs inside of a seam that was made for an actor: no caller names another there."""
    config = config or {}
    if actor is None:
        return config
    return {**config, "configurable": {**(config.get("configurable") or {}), _ON_BEHALF: actor}}


def actor_from(configurable: Mapping[str, object], runtime: object) -> Actor:
    """The actor that the code around named, else the caller, in the runtime context or in `configurable`.

    It never comes from messages.
    """
    given = configurable.get(_ON_BEHALF)
    if isinstance(given, Actor):  # what came as JSON cannot be one
        return given
    context = getattr(runtime, "context", None)
    named = context.get("actor") if isinstance(context, Mapping) else getattr(context, "actor", None)
    named = named if named is not None else configurable.get("actor")
    if isinstance(named, Actor):
        return named
    if isinstance(named, str):
        return Actor(named)
    if isinstance(named, Mapping):
        roles = named.get("roles", ())
        known = [str(role) for role in roles] if isinstance(roles, list | tuple | set | frozenset) else []
        return Actor(str(named.get("id", "")), known, str(named.get("tenant", "")))
    return ANONYMOUS


def digest(value: object) -> str:
    """A short digest of a JSON-like value."""
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
    else:
        raw = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.blake2b(raw, digest_size=12).hexdigest()
