"""One small host for every seam: an agent, a graph, a chain or a bare model, with one tool, under a guard."""

from __future__ import annotations

from chat import MODES, ScriptedModel, Tools, in_turn, run, wants
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph

from guardrails_mw import Guard
from guardrails_mw.errors import GuardrailBlocked
from guardrails_mw.event import Stage

__all__ = ["MODES", "REPLY", "RESULT", "Host", "asking_agent"]

REPLY, RESULT = "All is well.", "nothing special"


def asking_agent(guard: Guard, seam: str, model: ScriptedModel, tools: list[object], saver: InMemorySaver) -> object:
    """An agent that can pause, under a guard at one of the seams that ask."""
    if seam == "middleware":
        return create_agent(model, tools, middleware=[guard.middleware()], checkpointer=saver)
    if seam == "callbacks":
        return create_agent(model, tools, checkpointer=saver).with_config(callbacks=guard.callbacks())
    graph = StateGraph(MessagesState)
    graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", guard.tool_node(tools))
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", lambda s: "tools" if s["messages"][-1].tool_calls else END)
    graph.add_edge("tools", "agent")
    return graph.compile(checkpointer=saver)


class Host:
    """A seam in the host that it is for. `run` gives what came out of one conversation that reaches a stage."""

    def __init__(self, seam: str, guard: Guard) -> None:
        self.guard, self.seam = guard, seam
        self.model, self.tools = ScriptedModel(script=in_turn(REPLY)), Tools(RESULT)
        self.runnable = getattr(self, f"_{seam}")()

    def run(self, mode: str, stage: Stage, name: str) -> object:
        """One conversation under a name of its own, in a mode."""
        self.model.asked.clear()
        self.tools.done.clear()
        said: object = f"What about {name}?"
        call, uses_tool = wants("look", q=name), stage in (Stage.TOOL_CALL, Stage.TOOL_RESULT)
        self.model.script = in_turn(call, REPLY) if uses_tool else in_turn(REPLY)
        if stage is Stage.TOOL_RESULT and self.seam in ("model", "graph"):  # results reach them from outside
            said = [("user", said), call, ToolMessage(RESULT, tool_call_id="c1")]
            self.model.script = in_turn(REPLY)
        if self.seam not in ("model", "runnable"):
            said = {"messages": said if isinstance(said, list) else [("user", said)]}
        config: dict[str, object] = {"configurable": {"thread_id": name}}
        if self.seam == "callbacks":
            config["callbacks"] = self.guard.callbacks()
        (outcome,) = run(mode, self.runnable, [said], [config])
        return outcome

    def happened(self, stage: Stage, outcome: object, mode: str) -> bool:
        """Whether what a block at a stage has to prevent came about."""
        if stage in (Stage.INPUT, Stage.MODEL):
            return self.model.calls > 0
        if stage is Stage.TOOL_CALL:
            proposed = "'look'" in repr(outcome) or "look(" in repr(outcome)
            return proposed if self.seam == "model" else bool(self.tools.done)
        if stage is Stage.TOOL_RESULT:
            seen = self.seam == "runnable" and RESULT in repr(outcome)  # the chain ends with its tool
            return seen or RESULT in repr(self.model.asked)
        if self.seam == "nodes" and "stream" in mode and isinstance(outcome, list):  # shown first, then decided
            return not self.told(outcome[-1])
        return REPLY[:6] in repr(outcome)

    def told(self, outcome: object) -> bool:
        """Whether the caller can see that something was blocked."""
        said = repr(outcome)  # that of a tool's message leaves its mark out
        return isinstance(outcome, GuardrailBlocked) or "'action': 'block'" in said or "blocked: error." in said

    def _callbacks(self) -> object:
        return create_agent(self.model, self.tools.all())

    def _model(self) -> object:
        return self.guard.model(self.model)

    def _middleware(self) -> object:
        return create_agent(self.model, self.tools.all(), middleware=[self.guard.middleware()])

    def _graph(self) -> object:
        return self.guard.graph(create_agent(self.model, self.tools.all()))

    def _nodes(self) -> object:
        def agent(state: MessagesState) -> dict[str, object]:
            return {"messages": [self.model.invoke(state["messages"])]}

        def after(state: MessagesState) -> str:
            return "tools" if state["messages"][-1].tool_calls else "out"

        graph = StateGraph(MessagesState)
        graph.add_node("gate", self.guard.input_node(then="agent", blocked=END), destinations=("agent", END))
        graph.add_node("agent", agent)
        graph.add_node("tools", self.guard.tool_node(self.tools.all()))
        graph.add_node("reread", self.guard.input_node(then="agent", blocked=END), destinations=("agent", END))
        graph.add_node("out", self.guard.output_node())
        graph.add_edge(START, "gate")
        graph.add_conditional_edges("agent", after, ["tools", "out"])
        graph.add_edge("tools", "reread")
        return graph.compile()

    def _runnable(self) -> object:
        by_name = {tool.name: tool for tool in self.tools.all()}

        def step(message: AIMessage) -> object:
            return by_name[message.tool_calls[0]["name"]].invoke(message.tool_calls[0])

        last = RunnableLambda(lambda message: RunnableLambda(step) if message.tool_calls else message)
        return self.guard.runnable(self.model | last)
