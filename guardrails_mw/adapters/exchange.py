"""One exchange with a model: what goes in, leave to call it, what it cost, what came out.

The guarded model runs it for every call, whichever way LangChain makes that call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.messages import ToolCall as HostToolCall
from langchain_core.outputs import ChatGeneration, ChatResult

from guardrails_mw.account import task_of
from guardrails_mw.adapters.answered import call_decided, mark_of
from guardrails_mw.adapters.chunks import settled
from guardrails_mw.adapters.failures import ModelFailed, heard, words_of
from guardrails_mw.adapters.forms import in_form_of, plain
from guardrails_mw.adapters.host import Here, digest, pause
from guardrails_mw.adapters.messages import (
    beside_said,
    ended,
    last_answer,
    message_events,
    model_event,
    output_event,
    refusal_message,
    silent,
    so_far,
    tool_call,
    with_answer,
    with_beside_said,
    with_content,
)
from guardrails_mw.adapters.metadata import folded, technical, unfolded, unscored
from guardrails_mw.adapters.proposal import with_calls
from guardrails_mw.adapters.reading import ENTERED, Reading
from guardrails_mw.adapters.target import Target
from guardrails_mw.adapters.usage import outcome
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Content, Event, ModelCall, Origin, Stage, ToolCall
from guardrails_mw.seam import MIDDLEWARE, Seam
from guardrails_mw.stream import Shown
from guardrails_mw.verdict import Action, Decision, Outcome, Remedy
from guardrails_mw.wait import Either

__all__ = ["MAX_REASKS", "Exchange", "Way", "sent_back"]

Way = Callable[[Target, list[BaseMessage]], Either[ChatResult]]
"""A way of having a whole answer: `Target.whole` or `Target.gathered`."""

MAX_REASKS = 5
_QUESTIONS = 4
"""Limits that one call may run into one after the other, each with a question to a person."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Everything that has to happen around a call of one model.

    Attributes:
        here: where the call is made.
        answers: names of tools whose arguments are the agent's answer, not calls.
        cheaper: the model that is called where a budget says so.
        decided: marks of proposed calls that another exchange has decided.
    """

    enforcer: Enforcer
    seam: Seam
    here: Here
    answers: frozenset[str] = frozenset()
    cheaper: BaseChatModel | None = None
    decided: Collection[str] = ()

    async def read(self, messages: Sequence[BaseMessage], *, system: bool = False) -> Reading:
        """Decide what others wrote; what was decided a moment ago is taken over. Asks nobody and refuses nothing.

        With `system` messages that call themselves so are others' too.
        """
        earlier = ENTERED.get()
        if earlier is not None and earlier.enforcer is self.enforcer:
            known = earlier.reading.again(messages)
            if known is not None:
                return known
        cleaned, decisions = list(messages), dict[int, Decision]()
        seam = self.here.within(self.seam)
        for index, event in message_events(messages, self.here, system=system):
            decision = decisions[index] = await self.enforcer.deciding(event, seam)
            if decision.blocked or decision.edited:
                cleaned[index] = with_content(messages[index], self.enforcer.passed(decision).value)
            if event.stage is Stage.INPUT and beside_said(messages[index]):
                cleaned[index], decisions[index] = await self._beside(cleaned[index], decision, seam)
        return Reading(cleaned, decisions)

    async def _beside(self, message: BaseMessage, decision: Decision, seam: Seam) -> tuple[BaseMessage, Decision]:
        """The message with what its author put beside the content, decided like it, and the stricter decision."""
        if decision.blocked:
            return with_beside_said(message, {}), decision
        found = beside_said(message)
        said = replace(decision.event, content=Content(plain(found)), key=f"{decision.event.key}|beside")
        other = await self.enforcer.deciding(said, seam)
        if other.blocked:
            message = with_beside_said(message, {})
        elif other.edited:
            message = with_beside_said(message, in_form_of(found, self.enforcer.passed(other).value))
        return message, max(decision, other, key=lambda each: each.action)

    def named(self) -> str:
        """A name that tells a call from all others. Not the host's: callers may give several runs one id."""
        return self.enforcer.engine.fresh_id()

    async def run(self, messages: Sequence[BaseMessage], target: Target, way: Way) -> ChatResult:
        """The model's answer, or a refusal."""
        name = self.named()
        checked, refused = await self.checked(messages)
        if refused is not None:
            return self.refused(refused, messages)
        if (end := ended(self.enforcer, messages)) is not None:
            return ChatResult(generations=[ChatGeneration(message=end)])
        for number in range(MAX_REASKS + 1):
            result, block = await self._attempt(checked, f"{name}#{number}", target, way)
            if block is None:
                return result
            if block.stage is Stage.MODEL or number >= min(self.enforcer.engine.reasks(block), MAX_REASKS):
                return self.refused(block, messages)
            checked += sent_back(result.generations[0].message, block.verdict.note)
        raise AssertionError("the last round returns")

    async def foreign(self, message: AIMessage, name: str, target: Target | None) -> tuple[AIMessage, bool]:
        """An answer that was had past this exchange, as it may go on, and whether it is a refusal instead.

        It is decided after the fact, and counted as a call of the `target`; without one it was counted before.
        """
        if target is not None:
            asked = replace(target.asked([]), limitable=False)
            permit = await self.enforcer.engine.deciding(model_event(asked, self.here, name), self.seam)
            if permit.blocked:
                return refusal_message(self.enforcer, permit), True
            await self.enforcer.engine.settling(permit, outcome([message], 0, 0.0))
        answer, block = await self.answer(message, name)
        return (refusal_message(self.enforcer, block), True) if block else (cast("AIMessage", answer), False)

    async def checked(self, messages: Sequence[BaseMessage]) -> tuple[list[BaseMessage], Decision | None]:
        """The messages as the model may see them, and the block on what was said last, if there is one.

        What was blocked earlier in the conversation stays out of the model's sight and refuses nothing.
        """
        reading, seam = await self.read(messages), self.here.within(self.seam)
        answered, checked = last_answer(messages), list(reading.messages)
        for index, decision in reading.decisions.items():
            if decision.stage is Stage.INPUT and (index > answered or decision.action is Action.ASK):
                ruled = await self.enforcer.answering(decision, seam, pause, resuming=self.here.resuming)
                if ruled.blocked and index > answered:
                    return reading.messages, ruled
                if ruled.blocked:
                    checked[index] = with_content(checked[index], self.enforcer.passed(ruled).value)
            elif index > answered and decision.blocked and self.enforcer.manners.raises(decision.stage):
                return reading.messages, decision
        return checked, None

    async def leave(self, messages: list[BaseMessage], attempt: str, target: Target) -> tuple[Decision, Target]:
        """Leave to make a call, and the call as it may be made: with a shorter answer, or of the cheaper model."""
        engine, seam = self.enforcer.engine, self.here.within(self.seam)
        asked = target.asked(messages) if engine.serves(Stage.MODEL) else ModelCall("")  # it takes longer than a gate
        event = model_event(asked, self.here, attempt)
        permit = await engine.deciding(event, seam)
        for _ in range(_QUESTIONS):
            if permit.action is not Action.ASK:
                break
            ruled = await self.enforcer.answering(_question(permit), seam, pause, resuming=self.here.resuming)
            if ruled.blocked:
                return ruled, target
            await engine.granting(permit, ruled.approval)
            # the claim alone: where somebody else has it, the cap is raised all the same
            await self.enforcer.begin(replace(ruled, checks=()))
            permit = await engine.deciding(event, seam)
        cheaper = self.cheaper if permit.verdict.remedy is Remedy.CHEAPER else None
        if permit.blocked and cheaper is not None and cheaper is not target.model:
            return await self.leave(messages, f"{attempt}|cheaper", replace(target, model=cheaper))
        return permit, target.limited(None if permit.shadow else permit.verdict.max_tokens)

    async def _attempt(
        self, messages: list[BaseMessage], attempt: str, target: Target, way: Way
    ) -> tuple[ChatResult, Decision | None]:
        """Ask for leave, call, settle, look at the answer. The decision is the one that blocked, if any."""
        permit, target = await self.leave(messages, attempt, target)
        if permit.action > Action.FLAG:
            return ChatResult(generations=[]), permit
        began = time.perf_counter()
        try:
            result = await heard(way(target, messages), self.failing)
        except BaseException:
            self.enforcer.engine.settle(permit, Outcome("unknown", time.perf_counter() - began))
            raise
        if permit.held:
            answers = [generation.message for generation in result.generations]
            asked, seconds = cast("ModelCall", permit.event.call).input_tokens, time.perf_counter() - began
            used = outcome(answers, asked, seconds, told=result.llm_output)
            await self.enforcer.engine.settling(permit, used)
        return await self._answers(result, attempt)

    async def _answers(self, result: ChatResult, attempt: str) -> tuple[ChatResult, Decision | None]:
        """A result as it may go on. LangChain puts what was told of a call into the metadata of its only answer."""
        generations, told = list[ChatGeneration](), result.llm_output or {}
        for index, generation in enumerate(result.generations):
            info = generation.generation_info
            if told and len(result.generations) == 1:
                info = {**told, **(info or {})}
            said = generation.message
            said = folded(settled(said) if isinstance(said, AIMessage) else said, info)
            message, block = await self.answer(said, f"{attempt}.{index}")
            if block is not None:
                return result, block
            generations.append(ChatGeneration(message=message, generation_info=unfolded(message, info)))
        return ChatResult(generations=generations, llm_output=technical(told)), None

    async def failing(self, error: Exception) -> Exception:
        """A model's exception as it may be heard: providers repeat what they were sent. It meets edits only."""
        event = self.here.event(Stage.OUTPUT, Origin.MODEL, Content(words_of(error)), "error")
        decision = await self.enforcer.engine.deciding(event, self.seam, edits_only=True)
        if decision.blocked:
            return ModelFailed(f"blocked: {decision.verdict.reason}")
        return ModelFailed(cast("list[str]", decision.content.value)[0]) if decision.edited else error

    async def answer(
        self, message: BaseMessage, key: str, shown: Shown | None = None
    ) -> tuple[BaseMessage, Decision | None]:
        """Decide the answer's content, of which some was `shown`, and, where no tool seam will, its tool calls."""
        if not silent(message):
            decision = await self.enforcer.deciding(output_event(message, self.here, key), self.seam, shown=shown)
            if decision.blocked:
                return message, decision
            if decision.edited:
                message = with_answer(message, decision.content.value)
        if isinstance(message, AIMessage) and message.invalid_tool_calls:
            message, block = await self._unparsed(message, key)
            if block is not None:
                return message, block
        if isinstance(message, AIMessage) and message.tool_calls:
            return await self._proposed(message, key)
        return message, None

    async def _proposed(self, message: AIMessage, key: str) -> tuple[BaseMessage, Decision | None]:
        """Decide what the model wants to call, as far as this seam has to.

        Calls that a tool seam decides are only edited here, before anybody keeps the message: what that seam
        decides, and its tool gets, is what the message says.
        """
        calls, engine, permits = list[HostToolCall](), self.enforcer.engine, list[tuple[HostToolCall, Decision]]()
        for index, call in enumerate(message.tool_calls):
            decided, block = await self._proposal(call, key, index, permits)
            if block is not None:  # none of them runs
                for _, permit in permits:
                    await engine.settling(permit, Outcome("released"))
                return message, block
            calls.append(decided)
        for call, permit in permits:
            await engine.settling(permit, Outcome("done"))
            call_decided(self.enforcer.seat, call)
            self.enforcer.seat.permits.give(self.here.where.run, mark_of(call))
        return (message if calls == message.tool_calls else with_calls(message, calls)), None

    async def _proposal(
        self, call: HostToolCall, key: str, index: int, permits: list[tuple[HostToolCall, Decision]]
    ) -> tuple[HostToolCall, Decision | None]:
        """One call as it may be proposed, and the decision that blocked it, if one did; another joins the `permits`."""
        if self.decided and mark_of(call) in self.decided:
            return call, None
        enforcer = self.enforcer
        elsewhere = self.seam.name == MIDDLEWARE.name or call["name"] in enforcer.seat.tool_seam
        if elsewhere and call["name"] not in self.answers:
            if not enforcer.engine.editing(Stage.TOOL_CALL):
                return call, None
            edited = await enforcer.engine.deciding(self._call_event(call, key, index), self.seam, edits_only=True)
            return (_with_args(call, edited) if edited.edited else call), edited if edited.blocked else None
        decision = await enforcer.deciding(self._call_event(call, key, index), self.seam)
        if decision.blocked:
            return call, decision
        call = _with_args(call, decision)
        permits.append((call, decision))
        return call, None

    async def _unparsed(self, message: AIMessage, key: str) -> tuple[AIMessage, Decision | None]:
        """The answer with what was edited in calls that could not be parsed; nobody runs those."""
        calls = []
        for index, call in enumerate(message.invalid_tool_calls):
            named = ToolCall(call["name"] or "", {}, call["id"] or "", valid=False)
            content, name = Content(call["args"] or ""), ("invalid", key, named.id or str(index))
            event = self.here.event(Stage.TOOL_CALL, Origin.MODEL, content, *name, call=named)
            edited = await self.enforcer.engine.deciding(event, self.seam, edits_only=True)
            if edited.blocked:
                return message, edited
            calls.append({**call, "args": str(edited.content.value)} if edited.edited else call)
        if calls == message.invalid_tool_calls:
            return message, None
        return unscored(message.model_copy(update={"invalid_tool_calls": calls})), None

    def _call_event(self, call: HostToolCall, key: str, index: int) -> Event:
        """A proposed call; one that carries the agent's answer is output."""
        content, name = Content(call["args"]), ("call", key, str(index), call.get("id") or "")
        if call["name"] in self.answers:
            return self.here.event(Stage.OUTPUT, Origin.MODEL, content, *name)
        return self.here.event(Stage.TOOL_CALL, Origin.MODEL, content, *name, call=tool_call(call))

    def refused(self, block: Decision, messages: Sequence[BaseMessage] = ()) -> ChatResult:
        """A refusal in place of an answer in a conversation. Raises where the policy says so."""
        refusal = refusal_message(self.enforcer, block, so_far(messages) if block.stage is Stage.MODEL else "")
        return ChatResult(generations=[ChatGeneration(message=refusal)])


def _question(permit: Decision) -> Decision:
    """A question to a person about a limit: the same whenever the call is tried again, another once it was raised."""
    facts = dict(permit.verdict.facts)
    asked = Content({"limit": permit.verdict.reason, "cap": facts.get("cap", 0)})
    event = permit.event
    where, actor = event.where, event.actor
    whose = digest([where.thread, where.run, task_of(where), where.agent, actor.tenant, actor.id])
    key = f"{whose}|raise|{permit.verdict.reason}|{facts.get('cap', 0)}"  # an answer raises no other account
    if "resets" in facts:
        key += f"|{facts['resets']}"
    return replace(permit, event=replace(event, content=asked, key=key), content=asked, would=asked)


def _with_args(call: HostToolCall, decision: Decision) -> HostToolCall:
    return {**call, "args": cast("dict[str, object]", decision.content.value)}


def sent_back(answer: BaseMessage, note: str) -> list[BaseMessage]:
    """The answer and what is wrong with it, as a conversation goes on.

    Providers take no empty answer, and no call without a result.
    """
    if isinstance(answer, AIMessage) and answer.tool_calls:
        results = [ToolMessage(note, tool_call_id=call["id"] or "", status="error") for call in answer.tool_calls]
        return [answer, *results]
    return [*([AIMessage(answer.content)] if answer.content else ()), HumanMessage(note)]
