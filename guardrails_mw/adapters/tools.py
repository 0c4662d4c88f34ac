"""Running a tool call under guard: decided before, gated after, asked about in between.

The middleware, the tool node and (without edits) the callbacks share this flow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from langchain_core.messages import ToolCall as HostToolCall
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.errors import GraphInterrupt
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from guardrails_mw.adapters.host import CALLING, Calling, Here, pause, raise_block
from guardrails_mw.adapters.messages import call_event, last_result, named, result_event, tool_call
from guardrails_mw.enforcer import Enforcer, Pause
from guardrails_mw.event import Json, ToolCall
from guardrails_mw.seam import Seam
from guardrails_mw.verdict import Decision, Outcome, Remedy
from guardrails_mw.wait import Either

__all__ = [
    "ToolResult",
    "guarded_call",
    "permitted",
    "rejection",
]

ToolResult = ToolMessage | Command[object]  # and lists of them, which LangGraph's own types leave out
"""What a tool gives back to a graph."""

_QUOTED = 300
"""Characters of a repeated result that a nudge quotes."""

_MAX_DEPTH = 3
"""A list of commands, an update, a list of messages: deeper is the tool's own data."""


async def permitted(enforcer: Enforcer, call: ToolCall, here: Here, seam: Seam, pausing: Pause = pause) -> Decision:
    """Decide a call and have people asked; the result allows or blocks."""
    seam = here.within(seam)
    decision = await enforcer.deciding(call_event(call, here), seam)
    return await enforcer.answering(decision, seam, pausing, resuming=here.resuming)


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
    revealed = await enforcer.revealed(decision)
    if revealed is not decision.content and request.tool is not None:
        changed = changed.override(tool=_running_with(request.tool, args, cast("dict[str, Json]", revealed.value)))
    token = CALLING.set(Calling(id(enforcer.seat), call.id))
    began = time.perf_counter()
    try:
        result = await execute(changed)
    except BaseException as error:
        if isinstance(error, GraphInterrupt):  # not a block raised inside: the tool may have had its effect
            enforcer.unclaim(decision)
        enforcer.engine.settle(decision, Outcome("unknown", time.perf_counter() - began))
        raise
    finally:
        CALLING.reset(token)
    enforcer.engine.settle(decision, Outcome("done", time.perf_counter() - began))
    run = _Run(enforcer, replace(call, args=args), request.tool_call, here, seam)
    return cast("ToolResult", await run.gated(result))


def _running_with(tool: BaseTool, shown: dict[str, Json], real: dict[str, Json]) -> BaseTool:
    """The tool for one call: its callbacks are shown some arguments, and it runs with the real ones."""
    parse = tool._parse_input

    def parsed(given: str | dict[str, object], call_id: str | None) -> str | dict[str, object]:
        if not isinstance(given, dict):
            return parse(given, call_id)
        injected = {name: value for name, value in given.items() if name not in shown}
        return parse({**real, **injected}, call_id)

    mine = tool.model_copy()
    object.__setattr__(mine, "_parse_input", parsed)  # where arguments are read, after callbacks were told
    return mine


@dataclass(frozen=True, slots=True)
class _Run:
    """A tool call that ran: `call` is what was run, `host_call` what the model asked for."""

    enforcer: Enforcer
    call: ToolCall
    host_call: HostToolCall
    here: Here
    seam: Seam

    async def gated(self, result: object, depth: int = 0) -> object:
        """What may be read of a result: every tool message in it is decided, also in lists and commands."""
        if isinstance(result, ToolMessage):
            return await self._message(result)
        if depth > _MAX_DEPTH:
            return result
        if isinstance(result, Command):
            return replace(result, update=await self.gated(result.update, depth + 1))
        if type(result) is dict:
            return {key: await self.gated(value, depth + 1) for key, value in result.items()}
        if type(result) is list:
            return [await self.gated(item, depth + 1) for item in result]
        return result

    async def _message(self, message: ToolMessage) -> ToolMessage:
        message = named(message, self.here)
        decision = await self.enforcer.deciding(result_event(message, self.call, self.here), self.seam)
        if decision.blocked:
            return rejection(self.enforcer, decision, self.host_call, self.here)
        if not decision.edited:
            return message
        # The artifact holds the raw result and would carry along what was just removed.
        return message.model_copy(update={"content": self.enforcer.passed(decision).value, "artifact": None})


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


def rejection(enforcer: Enforcer, decision: Decision, call: HostToolCall, here: Here) -> ToolMessage:
    """What the model reads in place of a result: the reason code, or a nudge. Raises where the policy says so."""
    if enforcer.manners.raises(decision.stage):
        raise_block(enforcer, decision)
    mark = enforcer.mark(decision)
    if decision.verdict.remedy is Remedy.END:
        mark["remedy"] = Remedy.END.value  # the next call of the model ends the run instead
    message = ToolMessage(
        decision.verdict.note or f"blocked: {decision.verdict.reason}",
        tool_call_id=call["id"] or "",
        name=call["name"],
        status="error",
        additional_kwargs={"guardrails": mark},
        id=f"gm-{decision.id}",
    )
    enforcer.vouch(result_event(message, tool_call(call), here), decision)
    return message
