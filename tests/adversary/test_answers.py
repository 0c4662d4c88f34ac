"""What a model's answer carries outside its content, and answers that nobody decided."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chat import MODES, ScriptedModel, Tools, in_turn, make_guard, run, wants
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START, MessagesState, StateGraph

from guardrails_mw.errors import GuardrailBlocked

PII = "gates: {pii: {type: pii, entities: [EMAIL_ADDRESS]}}\nstages: {input: [pii], output: [pii]}"
WORD = "gates: {word: {type: python, call: 'chat:codeword', cost: linear}}\nstages: {input: [word], output: [word]}"
RAW = "bob@example.com"


@pytest.fixture
def global_cache() -> Iterator[None]:
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


@pytest.mark.usefixtures("global_cache")
def test_the_global_cache_does_not_carry_an_answer_from_one_guard_to_another(tmp_path: Path) -> None:
    """With LangChain's global cache on, what a loose policy let through is not served under a strict one."""
    model = ScriptedModel(script=in_turn(f"mail {RAW}"))
    (tmp_path / "a").mkdir()
    loose = make_guard(tmp_path / "a", PII.replace(", output: [pii]", ""))
    assert RAW in loose.model(model).invoke("who?").text
    assert make_guard(tmp_path, PII).model(model).invoke("who?").text == "mail [EMAIL_ADDRESS]"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("calls", [False, True])
def test_reasoning_beside_an_answer_is_an_answer(tmp_path: Path, mode: str, calls: bool) -> None:
    """Text in `additional_kwargs` (reasoning, refusal, function call) is edited, also of an answer that only calls."""
    beside = {"reasoning_content": f"mail {RAW}", "refusal": None, "function_call": {"arguments": RAW}}
    tool_calls = [{"name": "look", "args": {}, "id": "1"}] if calls else []
    answer = AIMessage("" if calls else "ok", additional_kwargs=beside, tool_calls=tool_calls)
    model = ScriptedModel(script=in_turn(answer))
    [found] = run(mode, make_guard(tmp_path, PII).model(model), ["q"], [{}])
    assert RAW not in str(found)
    if mode == "invoke":
        assert found.additional_kwargs["reasoning_content"] == "mail [EMAIL_ADDRESS]"
        assert found.content == answer.content


def test_reasoning_beside_an_answer_is_blocked_in_callbacks(tmp_path: Path) -> None:
    """A seam that cannot edit blocks what stands beside the content, as it blocks content."""
    model = ScriptedModel(script=in_turn(AIMessage("ok", additional_kwargs={"reasoning_content": "swordfish"})))
    with pytest.raises(GuardrailBlocked, match="codeword"):
        model.invoke("q", {"callbacks": make_guard(tmp_path, WORD).callbacks()})


def test_arguments_that_are_not_json_are_an_answer(tmp_path: Path) -> None:
    """A call that could not be parsed does not carry its text past the gates."""
    bad = {"name": "look", "args": f'{{"q": {RAW}', "id": "1", "error": None, "type": "invalid_tool_call"}
    model = ScriptedModel(script=in_turn(AIMessage("ok", invalid_tool_calls=[bad])))
    assert RAW not in str(make_guard(tmp_path, PII).model(model).invoke("q"))


def test_calls_with_reasoning_still_pass_a_schema_for_answers(tmp_path: Path) -> None:
    """A reply that only thinks and calls a tool is no answer yet: the schema of answers is not asked of it."""
    shape = "gates: {form: {type: json_schema, schema: {type: object}}}\nstages: {output: [form]}"
    thinking = wants("look", q="x").model_copy(update={"additional_kwargs": {"reasoning_content": "hm"}})
    model = ScriptedModel(script=in_turn(thinking, AIMessage("no json", additional_kwargs={"reasoning_content": "hm"})))
    guarded = make_guard(tmp_path, shape).model(model)
    first = guarded.invoke([HumanMessage("q")])
    assert first.tool_calls
    assert guarded.invoke([HumanMessage("q"), first]).response_metadata["guardrails"]["reason"] == "schema.not_json"


def test_usage_of_zero_is_no_usage(tmp_path: Path) -> None:
    """A server that reports zero tokens for "unknown" does not make calls free."""
    guard = make_guard(tmp_path, "budgets: {run: {tokens: 3000}}\nreserve: {output_tokens: 100}")

    class Zeros(ScriptedModel):
        def _answer(self, messages: list[BaseMessage]) -> AIMessage:
            zeros = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
            return super()._answer(messages).model_copy(update={"usage_metadata": zeros})

    model = Zeros(script=in_turn("word " * 1000))
    guarded = guard.model(model)

    def loop(value: str, config: RunnableConfig) -> None:
        for _ in range(10):
            guarded.invoke(value, config)

    guard.runnable(RunnableLambda(loop)).invoke("hello " * 100)
    assert model.calls == 2


def test_a_tool_seam_elsewhere_does_not_excuse_a_model(tmp_path: Path) -> None:
    """A guard that also has a middleware or a tool node still decides the calls that those do not run."""
    guard = make_guard(tmp_path, "default_tool: block\ntools: {look: {}}")
    guard.middleware()
    guard.tool_node([Tools().all()[0]])
    answer = guard.model(ScriptedModel(script=in_turn(wants("wipe", path="/")))).invoke("q")
    assert not answer.tool_calls
    assert answer.response_metadata["guardrails"]["reason"] == "tool.not_listed"


def test_calls_of_one_message_with_one_id_do_not_run(tmp_path: Path) -> None:
    """A guarded tool node runs no two calls under one id: one count and one approval would buy both."""
    tools, guard = Tools(), make_guard(tmp_path, "budgets: {run: {tool_calls: 1}}")
    calls = [{"name": "look", "args": {"q": str(n)}, "id": id_} for n, id_ in enumerate(("a", "b", "b"))]
    builder = StateGraph(MessagesState)
    builder.add_node("tools", guard.tool_node(tools.all()))
    builder.add_edge(START, "tools")
    state = builder.compile().invoke({"messages": [HumanMessage("go"), AIMessage("", tool_calls=calls)]})
    assert tools.done == [("look", "0")]
    assert [m.text for m in state["messages"][-2:]] == ["blocked: tool.duplicate_id"] * 2
