"""What a caller puts into a configuration does not make a handler look away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from chat import ScriptedModel, decisions, in_turn, make_guard
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import BaseTool, tool
from langgraph.graph import START, MessagesState, StateGraph

from guardrails_mw.errors import GuardrailBlocked

WORD = "gates: {word: {type: python, call: 'chat:codeword', cost: linear}}\nstages: {input: [word]}"


def test_the_mark_of_a_guarded_model_cannot_be_borrowed(tmp_path: Path) -> None:
    """Events show the metadata of guarded models; with them a caller does not get a bare one past its handler."""
    bare = ScriptedModel(script=in_turn("hi"))
    with make_guard(tmp_path, WORD) as guard:
        guarded = guard.model(ScriptedModel(script=in_turn("ok")))

        async def listen() -> list[object]:
            return [event async for event in guarded.astream_events("hello", version="v2")]

        seen = asyncio.run(listen())[0]["metadata"]
        with pytest.raises(GuardrailBlocked, match="codeword"):
            bare.invoke("swordfish", {"callbacks": guard.callbacks(), "metadata": seen})
        assert bare.calls == 0


def test_a_guarded_model_counts_once_under_a_handler_whatever_the_metadata_say(tmp_path: Path) -> None:
    """A caller cannot have a guarded model decided twice either."""
    with make_guard(tmp_path, "budgets: {run: {model_calls: 5}}") as guard:
        model = guard.model(ScriptedModel(script=in_turn("ok")))
        model.invoke("hello", {"callbacks": guard.callbacks(), "metadata": {"guardrails": 1}})
        assert len([row for row in decisions(guard) if row["stage"] == "model"]) == 1


def test_calls_under_one_id_are_counted_each(tmp_path: Path) -> None:
    """A caller that gives every call the id of the first pays for each, also after one that was blocked."""
    model, run_id = ScriptedModel(script=in_turn("hi")), uuid4()
    with make_guard(tmp_path, "budgets: {global: {model_calls: 2}}") as guard:
        for _ in range(5):
            with suppress(GuardrailBlocked):
                model.invoke("hello", {"callbacks": guard.callbacks(), "run_id": run_id})
        assert model.calls == 2


class Slow(ScriptedModel):
    """A model whose asynchronous answer nobody waits for."""

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
        await asyncio.sleep(60)
        return self._generate(messages)


def test_a_call_whose_end_nobody_told_hides_no_other(tmp_path: Path) -> None:
    """LangChain tells of no end of a cancelled call. Who tries again under its id is counted, by whichever handler."""
    model, run_id = ScriptedModel(script=in_turn("hi")), uuid4()
    with make_guard(tmp_path, "budgets: {global: {model_calls: 3}}") as guard:

        async def cancelled() -> None:
            config = {"callbacks": guard.callbacks(), "run_id": run_id}
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(Slow(script=in_turn("hi")).ainvoke("hello", config), 0.2)

        asyncio.run(cancelled())
        for _ in range(5):
            with suppress(GuardrailBlocked):
                model.invoke("hello", {"callbacks": guard.callbacks(), "run_id": run_id})
        assert model.calls == 2


def test_two_handlers_count_one_call_once(tmp_path: Path) -> None:
    """Handlers of one guard hear of one call at the same moment; the first counts it, of models and tools."""
    model, pay, paid = ScriptedModel(script=in_turn("hi")), *_paying()
    with make_guard(tmp_path, "budgets: {global: {model_calls: 3, tool_calls: 3}}\ntools: {pay: {}}") as guard:
        for number in range(5):
            config = {"callbacks": [*guard.callbacks(), *guard.callbacks()]}
            with suppress(GuardrailBlocked):
                model.invoke("hello", config)
            with suppress(GuardrailBlocked):
                pay.invoke({"much": number}, config)
        assert (model.calls, len(paid)) == (3, 3)


def _paying() -> tuple[BaseTool, list[int]]:
    paid: list[int] = []

    @tool
    def pay(much: int) -> str:
        """Pay."""
        paid.append(much)
        return "paid"

    return pay, paid


def _alone(pay: BaseTool, callbacks: Callable[[], list[object]], tool_call: object) -> None:
    run_id = uuid4()
    for _ in range(5):
        pay.invoke(tool_call, {"callbacks": callbacks(), "run_id": run_id})


def _in_a_node(pay: BaseTool, callbacks: Callable[[], list[object]], tool_call: object) -> None:
    def work(state: MessagesState) -> MessagesState:
        for _ in range(5):
            pay.invoke(tool_call, {"callbacks": callbacks()})
        return {"messages": [AIMessage("done")]}

    graph = StateGraph(MessagesState)
    graph.add_node("work", work)
    graph.add_edge(START, "work")
    graph.compile().invoke({"messages": "go"})


@pytest.mark.parametrize(
    "tool_call", [{"much": 1}, {"type": "tool_call", "id": "c1", "name": "pay", "args": {"much": 1}}]
)
@pytest.mark.parametrize("where", [_alone, _in_a_node])
def test_equal_calls_under_handlers_of_their_own_are_counted_each(
    tmp_path: Path, where: Callable[..., None], tool_call: object
) -> None:
    """One id for several runs, one id for several calls or none: a new handler for each does not make them one call."""
    pay, paid = _paying()
    with make_guard(tmp_path, "budgets: {global: {tool_calls: 3}}\ntools: {pay: {}}") as guard:
        with pytest.raises(GuardrailBlocked, match="tool_calls"):
            where(pay, guard.callbacks, tool_call)
        assert len(paid) == 3


def test_equal_calls_in_a_wrapped_chain_are_counted_each(tmp_path: Path) -> None:
    """A chain is one run, whichever handlers its steps bring along."""
    pay, paid = _paying()
    with make_guard(tmp_path, "budgets: {global: {tool_calls: 3}}\ntools: {pay: {}}") as guard:

        def work(_: str, config: RunnableConfig) -> str:
            for _ in range(5):
                pay.invoke(
                    {"type": "tool_call", "id": "c1", "name": "pay", "args": {"much": 1}},
                    {"callbacks": guard.callbacks()},
                )
            return "done"

        with pytest.raises(GuardrailBlocked, match="tool_calls"):
            guard.runnable(RunnableLambda(work)).invoke("go")
        assert len(paid) == 3
