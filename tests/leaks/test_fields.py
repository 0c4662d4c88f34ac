"""What was replaced is nowhere beside a tool's text either: no number, key, id, type, field or mark keeps it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from chat import ScriptedModel, in_turn, make_guard, run, thread, wants
from langchain.agents import AgentState, create_agent
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from surfaces import Tracer, hiding, kept, on_record

from guardrails_mw.testing.leaving import bytes_of
from guardrails_mw.testing.running import checkpoint_bytes

MAIL, CARD = "ann.jones@example.org", 4111111111111111
POLICY = """
gates: {pii: {type: pii, entities: [EMAIL_ADDRESS, CREDIT_CARD]}}
record: {redact: [pii]}
stages: {tool_result: [pii]}
"""


class Notes(AgentState, total=False):
    """An agent's state with a field of its own."""

    notes: object


def _said(id_: str, content: object = "fine", **more: object) -> ToolMessage:
    return ToolMessage(content, tool_call_id=id_, **more)


def _noted(id_: str, notes: object) -> Command:
    return Command(update={"messages": [_said(id_)], "notes": notes})


def _wrote(id_: str, *messages: BaseMessage) -> Command:
    return Command(update={"messages": [_said(id_), *messages]})


def _block(id_: str, **more: object) -> ToolMessage:
    return _said(id_, [{"type": "text", "text": "fine", **more}])


GIVE: dict[str, Callable[[str], object]] = {
    "a whole number with a point": lambda id_: _said(id_, artifact={"card": float(CARD)}),
    "a number in the state": lambda id_: _noted(id_, float(CARD)),
    "a number in metadata": lambda id_: _said(id_, response_metadata={"card": CARD}),
    "a key in metadata": lambda id_: _said(id_, response_metadata={MAIL: True}),
    "a block's id": lambda id_: _block(id_, id=MAIL),
    "a block's index": lambda id_: _block(id_, index=CARD),
    "a block's status": lambda id_: _block(id_, status=MAIL),
    "a block's signature": lambda id_: _block(id_, signature=MAIL),
    "a block's own key": lambda id_: _block(id_, **{MAIL: 1}),
    "a block's type": lambda id_: _block(id_, type=MAIL),
    "digits as a name": lambda id_: _said(id_, name=str(CARD)),
    "digits as an id": lambda id_: _said(id_, id=str(CARD)),
    "digits as a provider's id": lambda id_: _said(id_, response_metadata={"id": str(CARD)}),
    "scores of tokens": lambda id_: _said(id_, response_metadata={"logprobs": [{"token": MAIL}]}),
    "a field of its own": lambda id_: _said(id_, note=MAIL),
    "the id of another call": lambda _: _said(MAIL),
    "a mark as ours": lambda id_: _said(id_, additional_kwargs={"guardrails": {"reason": MAIL}}),
    "a key of a value in the state": lambda id_: _noted(id_, {"found": {MAIL: 1}}),
    "two keys of a value": lambda id_: _said(id_, artifact={MAIL: 1, MAIL.upper(): 2}),
    "a key of the state": lambda id_: Command(update={"messages": [_said(id_)], MAIL: 1}),
    "where to go": lambda id_: Command(update={"messages": [_said(id_)]}, goto=MAIL),
    "what to resume with": lambda id_: Command(update={"messages": [_said(id_)]}, resume={"to": MAIL}),
    "the name and id of a call that it wrote": lambda id_: _wrote(
        id_,
        AIMessage("", tool_calls=[{"name": MAIL, "args": {}, "id": MAIL}]),
        ToolMessage("fine", tool_call_id=MAIL),
    ),
    "a broken call that it wrote": lambda id_: _wrote(
        id_, AIMessage("", invalid_tool_calls=[{"name": "look", "args": MAIL, "id": "c8", "error": MAIL}])
    ),
    "a role that it made up": lambda id_: _wrote(id_, ChatMessage("fine", role=MAIL)),
    "a field of a message that it wrote": lambda id_: _wrote(id_, HumanMessage("fine", note=MAIL)),
}


@pytest.mark.parametrize("form", GIVE)
def test_no_field_of_a_result_keeps_what_was_replaced(form: str, tmp_path: Path) -> None:
    """Whatever field or type a tool puts a value in: what comes out, checkpoints, tracers and records lack it."""

    @tool
    def look(q: str, call_id: Annotated[str, InjectedToolCallId]) -> object:
        """Look something up."""
        return GIVE[form](call_id)

    saver, tracer = InMemorySaver(), Tracer()
    with make_guard(tmp_path, POLICY) as guard:
        model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
        inside = [guard.middleware()]
        agent = create_agent(model, [look], middleware=inside, checkpointer=saver, state_schema=Notes)
        state = agent.invoke({"messages": "go"}, {**thread(), "callbacks": [tracer]})
        left = {
            "state": bytes_of(state),
            "checkpoints": checkpoint_bytes(saver),
            "tracer": bytes_of(tracer.heard),
            "records": on_record(guard, tmp_path).encode(),
        }
    assert state["messages"][-1].text == "Done."
    assert [name for name, data in left.items() if MAIL.encode() in data or str(CARD).encode() in data] == []


def test_what_a_tool_wrote_still_fits_together(tmp_path: Path) -> None:
    """A call that a tool wrote and its result go by one id still, and an artifact that compares oddly is kept."""

    class Table(list[object]):
        """Compares like a table, item by item."""

        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth of a table is ambiguous")

        __hash__ = None

    @tool
    def look(q: str, call_id: Annotated[str, InjectedToolCallId]) -> object:
        """Look something up."""
        wrote = AIMessage("", tool_calls=[{"name": "look", "args": {"to": MAIL}, "id": MAIL}])
        return _wrote(call_id, wrote, ToolMessage("fine", tool_call_id=MAIL, artifact=Table([1])))

    with make_guard(tmp_path, POLICY) as guard:
        model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
        agent = create_agent(model, [look], middleware=[guard.middleware()])
        wrote, result = agent.invoke({"messages": "go"})["messages"][3:5]
    assert wrote.tool_calls[0]["args"] == {"to": "[EMAIL_ADDRESS]"}
    assert wrote.tool_calls[0]["id"] == result.tool_call_id
    assert list(result.artifact) == [1]


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_tools_own_question_is_decided(mode: str, tmp_path: Path) -> None:
    """What a tool asks a person by `interrupt` is edited before a checkpoint or tracer has it, and is answered still.

    A question that is blocked is not asked: the tool has failed.
    """

    @tool
    def look(q: str) -> str:
        """Look something up."""
        return f"{interrupt({'send to': [q, MAIL], 'card': CARD})}!"

    blocking = POLICY.replace("type: pii,", "type: pii, action: block,")
    for number, (source, asks) in enumerate(((POLICY, True), (blocking, False))):
        (tmp_path / str(number)).mkdir()
        saver, tracer = InMemorySaver(), Tracer()
        with make_guard(tmp_path / str(number), source) as guard:
            model = ScriptedModel(script=in_turn(wants("look", q="x"), "Done."))
            agent = create_agent(model, [look], middleware=[guard.middleware()], checkpointer=saver)
            config = {**thread(), "callbacks": [tracer]}
            [outcome] = run(mode, agent, [{"messages": "go"}], [config])
            assert MAIL.encode() not in bytes_of([outcome, tracer.heard]) + checkpoint_bytes(saver)
            if not asks:
                assert str(outcome) == "blocked: pii"
                continue
            assert outcome["__interrupt__"][0].value == {"send to": ["x", "[EMAIL_ADDRESS]"], "card": "[CREDIT_CARD]"}
            [state] = run(mode, agent, [Command(resume="yes")], [config])
            assert [message.content for message in state["messages"][2:]] == ["yes!", "Done."]


def test_ids_that_somebody_hands_in_are_no_text(tmp_path: Path) -> None:
    """A graph's door gives a call and its result, handed in under an id that says something, another one in common."""
    wrote = AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": MAIL}])
    said = [wrote, ToolMessage("fine", tool_call_id=MAIL), HumanMessage("go", name=f"Ann {MAIL}")]
    saver = InMemorySaver()
    with make_guard(tmp_path, POLICY.replace("stages: {", "stages: {input: [pii], ")) as guard:
        model = ScriptedModel(script=in_turn("Never.", "Done."))
        agent = guard.graph(create_agent(model, [], middleware=[guard.middleware()], checkpointer=saver))
        state = agent.invoke({"messages": said}, thread())
    call, result, human, _ = state["messages"]
    assert call.tool_calls[0]["id"] == result.tool_call_id
    assert human.name == "Ann [EMAIL_ADDRESS]"
    assert MAIL.encode() not in bytes_of([state, model.asked]) + checkpoint_bytes(saver)


@pytest.mark.parametrize("form", ["message", "mapping"])
@pytest.mark.parametrize("by", ["caller", "tool"])
def test_a_message_that_removes_another_carries_nothing_along(tmp_path: Path, by: str, form: str) -> None:
    """Only its id counts, but all of it would be written down: in the input, in a tool's update, in every stream."""
    beside = {"name": f"of {MAIL}", "additional_kwargs": {"note": MAIL}}
    gone = (
        RemoveMessage(id="h1", **beside)
        if form == "message"
        else {"type": "remove", "id": "h1", "content": "", **beside}
    )

    @tool
    def look(q: str, call_id: Annotated[str, InjectedToolCallId]) -> Command:
        """Look something up."""
        return Command(
            update={"messages": [RemoveMessage(id="h1", **beside), ToolMessage("fine", tool_call_id=call_id)]}
        )

    saver, script = InMemorySaver(), [wants("look", q="x"), "Done."] if by == "tool" else ["Done.", "Done."]
    with make_guard(tmp_path, hiding("input", "tool_result")) as guard:
        model = ScriptedModel(script=in_turn(*script))
        agent = guard.graph(create_agent(model, [look], middleware=[guard.middleware()], checkpointer=saver))
        said = [HumanMessage("hi", id="h1"), HumanMessage("you there", id="h2")]
        told = list(agent.stream({"messages": said}, thread(), stream_mode=["updates", "tasks", "values"]))
        if by == "caller":
            told += agent.stream({"messages": [gone]}, thread(), stream_mode=["updates", "tasks", "values"])
        assert MAIL not in repr(told)
        assert MAIL not in kept(saver)
        left = [message.id for message in agent.get_state(thread()).values["messages"]]
        assert "h2" in left
        assert "h1" not in left
