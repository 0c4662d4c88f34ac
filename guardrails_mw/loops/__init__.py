"""Loops: when an agent goes round, and by what calls and results are known again.

From the bottom: `shapes` are what single words look like, `gist` is what a result says without what changes by
itself, `wording` whether two questions are the same, `traits` what a tool does and an answer means, `call` what a call
is known again by, `likeness` a step as it is remembered, `progress` what was news, `loop` the one pure function over
the last steps.
"""

from __future__ import annotations

from guardrails_mw.loops.call import call_key, tool_key
from guardrails_mw.loops.likeness import Habits, Step, step_of
from guardrails_mw.loops.loop import KINDS, WINDOW, Loop, LoopLimits, find_loop, first_loop

__all__ = [
    "KINDS",
    "WINDOW",
    "Habits",
    "Loop",
    "LoopLimits",
    "Step",
    "call_key",
    "find_loop",
    "first_loop",
    "step_of",
    "tool_key",
]
