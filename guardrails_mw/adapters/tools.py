"""Running a tool call under guard: decided before, gated after, asked about in between.

The middleware, the tool node and (without edits) the callbacks share this flow.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from langchain_core.messages import ToolCall as HostToolCall
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langgraph.errors import GraphBubbleUp
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from guardrails_mw.adapters.host import CALLING, Here, digest, pause, raise_block, tool_call
from guardrails_mw.enforcer import Enforcer, Pause
from guardrails_mw.event import Content, Event, Json, Origin, Stage, ToolCall
from guardrails_mw.seam import Power, Seam
from guardrails_mw.verdict import Decision, Outcome
from guardrails_mw.wait import Either

__all__ = [
    "ToolResult",
    "call_event",
    "guarded_call",
    "named",
    "never",
    "permitted",
    "rejection",
    "result_event",
    "unreachable",
]

ToolResult = ToolMessage | Command[object]
"""What a tool gives back to a graph."""


def call_event(call: ToolCall, here: Here) -> Event:
    """The event of a tool call, keyed so that it is the same when its node runs again."""
    key = here.key("call", here.where.task, call.id or digest([call.name, call.args]))
    return Event(Stage.TOOL_CALL, Content(call.args), Origin.MODEL, here.actor, here.where, call, key)


async def permitted(enforcer: Enforcer, call: ToolCall, here: Here, seam: Seam, pausing: Pause = pause) -> Decision:
    """Decide a call and have people asked; the result allows or blocks."""
    seam = seam if here.pausable else seam.without(Power.ASK)
    decision = await enforcer.deciding(call_event(call, here), seam)
    return await enforcer.answering(decision, seam, pausing)


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
        return rejection(enforcer, decision, request.tool_call, here)
    args = cast("dict[str, Json]", decision.content.value)
    changed = request.override(tool_call={**request.tool_call, "args": args})
    revealed = await enforcer.revealed(decision)
    if revealed is not decision.content and request.tool is not None:
        changed = changed.override(tool=_running_with(request.tool, args, cast("dict[str, Json]", revealed.value)))
    token = CALLING.set((id(enforcer), call.id))
    began = time.perf_counter()
    try:
        result = await execute(changed)
    except BaseException as error:
        if isinstance(error, GraphBubbleUp):
            enforcer.unclaim(decision)
        enforcer.engine.settle(decision, Outcome("unknown", time.perf_counter() - began))
        raise
    finally:
        CALLING.reset(token)
    enforcer.engine.settle(decision, Outcome("done", time.perf_counter() - began))
    return await _gated(enforcer, result, replace(call, args=args), request.tool_call, here, seam)


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


async def _gated(
    enforcer: Enforcer, result: ToolResult, call: ToolCall, host_call: HostToolCall, here: Here, seam: Seam
) -> ToolResult:
    """What the model may read of a result. The messages inside a command are gated too."""
    if isinstance(result, ToolMessage):
        return await _message(enforcer, result, call, host_call, here, seam)
    update = result.update
    messages = update.get("messages") if isinstance(update, dict) else None
    if not isinstance(messages, list):
        return result
    gated = [
        await _message(enforcer, message, call, host_call, here, seam) if isinstance(message, ToolMessage) else message
        for message in messages
    ]
    return replace(result, update={**update, "messages": gated}) if isinstance(update, dict) else result


async def _message(
    enforcer: Enforcer, message: ToolMessage, call: ToolCall, host_call: HostToolCall, here: Here, seam: Seam
) -> ToolMessage:
    message = named(message, here)
    decision = await enforcer.deciding(result_event(message, call, here), seam)
    if decision.blocked:
        return rejection(enforcer, decision, host_call, here)
    if not decision.edited:
        return message
    # The artifact holds the raw result and would carry along what was just removed.
    return message.model_copy(update={"content": enforcer.passed(decision).value, "artifact": None})


def named(message: ToolMessage, here: Here) -> ToolMessage:
    """The message with an id of its own, by which it is known again in the conversation."""
    if message.id is not None:
        return message
    return message.model_copy(update={"id": f"gm-{digest([here.where.task, message.tool_call_id, message.content])}"})


def result_event(message: ToolMessage, call: ToolCall, here: Here) -> Event:
    """The event of a tool's result, keyed as the model seam will key it when it reads the conversation."""
    key = here.key("result", message.tool_call_id, message.id or "")
    content = Content(message.content, blocks=True)
    return Event(Stage.TOOL_RESULT, content, Origin.TOOL, here.actor, here.where, call, key)


def rejection(enforcer: Enforcer, decision: Decision, call: HostToolCall, here: Here) -> ToolMessage:
    """What the model reads in place of a result: the reason code, or a nudge. Raises where the policy says so."""
    if enforcer.manners.raises(decision.stage):
        raise_block(enforcer, decision)
    message = ToolMessage(
        decision.verdict.note or f"blocked: {decision.verdict.reason}",
        tool_call_id=call["id"] or "",
        name=call["name"],
        status="error",
        additional_kwargs={"guardrails": enforcer.mark(decision)},
        id=f"gm-{decision.id}",
    )
    enforcer.vouch(result_event(message, tool_call(call), here), decision)
    return message


def never() -> ToolMessage:
    """Stands for the synchronous form of a call in a flow that is awaited."""
    raise RuntimeError("a flow was driven the wrong way")


async def unreachable() -> ToolMessage:
    """Stands for the asynchronous form of a call in a flow that is driven by hand."""
    raise RuntimeError("a flow was driven the wrong way")
