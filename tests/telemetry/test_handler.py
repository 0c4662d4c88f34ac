"""One tree for a run, whatever way it is called."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable, Iterator
from typing import Annotated, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from guardrails_mw.errors import GuardrailBlocked
from guardrails_mw.event import Content, Event, Stage, Where
from guardrails_mw.telemetry.otel import Tracing
from guardrails_mw.verdict import Check, Decision, Verdict, combine

SECRET = "CANARY-123456"


class Scripted(BaseChatModel):
    """Says what it was given, in order; streams it in two pieces."""

    answers: Iterator[AIMessage]

    @property
    def _llm_type(self):
        return "scripted"

    def bind_tools(self, tools, **kwargs):
        return self

    def _get_ls_params(self, stop=None, **kwargs):
        return {"ls_provider": "tests", "ls_model_name": "scripted", "ls_model_type": "chat"}

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=next(self.answers))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        answer = next(self.answers)
        text = answer.text
        calls = [
            {"name": c["name"], "args": json.dumps(c["args"]), "id": c["id"], "index": i, "type": "tool_call_chunk"}
            for i, c in enumerate(answer.tool_calls)
        ]
        yield ChatGenerationChunk(message=AIMessageChunk(text[:3]))
        last = AIMessageChunk(text[3:], tool_call_chunks=calls, usage_metadata=answer.usage_metadata)
        yield ChatGenerationChunk(message=last)


def scripted(*answers: AIMessage) -> Scripted:
    return Scripted(answers=iter(answers))


def call(name: str, **args: object) -> AIMessage:
    usage = {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
    calls = [{"name": name, "args": args, "id": uuid.uuid4().hex}]
    return AIMessage("", tool_calls=calls, usage_metadata=usage, response_metadata={"model_name": "scripted-2"})


def emit(tracing: Tracing, gate: str, verdict: Verdict | None = None, where: Where | None = None) -> None:
    """A decision from inside a run, placed the way an adapter places it: under the host's current run."""
    if where is None:
        config = var_child_runnable_config.get() or {}
        where = Where(span=str(getattr(config.get("callbacks"), "parent_run_id", None) or ""))
    check = Check(gate, verdict or Verdict.allow())
    content = Content("x")
    event = Event(Stage.INPUT, content, where=where)
    verdict = combine([check])
    tracing.observe(Decision("d", event, verdict.action, verdict, (check,), content, content, "p", 0.0))


class Gates(AgentMiddleware):
    """Decides before each model call, inside the model's node."""

    def __init__(self, tracing: Tracing) -> None:
        super().__init__()
        self.tracing = tracing

    def wrap_model_call(self, request, handler):
        emit(self.tracing, "model_gate")
        return handler(request)

    async def awrap_model_call(self, request, handler):
        await asyncio.sleep(0)
        emit(self.tracing, "model_gate")
        return await handler(request)


def shop(tracing: Tracing):
    @tool
    def weather(city: str) -> str:
        """The weather."""
        emit(tracing, "tool_gate")
        return f"sunny in {city}"

    model = scripted(call("weather", city="Oslo"), AIMessage("It is sunny."))
    return create_agent(model, [weather], middleware=[Gates(tracing)], name="shop")


ASKED = {"messages": [HumanMessage("weather?")]}


def run_sync(agent, config) -> None:
    agent.invoke(ASKED, config)


def run_stream(agent, config) -> None:
    list(agent.stream(ASKED, config, stream_mode="messages"))


def run_async(agent, config) -> None:
    asyncio.run(agent.ainvoke(ASKED, config))


def run_astream(agent, config) -> None:
    async def main() -> None:
        async for _ in agent.astream(ASKED, config, stream_mode=["messages", "updates"]):
            pass

    asyncio.run(main())


@pytest.mark.parametrize("run", [run_sync, run_stream, run_async, run_astream])
def test_one_tree(tracing: Tracing, receiver, run: Callable) -> None:
    """Sync, async and streamed runs give the same tree, with guardrail spans under the node and the tool."""
    run(shop(tracing), {"callbacks": [tracing.handler()]})
    tracing.close()
    assert len({span.trace for span in receiver.spans}) == 1
    paths = sorted("/".join(receiver.path(span)) for span in receiver.spans)
    model = "scripted"
    assert paths == sorted(
        [
            "shop",
            "shop/model",
            "shop/model/apply_guardrail model_gate",
            f"shop/model/chat {model}",
            "shop/tools",
            "shop/tools/weather",
            "shop/tools/weather/apply_guardrail tool_gate",
            "shop/model",
            "shop/model/apply_guardrail model_gate",
            f"shop/model/chat {model}",
        ]
    )
    kinds = {span.name: span.kind for span in receiver.spans}
    assert kinds == {
        "shop": "AGENT",
        "model": "CHAIN",
        "tools": "CHAIN",
        "weather": "TOOL",
        f"chat {model}": "LLM",
        "apply_guardrail model_gate": "GUARDRAIL",
        "apply_guardrail tool_gate": "GUARDRAIL",
    }
    assert all(span.start <= span.end for span in receiver.spans)


def test_model_span(tracing: Tracing, receiver) -> None:
    """A model call shows its messages, the model that answered and the tokens used, in all vocabularies."""
    scripted(call("weather", city="Oslo")).invoke("hi", {"callbacks": [tracing.handler()]})
    tracing.close()
    attributes = receiver.named("chat scripted").attributes
    assert json.loads(attributes["input.value"]) == [{"role": "human", "content": "hi"}]
    assert json.loads(attributes["output.value"])["tool_calls"][0]["args"] == {"city": "Oslo"}
    assert attributes["langfuse.observation.type"] == "generation"
    assert attributes["gen_ai.response.model"] == "scripted-2"
    assert attributes["gen_ai.usage.input_tokens"] == attributes["llm.token_count.prompt"] == 20
    assert json.loads(attributes["langfuse.observation.usage_details"]) == {"input": 20, "output": 5, "total": 25}


class State(TypedDict):
    said: Annotated[list[str], lambda a, b: a + b]


@pytest.mark.parametrize("is_async", [False, True])
def test_parallel_branches(tracing: Tracing, receiver, is_async: bool) -> None:
    """Decisions made at the same time in parallel nodes each hang under their own node."""

    def node(name: str):
        async def later(state: State) -> State:
            await asyncio.sleep(0.01)
            emit(tracing, name)
            return {"said": [name]}

        def now(state: State) -> State:
            emit(tracing, name)
            return {"said": [name]}

        return later if is_async else now

    graph = StateGraph(State)
    names = [f"n{i}" for i in range(8)]
    for name in names:
        graph.add_node(name, node(name))
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    compiled, config = graph.compile(), {"callbacks": [tracing.handler()]}
    if is_async:
        asyncio.run(compiled.ainvoke({"said": []}, config))
    else:
        compiled.invoke({"said": []}, config)
    tracing.close()
    assert receiver.named("LangGraph").kind == "AGENT"
    for name in names:
        assert receiver.path(receiver.named(f"apply_guardrail {name}")) == [
            "LangGraph",
            name,
            f"apply_guardrail {name}",
        ]


def asking(saver) -> object:
    @tool
    def confirm(question: str) -> str:
        """Ask a person."""
        return str(interrupt(f"pay to {SECRET}?"))

    model = scripted(call("confirm", question="pay?"), AIMessage("done"))
    return create_agent(model, [confirm], checkpointer=saver)


def test_resume_goes_on_in_the_same_trace(tracing: Tracing, receiver) -> None:
    """A pause is no error, and the resume hangs under the first invocation's root, with the same session."""
    agent = asking(InMemorySaver())
    config = {
        "callbacks": [tracing.handler()],
        "configurable": {"thread_id": "t-9"},
        "metadata": {"guardrails_actor": "u-3"},
    }
    agent.invoke(ASKED, config)
    agent.invoke(Command(resume="yes"), config)
    tracing.close()
    assert len({span.trace for span in receiver.spans}) == 1
    first, second = sorted((s for s in receiver.spans if s.name == "LangGraph"), key=lambda s: s.start)
    assert first.parent == ""
    assert second.parent == first.id
    paused = min((span for span in receiver.spans if span.name == "confirm"), key=lambda span: span.start)
    assert paused.code != 2
    assert paused.attributes["langfuse.observation.status_message"] == "interrupt"
    assert {span.attributes["session.id"] for span in receiver.spans} == {"t-9"}
    assert {span.attributes["user.id"] for span in receiver.spans} == {"u-3"}
    assert b"CANARY" not in receiver.raw


def test_resume_in_another_process(trace: Callable[..., Tracing], receiver) -> None:
    """A second tracing that only shares the kept id continues the trace of the first."""
    saver, kept = InMemorySaver(), {}
    config = {"configurable": {"thread_id": "t-9"}}
    first, second = trace(), trace()
    first.began, second.run_of = kept.__setitem__, kept.get
    agent = asking(saver)
    agent.invoke(ASKED, {**config, "callbacks": [first.handler()]})
    agent.invoke(Command(resume="yes"), {**config, "callbacks": [second.handler()]})
    first.close()
    second.close()
    assert len({span.trace for span in receiver.spans}) == 1
    assert len([span for span in receiver.spans if not span.parent]) == 1


def test_a_failing_store_costs_no_span(tracing: Tracing, receiver) -> None:
    """Where the run's id cannot be kept or found, the run is traced all the same, and the failure counted."""
    tracing.began = tracing.run_of = lambda *args: 1 / 0
    agent = asking(InMemorySaver())
    config = {"callbacks": [tracing.handler()], "configurable": {"thread_id": "t-9"}}
    agent.invoke(ASKED, config)
    agent.invoke(Command(resume="yes"), config)
    tracing.close()
    assert tracing.failures == 2
    assert len({span.trace for span in receiver.spans}) == 1


def test_fresh_invocations_are_traces_of_their_own(tracing: Tracing, receiver) -> None:
    """Two questions in one thread are two traces in one session."""
    model = scripted(AIMessage("a"), AIMessage("b"))
    agent = create_agent(model, [], checkpointer=InMemorySaver())
    config = {"callbacks": [tracing.handler()], "configurable": {"thread_id": "t-9"}}
    agent.invoke(ASKED, config)
    agent.invoke(ASKED, config)
    tracing.close()
    assert len({span.trace for span in receiver.spans}) == 2
    assert {span.attributes["session.id"] for span in receiver.spans} == {"t-9"}


@pytest.mark.parametrize("where", [Where(run="r-1"), Where(thread="t-1"), Where(span="unknown", run="r-1")])
def test_decision_without_a_known_span_hangs_under_the_root(tracing: Tracing, receiver, where: Where) -> None:
    """A decision that only knows its run or thread still finds the run's trace."""
    chain = RunnableLambda(lambda x: emit(tracing, "g", where=where) or x).with_config(run_name="chain")
    chain.invoke(1, {"callbacks": [tracing.handler()], "metadata": {"guardrails_run": "r-1", "thread_id": "t-1"}})
    tracing.close()
    assert receiver.path(receiver.named("apply_guardrail g")) == ["chain", "apply_guardrail g"]
    assert receiver.named("chain").kind == "CHAIN"


def test_a_run_is_recognised_by_its_earlier_decisions(tracing: Tracing, receiver) -> None:
    """Once a decision of a run had a known span, one that has none joins the same trace, under its root."""

    def decide(x: object) -> object:
        span = str(var_child_runnable_config.get()["callbacks"].parent_run_id)
        emit(tracing, "first", where=Where(run="any-name", span=span))
        emit(tracing, "second", where=Where(run="any-name", span="not seen"))
        return x

    chain = RunnableLambda(decide).with_config(run_name="step") | RunnableLambda(lambda x: x)
    chain.with_config(run_name="chain").invoke(1, {"callbacks": [tracing.handler()]})
    tracing.close()
    assert receiver.path(receiver.named("apply_guardrail first")) == ["chain", "step", "apply_guardrail first"]
    assert receiver.path(receiver.named("apply_guardrail second")) == ["chain", "apply_guardrail second"]


def test_decision_before_the_host_is_seen(tracing: Tracing, receiver) -> None:
    """A gate that decides before the handler hears of the root is still in the root's trace."""
    run = uuid.uuid4()
    emit(tracing, "early", where=Where(run=str(run), span=str(run)))
    RunnableLambda(lambda x: x).with_config(run_name="chain").invoke(
        1, {"callbacks": [tracing.handler()], "run_id": run}
    )
    tracing.close()
    assert len(receiver.spans) == 2
    assert len({span.trace for span in receiver.spans}) == 1


class Stop(BaseCallbackHandler):
    """Raises where a guard would, before observers hear of the end."""

    raise_error = True
    run_inline = True

    def on_llm_end(self, response, **kwargs):
        raise GuardrailBlocked("d-1", "output", "pii", "card")


@pytest.mark.parametrize("is_async", [False, True])
def test_open_spans_are_swept(tracing: Tracing, receiver, is_async: bool) -> None:
    """A model span that another callback's raise left open is closed with its root, and nothing stays open."""
    chain = (RunnableLambda(lambda x: x) | scripted(AIMessage("a"))).with_config(run_name="chain")
    config = {"callbacks": [Stop(), tracing.handler()]}
    with pytest.raises(GuardrailBlocked):
        asyncio.run(chain.ainvoke("x", config)) if is_async else chain.invoke("x", config)
    tracing.close()
    assert tracing.handler()._open == {}
    assert receiver.path(receiver.named("chat scripted")) == ["chain", "chat scripted"]
    root = receiver.named("chain")
    assert root.attributes["langfuse.observation.level"] == "ERROR"
    assert root.attributes["error.type"] == "GuardrailBlocked"
    assert root.code != 2


@pytest.mark.parametrize("is_async", [False, True])
def test_inline_before_a_raising_guard_keeps_the_answer(tracing: Tracing, receiver, is_async: bool) -> None:
    """Listed before a guard that raises on the answer, an inline handler still shows the answer and its tokens."""
    usage = {"input_tokens": 20, "output_tokens": 5, "total_tokens": 25}
    model = scripted(AIMessage("a", usage_metadata=usage))
    config = {"callbacks": [tracing.handler(inline=True), Stop()]}
    with pytest.raises(GuardrailBlocked):
        asyncio.run(model.ainvoke("x", config)) if is_async else model.invoke("x", config)
    tracing.close()
    assert receiver.named("chat scripted").attributes["gen_ai.usage.output_tokens"] == 5


def test_error(tracing: Tracing, receiver) -> None:
    """A failure colours its span and says why, redacted; line breaks quoted in the text hide no secret."""

    def fail(x: object) -> None:
        raise ValueError(f"bad input {['a' + chr(10) + SECRET]}")

    with pytest.raises(ValueError):
        RunnableLambda(fail).with_config(run_name="chain").invoke(1, {"callbacks": [tracing.handler()]})
    tracing.close()
    span = receiver.named("chain")
    assert span.code == 2
    assert span.message.startswith("ValueError: bad input")
    assert "[SECRET]" in span.message
    assert b"CANARY" not in receiver.raw


class Shelf(BaseRetriever):
    """Finds one document."""

    def _get_relevant_documents(self, query, *, run_manager):
        return [Document(f"about {query}", metadata={"page": 3})]


def test_retriever_span(tracing: Tracing, receiver) -> None:
    """A retrieval shows its query and what it found."""
    Shelf().invoke("tides", {"callbacks": [tracing.handler()]})
    tracing.close()
    span = receiver.named("Shelf")
    assert span.kind == "RETRIEVER"
    assert span.attributes["input.value"] == "tides"
    assert json.loads(span.attributes["output.value"]) == [{"content": "about tides", "metadata": {"page": 3}}]


def test_canary(tracing: Tracing, receiver) -> None:
    """A secret put in every place a run has does not leave in any byte."""

    @tool
    def lookup(query: str) -> str:
        """Looks up."""
        emit(tracing, f"gate {SECRET}", Verdict.flag("odd"), Where(run=f"run {SECRET}", thread=SECRET))
        raise ValueError(f"no {query}")

    lookup.name = f"lookup {SECRET}"
    answer = AIMessage(
        f"I use {SECRET}", tool_calls=[{"name": lookup.name, "args": {"query": f"q\n{SECRET}"}, "id": "1"}]
    )
    agent = create_agent(scripted(answer), [lookup], system_prompt=f"system {SECRET}", name=f"agent {SECRET}")
    metadata = {"thread_id": SECRET, "guardrails_actor": f"user {SECRET}", "note": SECRET}
    config = {"callbacks": [tracing.handler()], "metadata": metadata, "tags": [SECRET], "run_name": f"run {SECRET}"}
    with pytest.raises(ValueError):
        agent.invoke({"messages": [HumanMessage(f"hello {SECRET}", name=SECRET)]}, config)
    tracing.close()
    assert {"AGENT", "LLM", "TOOL", "CHAIN", "GUARDRAIL"} <= {span.kind for span in receiver.spans}
    assert tracing.withheld == 0
    assert receiver.raw.count(b"[SECRET]") > 20
    assert b"CANARY" not in receiver.raw
    assert b"123456" not in receiver.raw


def test_content_none(trace: Callable[..., Tracing], receiver) -> None:
    """Without content the whole tree says who called whom, and nothing of what was said."""
    tracing = trace(content="none")
    shop(tracing).invoke({"messages": [HumanMessage("the tide in Bergen")]}, {"callbacks": [tracing.handler()]})
    tracing.close()
    assert len(receiver.spans) == 10
    assert not any(word in receiver.raw for word in (b"Bergen", b"sunny", b"Oslo"))


def test_caller_sees_no_context(tracing: Tracing) -> None:
    """No span is left as the caller's current one, not even after a run that failed."""
    from opentelemetry import trace

    with pytest.raises(GuardrailBlocked):
        scripted(AIMessage("a")).invoke("x", {"callbacks": [tracing.handler(), Stop()]})
    assert not trace.get_current_span().get_span_context().is_valid
