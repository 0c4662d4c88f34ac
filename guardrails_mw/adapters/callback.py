"""Callbacks for an existing chain, graph or agent: they block, count and ask; they cannot edit.

The handler is synchronous, inline and raising: an asynchronous one would be silently skipped in every
synchronous call, and one that is not inline lets a streamed token out before it can stop anything. A block
raises; because retries and fallbacks swallow what is raised, a run that was blocked once stays blocked.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NoReturn
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langgraph.errors import GraphBubbleUp, GraphInterrupt, ParentCommand
from langgraph.types import Command

from guardrails_mw.adapters.answered import mark_of
from guardrails_mw.adapters.cargo import cargo
from guardrails_mw.adapters.forms import plain
from guardrails_mw.adapters.host import CALLING, BlockedInGraph, Here, Runs, block_error, digest, pause
from guardrails_mw.adapters.messages import (
    beside_event,
    call_event,
    last_answer,
    message_events,
    model_event,
    named,
    output_event,
    result_event,
    silent,
)
from guardrails_mw.adapters.model import GuardedChatModel
from guardrails_mw.adapters.underway import Open, Underway
from guardrails_mw.adapters.usage import length, offered, outcome, size
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Actor, Content, Event, Json, ModelCall, Origin, Stage, ToolCall
from guardrails_mw.generation import Seat
from guardrails_mw.seam import CALLBACKS, Seam
from guardrails_mw.verdict import Decision, Outcome
from guardrails_mw.wait import drive

__all__ = ["GuardrailsHandler"]


_GUARDED = [*GuardedChatModel.get_lc_namespace(), GuardedChatModel.__name__]
"""How LangChain names a guarded model to handlers."""


class GuardrailsHandler(BaseCallbackHandler):
    """Decides every stage that callbacks reach. Made by `Guard.callbacks`.

    Args:
        seat: who decides.
        runs: tells runs apart.
        actor: for whom; read from the graph's configuration if left out.
        seam: the stages to decide; a wrapped chain leaves input and output to its wrapper.
    """

    raise_error = True
    run_inline = True

    def __init__(self, seat: Seat, runs: Runs, actor: Actor | None = None, seam: Seam = CALLBACKS) -> None:
        self._seat, self._runs, self._actor, self._seam = seat, runs, actor, seam
        self._underway = Underway()

    # every run is noted, so that the top-level run of each is known

    def on_chain_start(
        self,
        serialized: object,
        inputs: object,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
        **_: object,
    ) -> None:
        """Note where the run belongs, and at the top whether it takes up again what was left off."""
        top = self._underway.begun(run_id, parent_run_id).top
        if parent_run_id is None:
            top.resuming = inputs is None or isinstance(inputs, Command)
            top.thread = str((metadata or {}).get("thread_id") or "")

    def on_chain_end(self, outputs: object, *, run_id: UUID, **_: object) -> None:
        """Decide an agent's structured answer; at the end of the top-level run, raise the block that was swallowed."""
        entry = self._underway.over(run_id)
        if entry is not None and Stage.OUTPUT in self._seam.powers:
            with self._failing_closed(entry):
                for answer in _structured(outputs):
                    here, content = self._here(entry), Content(plain(answer))
                    key = ("output", "structured", digest(content.value))
                    self._decide(here.event(Stage.OUTPUT, Origin.MODEL, content, *key), here, entry)
        if entry is not None and entry.root == run_id and (block := self._underway.forget(run_id)):
            raise BlockedInGraph(*block)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        """Forget the run."""
        entry = self._underway.over(run_id)
        if entry is not None and entry.root == run_id:
            self._underway.forget(run_id)

    def on_chat_model_start(
        self,
        serialized: Mapping[str, object] | None,
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        """Decide what goes into the model, and whether it may be called."""
        entry = self._underway.begun(run_id, parent_run_id)
        made = (serialized or {}).get("id")  # metadata alone could be anybody's
        if made == _GUARDED and (metadata or {}).get("guardrails") == id(self._seat):
            entry.guarded = True
            return
        entry.structured = "ls_structured_output_format" in (kwargs.get("options") or ())  # type: ignore[operator]
        with self._failing_closed(entry):
            here = self._here(entry)
            flat = [message for batch in messages for message in batch]
            self._inputs(flat, here, entry)
            entry.name = self._enforcer(entry).engine.fresh_id()
            told = kwargs.get("prompts", messages)
            if self._seat.hearing.counts(str(run_id), told, self):  # else another handler of this guard counts it
                params: Mapping[str, object] = kwargs.get("invocation_params") or {}  # type: ignore[assignment]
                try:
                    self._model(flat, here, entry, {**params, **(metadata or {})})
                except BaseException:
                    self._seat.hearing.over(str(run_id), self)  # LangChain tells of no end
                    raise

    def on_llm_start(
        self,
        serialized: Mapping[str, object] | None,
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        """Decide what goes into a model that takes plain text."""
        self.on_chat_model_start(
            serialized,
            [[HumanMessage(prompt) for prompt in prompts]],
            run_id=run_id,
            parent_run_id=parent_run_id,
            metadata=metadata,
            prompts=prompts,
        )

    def on_llm_new_token(self, token: str, *, run_id: UUID, **_: object) -> None:  # type: ignore[override]
        """Stop a stream whose end has yet to be decided: a callback cannot call back what was shown."""
        entry = self._underway.get(run_id)
        if entry is None or entry.guarded or entry.streaming or Stage.OUTPUT not in self._seam.powers:
            return
        entry.streaming = True
        with self._failing_closed(entry):
            here = entry.here or self._here(entry)
            event = here.event(Stage.OUTPUT, Origin.MODEL, Content(None), "stream", str(run_id))
            decision = drive(self._enforcer(entry).engine.streaming(event, self._seam))
            if decision is not None and decision.blocked:
                self._trip(decision, entry)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: object) -> None:
        """Settle what the call cost, then decide what came out."""
        self._seat.hearing.over(str(run_id), self)
        entry = self._underway.over(run_id)
        if entry is None or entry.guarded:
            return
        with self._failing_closed(entry):
            answers = [_message(generation) for batch in response.generations for generation in batch]
            seconds, told = time.perf_counter() - entry.began, response.llm_output
            self._settle(entry, outcome(answers, entry.asked, seconds, told=told, cached=True))
            here = entry.here or self._here(entry)
            for index, answer in enumerate(answers):
                key = f"{entry.name or run_id}.{index}"
                if not silent(answer):
                    self._decide(output_event(answer, here, key), here, entry)
                if entry.structured and isinstance(answer, AIMessage):  # what looks like a call is the answer
                    for number, call in enumerate(answer.tool_calls):
                        said = ("call", key, call["id"] or str(number))
                        self._decide(here.event(Stage.OUTPUT, Origin.MODEL, Content(call["args"]), *said), here, entry)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        """The call may have cost money: what it holds is charged."""
        self._seat.hearing.over(str(run_id), self)
        entry = self._underway.over(run_id)
        if entry is not None:
            self._settle(entry, Outcome("unknown", time.perf_counter() - entry.began))

    def on_tool_start(
        self,
        serialized: Mapping[str, object] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        inputs: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        """Decide a tool call and have people asked, before the tool runs."""
        entry = self._underway.begun(run_id, parent_run_id)
        name = str((serialized or {}).get("name") or kwargs.get("name") or "")  # the latter names the run
        call_id = str(kwargs.get("tool_call_id") or "")
        calling = CALLING.get()
        if call_id and calling is not None and calling.covers(id(self._seat), call_id, str(run_id)):
            entry.guarded, entry.calling = True, calling
            return
        with self._failing_closed(entry):
            here = self._here(entry)
            args: Mapping[str, Json] = inputs if inputs is not None else {"input": input_str}  # type: ignore[assignment]
            entry.call = ToolCall(name, args, call_id or ("" if here.where.task else str(run_id)))
            known = mark_of({"name": name, "args": dict(args), "id": call_id})
            if call_id and self._seat.permits.take(here.where.run, known):
                return
            event = call_event(entry.call, here)
            least = self._underway.turn(entry.root, event.key)
            scope = here.tries if here.invoked else here.where.run
            entry.turn = self._seat.hearing.turn(scope, event.key, serialized, least)
            if entry.turn:
                event = replace(event, key=f"{event.key}#{entry.turn}")
            decision = self._decide(event, here, entry)
            if decision is None:
                return
            decision = drive(self._enforcer(entry).begin(decision))
            if decision.blocked:
                self._trip(decision, entry)
            entry.decision = decision

    def on_tool_end(self, output: object, *, run_id: UUID, **_: object) -> None:
        """Decide what the tool gave back."""
        entry = self._underway.over(run_id)
        if entry is None or entry.guarded:
            return
        with self._failing_closed(entry):
            self._settle(entry, Outcome("done", time.perf_counter() - entry.began))
            self._brought(output, entry, run_id)

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **_: object) -> None:
        """The tool may have had its effect: what the call holds is charged."""
        entry = self._underway.over(run_id)
        if entry is None:
            return
        if isinstance(error, GraphInterrupt) and entry.decision is not None:
            self._enforcer(entry).unclaim(entry.decision)
        self._settle(entry, Outcome("unknown", time.perf_counter() - entry.began))
        if isinstance(error, ParentCommand) and not entry.guarded:  # no failure: it writes into the graph around
            with self._failing_closed(entry):
                self._brought(error.args[0], entry, run_id)

    # the parts of a hook

    def _inputs(self, messages: Sequence[BaseMessage], here: Here, entry: Open) -> None:
        answered = last_answer(messages)
        kept = self._enforcer(entry).manners.blocked_messages == "keep"
        for index, event in message_events(messages, here):
            if index > answered or event.stage is Stage.TOOL_RESULT:
                self._decide(event, here, entry)
            elif not kept:  # callers may bring a history that was never decided
                self._decide(event, here, entry, earlier=True)

    def _brought(self, output: object, entry: Open, run_id: UUID) -> None:
        """Decide what a tool brought, and what stands beside it."""
        here = entry.here or self._here(entry)
        call = entry.call or ToolCall("", id=str(run_id))
        message = output if isinstance(output, ToolMessage) else ToolMessage(_readable(output), tool_call_id=call.id)
        if entry.turn and message.id is None:
            message = message.model_copy(update={"id": f"gm-{digest([str(run_id), message.content])}"})
        message = named(message, here)
        if isinstance(output, ToolMessage):
            output.id = message.id  # so that it is known again in the conversation
        self._decide(result_event(message, call, here), here, entry)
        if beside := cargo(message):
            self._decide(beside_event(message, beside, call.id, here), here, entry)

    def _model(self, messages: Sequence[BaseMessage], here: Here, entry: Open, metadata: Mapping[str, object]) -> None:
        answers = length(metadata.get("n")) or 1
        call = ModelCall(
            str(metadata.get("ls_model_name") or metadata.get("ls_provider") or ""),
            size(*messages) + offered(metadata),
            length(metadata.get("ls_max_tokens")) * answers,
            answers=answers,
        )
        entry.decision = self._decide(model_event(call, here, entry.name), here, entry)

    def _decide(self, event: Event, here: Here, entry: Open, earlier: bool = False) -> Decision | None:
        """Decide one event; None where this handler leaves the stage to somebody else.

        What stands in place of an `earlier` message that was blocked refuses nothing.
        """
        if event.stage not in self._seam.powers:
            return None
        if block := self._underway.ended(entry.root):
            raise BlockedInGraph(*block)
        seam = here.within(self._seam)
        enforcer = self._enforcer(entry)
        decision = drive(enforcer.deciding(event, seam))
        if earlier and decision.event.content.value != event.content.value:
            return decision
        decision = drive(enforcer.answering(decision, seam, pause, resuming=here.resuming))
        if decision.blocked:
            self._trip(decision, entry)
        return decision

    def _trip(self, decision: Decision, entry: Open) -> NoReturn:
        """Raise the block, and whenever this top-level run goes on in spite of it raise it again."""
        block = block_error(self._enforcer(entry), decision)
        self._latch(entry, block)
        raise block

    def _latch(self, entry: Open, block: BlockedInGraph) -> None:
        entry.enforcer = None  # decides no more, and LangChain may never say that this call has ended
        self._underway.end(entry.root, (block.decision_id, block.stage, block.gate, block.reason))

    @contextmanager
    def _failing_closed(self, entry: Open) -> Iterator[None]:
        """Turn every failure of the handler itself into a block: LangChain skips a hook that fails oddly."""
        try:
            yield
        except GraphBubbleUp:
            raise
        except Exception:  # noqa: BLE001 - whatever failed, nothing was decided
            block = BlockedInGraph("", "", "callbacks", "error.callback")
            self._latch(entry, block)
            raise block from None

    def _settle(self, entry: Open, outcome: Outcome) -> None:
        if entry.decision is not None:
            resumed = entry.here is not None and entry.here.resuming
            self._enforcer(entry).engine.settle(entry.decision, replace(outcome, resumed=resumed))
            entry.decision = None

    def _enforcer(self, entry: Open) -> Enforcer:
        """Who decides a call from its start to its end."""
        entry.enforcer = entry.enforcer or self._seat.enforcer
        return entry.enforcer

    def _here(self, entry: Open) -> Here:
        top = entry.top
        here = entry.here = drive(self._runs.here(str(top.root), self._actor, resuming=top.resuming, within=top.here))
        if top.here is None and here.where.thread == top.thread:
            top.here = here
        return here


def _structured(outputs: object) -> Iterator[object]:
    """The structured answers in what a node of an agent gives back."""
    if isinstance(outputs, list | tuple):
        for each in outputs:
            yield from _structured(each)
    update = outputs.update if isinstance(outputs, Command) else outputs
    if isinstance(update, Mapping) and update.get("structured_response") is not None:
        yield update["structured_response"]


def _readable(output: object) -> str:
    """What a plain function gave back, as the text that the model will read."""
    return output if isinstance(output, str) else json.dumps(output, default=str, ensure_ascii=False)


def _message(generation: Generation) -> BaseMessage:
    """What a model answered; also the answer of one that gives plain text."""
    return generation.message if isinstance(generation, ChatGeneration) else AIMessage(generation.text)
