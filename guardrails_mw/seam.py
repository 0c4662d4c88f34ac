"""What each way of plugging in can carry out.

A seam is where guardrails meet a host: callbacks, a wrapped model, a middleware, graph nodes, a wrapped
graph or chain. Not every seam can do everything: a callback can block but not edit. A decision that a seam cannot
carry out becomes the policy's `on_unenforceable` verdict, so the table below is law, not documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Flag, auto

from guardrails_mw.event import Stage
from guardrails_mw.verdict import Action, Verdict

__all__ = ["ANYWHERE", "CALLBACKS", "GRAPH", "MIDDLEWARE", "MODEL", "NODES", "RUNNABLE", "SEAMS", "Power", "Seam"]


class Power(Flag):
    """What can be done about an event besides letting it pass."""

    BLOCK = auto()
    EDIT = auto()
    ASK = auto()


_ALL = Power.BLOCK | Power.EDIT | Power.ASK
_CHANGE = Power.BLOCK | Power.EDIT


@dataclass(frozen=True, slots=True)
class Seam:
    """A way of plugging in: the stages it reaches and its powers there.

    When the host streams, the stages in `late` are decided only after the stream was shown; gates at those in
    `unstreamable` make the stream itself unenforceable, before its first token.
    """

    name: str
    powers: Mapping[Stage, Power]
    note: str = ""
    late: frozenset[Stage] = frozenset()
    unstreamable: frozenset[Stage] = frozenset()

    def can(self, stage: Stage, power: Power) -> bool:
        """Whether it has this power at a stage."""
        return power in self.powers.get(stage, Power(0))

    def carries(self, stage: Stage, verdict: Verdict) -> bool:
        """Whether it can do what a verdict says."""
        if verdict.action is Action.BLOCK:
            return True
        if verdict.action is Action.ASK and not self.can(stage, Power.ASK):
            return False
        return self.can(stage, Power.EDIT) or not (verdict.edits or verdict.max_tokens is not None)

    def without(self, power: Power) -> Seam:
        """The same seam in a host that cannot do this, for example pause without a checkpointer."""
        return replace(self, powers={stage: powers & ~power for stage, powers in self.powers.items()})


ANYWHERE = Seam("guard", dict.fromkeys(Stage, _ALL), "the caller carries the decision out")
CALLBACKS = Seam(
    "callbacks",
    {
        Stage.INPUT: Power.BLOCK,
        Stage.MODEL: Power.BLOCK,
        Stage.OUTPUT: Power.BLOCK,
        Stage.TOOL_CALL: Power.BLOCK | Power.ASK,
        Stage.TOOL_RESULT: Power.BLOCK,
    },
    "always raises; a streamed answer cannot be called back, so with gates at output it is unenforceable",
    unstreamable=frozenset({Stage.OUTPUT}),
)
MODEL = Seam(
    "model",
    {
        Stage.INPUT: _CHANGE,
        Stage.MODEL: _CHANGE,
        Stage.OUTPUT: _CHANGE,
        Stage.TOOL_CALL: _CHANGE,
        Stage.TOOL_RESULT: _CHANGE,
    },
    "tool calls are checked as the model proposes them, unless a tool seam of the same guard does it",
)
MIDDLEWARE = Seam(
    "middleware",
    {
        Stage.INPUT: _ALL,
        Stage.MODEL: _ALL,
        Stage.OUTPUT: _CHANGE,
        Stage.TOOL_CALL: _ALL,
        Stage.TOOL_RESULT: _CHANGE,
    },
    "guards the agent's model and its tools; a model that another middleware calls itself takes guard.model()",
)
NODES = Seam(
    "nodes",
    {Stage.INPUT: _ALL, Stage.OUTPUT: _ALL, Stage.TOOL_CALL: _ALL, Stage.TOOL_RESULT: _CHANGE},
    "each node reaches its own stage; add guard.model() for the model stage and for streamed tokens",
    late=frozenset({Stage.OUTPUT}),
)
GRAPH = Seam(
    "graph",
    {Stage.INPUT: _CHANGE, Stage.TOOL_RESULT: _CHANGE},
    "decides what is handed in before the first checkpoint; the middleware or nodes inside do the rest",
)
RUNNABLE = Seam(
    "runnable",
    {
        Stage.INPUT: _CHANGE,
        Stage.MODEL: Power.BLOCK,
        Stage.OUTPUT: _CHANGE,
        Stage.TOOL_CALL: Power.BLOCK,
        Stage.TOOL_RESULT: Power.BLOCK,
    },
    "inner model and tool stages are reached by callbacks; wrap the model too to edit there",
)
SEAMS = (CALLBACKS, MODEL, MIDDLEWARE, NODES, GRAPH, RUNNABLE)
