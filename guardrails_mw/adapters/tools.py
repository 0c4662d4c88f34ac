"""Running a tool call under guard: decided before, gated after, asked about in between.

The middleware, the tool node and (without edits) the callbacks share this flow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import cast

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.errors import GraphInterrupt
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from guardrails_mw.adapters.host import CALLING, Calling, Here, pause
from guardrails_mw.adapters.messages import call_event, last_result, tool_call
from guardrails_mw.adapters.results import Ran, rejection
from guardrails_mw.enforcer import Enforcer, Pause
from guardrails_mw.event import Json, ToolCall
from guardrails_mw.seam import Power, Seam
from guardrails_mw.verdict import Action, Decision, Outcome, Remedy
from guardrails_mw.wait import Either, drive, drive_async

__all__ = [
    "ToolResult",
    "guarded_call",
    "permitted",
    "rejection",
]

ToolResult = ToolMessage | Command[object]  # and lists of them, which LangGraph's own types leave out
"""What a tool gives back to a graph."""

_QUESTIONS = 4
"""Limits that one call may run into one after the other, each with a question to a person."""
_QUOTED = 300
"""Characters of a repeated result that a nudge quotes."""


async def permitted(enforcer: Enforcer, call: ToolCall, here: Here, seam: Seam, pausing: Pause = pause) -> Decision:
    """Decide a call and have people asked; the result allows or blocks. A call that was tried before is another."""
    seam, event = here.within(seam), call_event(call, here)
    if tried := here.tries[event.key]:
        event = replace(event, key=f"{event.key}#{tried}", first=event.key)
    decision = await enforcer.deciding(event, seam)
    for _ in range(_QUESTIONS):
        ruled = await enforcer.answering(decision, seam, pausing, resuming=here.resuming)
        decision = await enforcer.granted(ruled)
        if decision.action is not Action.ASK:
            break
    return decision


async def guarded_call(
    enforcer: Enforcer,
    request: ToolCallRequest,
    here: Here,
    seam: Seam,
    execute: Callable[[ToolCallRequest], Either[ToolResult]],
    pausing: Pause = pause,
) -> ToolResult:
    """Run one tool call with everything that has to happen around it."""
    call = tool_call(request.tool_call, known=request.tool is not None)
    decision = await enforcer.begin(await permitted(enforcer, call, here, seam, pausing))
    if decision.blocked:
        return rejection(enforcer, _quoting(decision, request), request.tool_call, here)
    args = cast("dict[str, Json]", decision.content.value)
    changed = request.override(tool_call={**request.tool_call, "args": args})
    ran = Ran(enforcer, replace(call, args=args), request.tool_call, here, seam)
    here.tries[decision.event.first or decision.event.key] += 1
    if request.tool is not None:
        real = cast("dict[str, Json]", (await enforcer.revealed(decision)).value)
        changed = changed.override(tool=_guarded(request.tool, ran, real, _Again(ran, call)))
    token = CALLING.set(Calling(id(enforcer.seat), call.id))
    began = time.perf_counter()
    try:
        with here.enclosing():
            result = await ran.responded(execute(changed))
    except BaseException as error:
        if isinstance(error, GraphInterrupt):  # not a block raised inside: the tool may have had its effect
            enforcer.unclaim(decision)
        enforcer.engine.settle(decision, Outcome("unknown", time.perf_counter() - began, resumed=here.resuming))
        raise
    finally:
        CALLING.reset(token)
    await enforcer.engine.settling(decision, Outcome("done", time.perf_counter() - began, resumed=here.resuming))
    return cast("ToolResult", await ran.gated(result))


@dataclass(slots=True)
class _Again:
    """Leave for a tool to run once more within one call of it: somebody inside of the guard tries again.

    Nobody is asked about that: what runs already cannot pause as if it had not begun.
    """

    ran: Ran
    call: ToolCall
    begun: bool = False

    async def __call__(self) -> ToolMessage | None:
        """Nothing where it may run, else what it gives back instead."""
        begun, self.begun = self.begun, True
        if not begun:
            return None
        ran, enforcer = self.ran, self.ran.enforcer
        silent = ran.seam.without(Power.ASK)
        decision = await enforcer.begin(await permitted(enforcer, self.call, ran.here, silent))
        ran.here.tries[decision.event.first or decision.event.key] += 1
        if decision.blocked:
            return rejection(enforcer, decision, ran.host_call, ran.here)
        await enforcer.engine.settling(decision, Outcome("done"))  # its time is that of the call
        return None


def _guarded(tool: BaseTool, ran: Ran, real: dict[str, Json], again: _Again) -> BaseTool:
    """The tool for one call: its callbacks are shown decided arguments and results, and it runs with the real ones."""
    parse, run, arun = tool._parse_input, tool._run, tool._arun
    shown = ran.call.args

    def parsed(given: str | dict[str, object], call_id: str | None) -> str | dict[str, object]:
        if isinstance(given, dict) and real is not shown:
            given = {**real, **{name: value for name, value in given.items() if name not in shown}}
        return cast("str | dict[str, object]", drive(ran.responded(Either.only_here(lambda: parse(given, call_id)))))

    @wraps(run)
    def sync(*args: object, **kwargs: object) -> object:
        return drive(ran.responding(tool, Either.only_here(lambda: run(*args, **kwargs)), again))

    @wraps(arun)
    async def asynchronous(*args: object, **kwargs: object) -> object:
        return await drive_async(ran.responding(tool, Either.only_there(lambda: arun(*args, **kwargs)), again))

    mine = tool.model_copy()
    for name, method in (("_parse_input", parsed), ("_run", sync), ("_arun", asynchronous)):
        object.__setattr__(mine, name, method)  # between what its callbacks are told and what it does
    return mine


def _quoting(decision: Decision, request: ToolCallRequest) -> Decision:
    """A nudge with the result that the model keeps getting, as it stands in the conversation, so guarded."""
    state = request.state
    messages = state.get("messages", ()) if isinstance(state, Mapping) else getattr(state, "messages", state)
    verdict = decision.verdict
    if verdict.remedy is not Remedy.NUDGE or not isinstance(messages, Sequence):
        return decision
    result = last_result(messages, request.tool_call)
    if not result:
        return decision
    shown = result if len(result) <= _QUOTED else result[:_QUOTED] + "..."
    return replace(decision, verdict=replace(verdict, note=f"{verdict.note} The result was: {shown}"))
