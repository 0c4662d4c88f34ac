"""Ways for a call to count less than it costs, or for nothing to count as something."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from chat import ScriptedModel, in_turn, make_guard, thread, wants
from langchain.agents import create_agent
from langchain.agents.middleware import ToolRetryMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

from guardrails_mw import Guard, Policy
from guardrails_mw.account import Limits
from guardrails_mw.adapters.target import Target
from guardrails_mw.adapters.usage import outcome, size
from guardrails_mw.budget import Budget, Refused
from guardrails_mw.document import Document
from guardrails_mw.errors import GuardrailBlocked
from guardrails_mw.event import Content, Event, ModelCall, Stage, Where
from guardrails_mw.prices import Prices
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.verdict import Outcome, Usage

DONE: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@tool
def send(to: str) -> str:
    """Send a mail; the server hiccups."""
    DONE.append(to)
    raise ValueError("hiccup")


@tool
def look(path: str) -> str:
    """Look at a path."""
    DONE.append(path)
    return f"seen {path}"


def used(guard: Guard, scope: str) -> int:
    return guard.store.used(scope)


# calls of tools


def test_calls_under_one_id_are_each_counted(tmp_path: Path) -> None:
    """An answer that makes several calls under one id pays for each; where they are too many, none runs."""
    calls = [{"name": "look", "args": {"path": f"/{n}"}, "id": "c1"} for n in range(3)]
    model = ScriptedModel(script=in_turn(AIMessage("", tool_calls=calls)))
    with make_guard(tmp_path, "budgets: {all: {of: global, tool_calls: 3}}") as guard:
        assert len(guard.model(model).invoke("go").tool_calls) == 3
        assert used(guard, "all:all:tool_calls") == 3
        refused = guard.model(model).invoke("go")
        assert refused.response_metadata["guardrails"]["reason"] == "budget.all.tool_calls"
        assert used(guard, "all:all:tool_calls") == 3


@pytest.mark.parametrize("seam", ["runnable", "callbacks"])
def test_a_call_that_was_counted_where_it_was_proposed_is_counted_once(tmp_path: Path, seam: str) -> None:
    """A guarded model in an agent whose tools callbacks hear: one call costs one, a second one costs another."""
    call = wants("look", path="/")
    model = ScriptedModel(script=in_turn(call, call, "done"))
    with make_guard(tmp_path, "budgets: {all: {of: global, tool_calls: 9}}") as guard:
        agent = create_agent(guard.model(model), [look])
        if seam == "runnable":
            guard.runnable(agent).invoke({"messages": "go"})
        else:
            agent.invoke({"messages": "go"}, {"callbacks": guard.callbacks()})
        assert DONE == ["/", "/"]
        assert used(guard, "all:all:tool_calls") == 2


def test_a_chain_that_gives_the_same_answer_twice_in_a_run_pays_twice(tmp_path: Path) -> None:
    """Two nodes of a graph that run a guarded chain: equal proposals are two."""
    with make_guard(tmp_path, "budgets: {all: {of: global, tool_calls: 9}}") as guard:
        chain = guard.runnable(ScriptedModel(script=lambda _: wants("look", path="/")))
        graph = StateGraph(MessagesState)
        for name in ("first", "second"):
            graph.add_node(name, lambda state: {"messages": [chain.invoke(state["messages"])]})
        graph.add_edge(START, "first")
        graph.add_edge("first", "second")
        graph.add_edge("second", END)
        graph.compile().invoke({"messages": [("user", "hi")]})
        assert used(guard, "all:all:tool_calls") == 2


def test_a_permit_of_a_proposal_is_good_for_one_run_of_the_tool(tmp_path: Path) -> None:
    """A tool that something runs again by the same call pays again, and is stopped where nothing is left."""
    model = ScriptedModel(script=in_turn(wants("send", to="amy"), "done"))
    with make_guard(tmp_path, "budgets: {all: {of: global, tool_calls: 2}}") as guard:
        agent = create_agent(
            guard.model(model), [send], middleware=[ToolRetryMiddleware(max_retries=5, initial_delay=0, jitter=False)]
        )
        with pytest.raises(GuardrailBlocked):
            agent.invoke({"messages": "go"}, {"callbacks": guard.callbacks()})
        assert DONE == ["amy", "amy"]


def test_a_call_that_is_blocked_takes_nothing_for_those_before_it(tmp_path: Path) -> None:
    """Where the second of two proposals is blocked, the first does not run and is not paid for."""
    calls = [{"name": name, "args": {"path": "/"}, "id": name} for name in ("look", "wipe")]
    model = ScriptedModel(script=in_turn(AIMessage("", tool_calls=calls)))
    policy = "tools: {look: {}}\nbudgets: {all: {of: global, tool_calls: 9}}"
    with make_guard(tmp_path, policy) as guard:
        assert guard.model(model).invoke("go").response_metadata["guardrails"]["reason"] == "tool.not_listed"
        assert used(guard, "all:all:tool_calls") == 0
        assert guard.spend("tool") == []


RETRY = ToolRetryMiddleware(max_retries=4, initial_delay=0.0, jitter=False)


@pytest.mark.parametrize("order", ["outside", "inside"])
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
def test_a_tool_that_is_tried_again_costs_again(tmp_path: Path, order: str, mode: str) -> None:
    """Whether retries are made outside or inside of the guard, each is counted, and the cap ends them."""
    policy = "budgets: {all: {of: global, tools: {send: 2}, tool_calls: 9}}\nloops: {steps: 50}\ndefault_tool: allow"
    with make_guard(tmp_path, policy) as guard:
        mine = [RETRY, guard.middleware()] if order == "outside" else [guard.middleware(), RETRY]
        model = ScriptedModel(script=in_turn(wants("send", to="a"), "Done."))
        agent = create_agent(model, [send], middleware=mine)
        if mode == "invoke":
            agent.invoke({"messages": "go"})
        else:
            asyncio.run(agent.ainvoke({"messages": "go"}))
        assert len(DONE) == 2
        assert used(guard, "all:all:tool_calls") == 2


def test_a_node_that_is_tried_again_costs_again(tmp_path: Path) -> None:
    """The retry policy of a graph runs the whole node again, and every call in it."""
    with make_guard(tmp_path, "budgets: {all: {of: global, tool_calls: 2}}\ndefault_tool: allow") as guard:
        model = guard.model(ScriptedModel(script=in_turn(wants("send", to="a"), "Done.")))
        graph = StateGraph(MessagesState)
        graph.add_node("agent", lambda state: {"messages": [model.invoke(state["messages"])]})
        policy = RetryPolicy(max_attempts=5, initial_interval=0.01, jitter=False, retry_on=ValueError)
        graph.add_node("tools", guard.tool_node([send]), retry_policy=policy)
        graph.add_edge(START, "agent")
        graph.add_edge("agent", "tools")
        graph.add_edge("tools", END)
        graph.compile().invoke({"messages": "go"})
        assert len(DONE) == 2
        assert used(guard, "all:all:tool_calls") == 2


# prices


def test_a_dated_name_is_no_other_model() -> None:
    """What answers under the asked name and a date costs what was asked for, not what everything else costs."""
    prices = Prices({"x": {"input": "2", "output": "8"}, "*": {"input": "0", "output": "0"}})
    assert prices.cost("x-2026-01-31", Usage(1000, 0), "x") == 2000
    assert prices.cost("y", Usage(1000, 0), "x") == 2000
    rates = {"auto": "9", "x*": "2", "y": "1"}
    more = Prices({name: {"input": rate, "output": rate} for name, rate in rates.items()})
    assert more.cost("y", Usage(1000, 0), "auto") == 1000  # its own price, to the letter
    assert more.cost("x-2026-01-31", Usage(1000, 0), "x") == 2000


@pytest.mark.parametrize(
    ("rates", "usage"),
    [
        ({"reasoning": "60"}, Usage(100, 1000, reasoning_tokens=1000)),
        ({"audio_output": "80"}, Usage(100, 1000, audio_output_tokens=1000)),
        ({"cache_write": "6"}, Usage(100, 1000, cache_write_tokens=100)),
        ({"audio_input": "7"}, Usage(100, 1000, audio_input_tokens=100)),
    ],
)
def test_what_is_held_is_the_dearest_that_it_can_be(rates: Mapping[str, str], usage: Usage) -> None:
    """Calls that start together cannot overspend, whatever their tokens turn out to be."""
    prices = Prices({"m": {"input": "1", "output": "10", **rates}})
    cost = prices.cost("m", usage)
    assert cost is not None
    budget = Budget(MemoryStore(), [Limits("all", of="global", usd_micro=3 * cost)], prices)
    asked = [Event(Stage.MODEL, Content(None), call=ModelCall("m", 100, 1000), key=str(n)) for n in range(4)]
    admitted = [event for event in asked if not isinstance(budget.reserve(event, 0.0), Refused)]
    for event in admitted:
        budget.settle(event, Outcome("done", 0.0, usage), 0.0)
    assert budget.used(asked[0], 0.0)["all"]["usd"] <= 3 * cost
    assert admitted


def test_the_record_says_what_was_charged(tmp_path: Path) -> None:
    """Of a call whose end nobody saw, and which was shortened, the record has the charged figures."""
    model = GenericFakeChatModel(messages=iter([]))
    policy = "budgets: {all: {of: global, usd: '1', tokens: 5000}}\nprices: {'*': {input: '1', output: '100'}}"
    with make_guard(tmp_path, policy) as guard:
        with pytest.raises(RuntimeError):
            guard.model(model).invoke("hello")
        [row] = guard.spend("run")
        assert row.usd_micro == used(guard, "all:all:usd") > 0
        assert row.input_tokens + row.output_tokens == used(guard, "all:all:tokens")
        assert row.unknown == 1


# what a provider reports


def _answer(usage: object = None, **metadata: object) -> AIMessage:
    return AIMessage("x" * 400, response_metadata=metadata).model_copy(update={"usage_metadata": usage})


def _told(into: int, out: int, **details: object) -> dict[str, object]:
    return {"input_tokens": into, "output_tokens": out, "total_tokens": into + out, **details}


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (
            _answer(_told(100, 10, input_token_details={"cache_creation": 0, "ephemeral_1h_input_tokens": 60})),
            Usage(100, 10, cache_write_tokens=60),
        ),
        (
            _answer(
                _told(
                    100, 10, input_token_details={"priority_cache_read": 30}, output_token_details={"flex_reasoning": 4}
                )
            ),
            Usage(100, 10, cached_tokens=30, reasoning_tokens=4),
        ),
        (_answer(_told(10, 5, input_token_details={"cache_read": 10**9})), Usage(10, 5, cached_tokens=10)),
        (_answer(_told(10, 5, input_token_details="odd", output_token_details=[1])), Usage(10, 5)),
        (_answer(token_usage={"prompt_tokens": 70, "completion_tokens": 30}), Usage(70, 30)),
        (_answer(usage={"input_tokens": 70, "output_tokens": 30}), Usage(70, 30)),
        (_answer({**_told(4000, 4000), "total_cost": 0}), Usage(4000, 4000)),
    ],
)
def test_reported_tokens_are_read_in_every_form(answer: AIMessage, usage: Usage) -> None:
    """Cache writes by how long they last, tiers before the name, parts beyond the whole, other places; no free call."""
    assert outcome([answer], 7, 0.1).usage == usage


def test_a_cost_of_nothing_counts_only_where_there_is_a_cache() -> None:
    """Callbacks hear of answers that LangChain had in its cache; a guarded model has no cache."""
    answer = _answer({**_told(4000, 4000), "total_cost": 0})
    assert outcome([answer], 7, 0.1, cached=True).usage == Usage()
    assert outcome([answer], 7, 0.1).usage == Usage(4000, 4000)


def test_every_answer_of_a_call_is_counted() -> None:
    """Where nobody reports tokens, several answers are estimated one by one; what the host says of the call counts."""
    answers = [AIMessage("x" * 400), AIMessage("y" * 800)]
    assert outcome(answers, 7, 0.1).usage == Usage(7, 104 + 204, estimated=True)
    told = {"token_usage": {"prompt_tokens": 9, "completion_tokens": 8}}
    assert outcome(answers, 7, 0.1, told=told).usage == Usage(9, 8)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "text-plain", "text": "word " * 1000},
        {"type": "input_text", "text": "word " * 1000},
        {"type": "thinking", "thinking": "word " * 1000},
        {"type": "tool_result", "content": [{"type": "text", "text": "word " * 1000}]},
        {"type": "document", "source": {"type": "text", "data": "word " * 1000}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "base64": "A" * 20_000},
    ],
)
def test_every_content_block_weighs_something(block: dict[str, object]) -> None:
    """Texts in whatever block weigh what they would weigh alone, pictures and files about the most that they may."""
    assert size(HumanMessage([block])) >= 1250


# limits of answers

BAGS: list[tuple[dict[str, object], Callable[[Mapping[str, object]], object]]] = [
    ({"options": {"num_predict": 50_000}}, lambda kwargs: kwargs["options"]["num_predict"]),
    ({"options": {"top_k": 1}}, lambda kwargs: kwargs["options"]["num_predict"]),
    (
        {"generation_config": {"max_output_tokens": 50_000}},
        lambda kwargs: kwargs["generation_config"]["max_output_tokens"],
    ),
    ({"inferenceConfig": {"maxTokens": 50_000}}, lambda kwargs: kwargs["inferenceConfig"]["maxTokens"]),
    ({"maxTokens": 50_000}, lambda kwargs: kwargs["maxTokens"]),
]


@pytest.mark.parametrize(("kwargs", "limit"), BAGS)
def test_limits_are_found_where_providers_keep_them(
    kwargs: dict[str, object], limit: Callable[[Mapping[str, object]], object]
) -> None:
    """A limit in a mapping of settings is the one that counts, and the one that is lowered; given mappings stay."""
    target = Target(ScriptedModel(script=in_turn("x")), None, kwargs)
    asked = target.asked([HumanMessage("hi")])
    assert asked.max_tokens == (50_000 if "top_k" not in str(kwargs) else 0)
    assert asked.limitable
    assert limit(target.limited(50).kwargs) == 50
    assert "50" not in str(kwargs) or "50000" in str(kwargs)


def test_many_answers_are_not_let_through_with_a_token_each() -> None:
    """What an answer must at least be allowed counts for each of several."""
    budget = Budget(MemoryStore(), [Limits("all", of="global", tokens=200)], Prices({}))
    call = ModelCall("m", 10, 2000, limitable=True, answers=2000)
    refused = budget.reserve(Event(Stage.MODEL, Content(None), call=call, key="k"), 0.0)
    assert isinstance(refused, Refused)
    target = Target(ScriptedModel(script=in_turn("x")), None, {"n": 3, "max_tokens": 100})
    assert target.asked([]).answers == 3
    assert target.asked([]).max_tokens == 300


# who is counted, and how often


def test_a_call_is_counted_once_however_many_handlers_hear_of_it(tmp_path: Path) -> None:
    """Callbacks in two places, around a wrapped chain, and one wrapped chain in another: one call, one count."""
    with make_guard(tmp_path, "budgets: {all: {of: global, model_calls: 100}}") as guard:
        plain = ScriptedModel(script=in_turn("ok"))
        inner = guard.runnable(plain | RunnableLambda(lambda message: message.text))
        for number, (chain, config) in enumerate(
            [
                (plain.with_config(callbacks=guard.callbacks()), {"callbacks": guard.callbacks()}),
                (inner, {"callbacks": guard.callbacks()}),
                (guard.runnable(inner), {}),
                (guard.runnable(RunnableLambda(inner.invoke)), {"callbacks": guard.callbacks()}),
            ],
            start=1,
        ):
            chain.invoke("hi", config)
            assert used(guard, "all:all:model_calls") == number


def test_a_task_is_a_step_of_the_outermost_graph() -> None:
    """Steps of a flat graph are tasks of their own; what works below a step, however deep, is in its task."""
    limits = Limits("task", model_calls=1)

    def account(task: str) -> str:
        return limits.account(Event(Stage.MODEL, Content(None), where=Where(run="r", task=task)), 0.0)

    assert account("a:1") != account("b:2")
    assert account("a:1") == account("a:1|model:7") == account("a:1|tools:3|model:9")


def test_shadow_mode_shortens_nothing_and_records_all(tmp_path: Path) -> None:
    """In shadow mode a model gets no limit, and calls beyond a cap are made, told and paid for on record."""

    class Limitable(ScriptedModel):
        max_tokens: int | None = None

        def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
            seen.append((self.max_tokens, kwargs))
            return super()._generate(messages)

    seen: list[object] = []
    with make_guard(tmp_path, "mode: shadow\nbudgets: {all: {of: global, model_calls: 2, tokens: 300}}") as guard:
        for _ in range(4):
            assert guard.model(Limitable(script=in_turn("x"))).invoke("hi").content == "x"
        [row] = guard.spend("model")
    assert seen == [(None, {})] * 4
    assert (row.model_calls, row.input_tokens) == (4, 40)


class SlowStore(MemoryStore):
    """A store that waits, as one on a network may."""

    blocking = True
    slow = 0.0
    reserved = 0

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()

    def reserve(self, *args: object) -> object:
        self.entered.set()
        time.sleep(self.slow)
        refusal = super().reserve(*args)
        self.reserved += 1
        return refusal


@pytest.mark.parametrize("how", ["cancelled", "late"])
def test_a_hold_that_comes_too_late_is_given_back(how: str) -> None:
    """A call that was cancelled, or blocked because its budget did not answer, has not started and costs nothing."""
    store, deadline = SlowStore(), 20_000 if how == "cancelled" else 50
    source = f"version: 1\ndeadline_ms: {deadline}\nbudgets: {{all: {{of: global, model_calls: 1}}}}"
    with Guard(Policy.load(Document(source)), store=store) as guard:
        raw = ScriptedModel(script=in_turn("x"))
        model, store.slow = guard.model(raw), 0.2

        async def hang_up() -> None:
            task = asyncio.create_task(model.ainvoke("hello"))
            await asyncio.to_thread(store.entered.wait)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        if how == "cancelled":
            asyncio.run(hang_up())
        else:
            assert model.invoke("hello").response_metadata["guardrails"]["reason"] == "error.deadline"
        until = time.monotonic() + 20
        while not store.reserved or used(guard, "all:all:model_calls"):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert raw.calls == 0


def test_a_slow_reader_is_not_the_models_time(tmp_path: Path) -> None:
    """Seconds count while the model works, not while somebody reads what it streamed."""

    class Quick(ScriptedModel):
        def _stream(self, messages, stop=None, run_manager=None, **kwargs):
            for _ in range(5):
                yield ChatGenerationChunk(message=AIMessageChunk("word " * 40))

    with make_guard(
        tmp_path, "gates: {keys: {type: secrets}}\nstages: {output: [keys]}\nbudgets: {all: {of: global, seconds: 60}}"
    ) as guard:
        for _ in guard.model(Quick(script=in_turn(""))).stream("go"):
            time.sleep(0.1)
        assert used(guard, "all:all:seconds") < 300


def test_what_was_said_before_is_in_a_refusal_whatever_ends_the_turn(tmp_path: Path) -> None:
    """``{partial}`` stands for the turn so far also where a call of a tool was one too many."""
    first = AIMessage("Looking.", tool_calls=[{"name": "look", "args": {"path": "/a"}, "id": "1"}])
    model = ScriptedModel(script=in_turn(first, wants("look", "c2", path="/b"), "never"))
    policy = 'budgets: {run: {tool_calls: 1}}\nrefusal: "{partial} ({reason})"\ndefault_tool: allow'
    with make_guard(tmp_path, policy) as guard:
        agent = create_agent(model, [look], middleware=[guard.middleware()])
        said = agent.invoke({"messages": "go"})["messages"][-1]
    assert said.content == "Looking. (budget.run.tool_calls)"


def test_a_limit_that_is_none_is_none_under_callbacks_too(tmp_path: Path) -> None:
    """Providers write -1 for no limit; it takes nothing off what is held."""

    class Unlimited(ScriptedModel):
        def _get_ls_params(self, stop=None, **kwargs) -> dict[str, object]:
            return {**super()._get_ls_params(stop, **kwargs), "ls_max_tokens": -1}

        def _generate(self, messages, stop=None, run_manager=None, **kwargs) -> ChatResult:
            held.append(used(guard, "all:all:tokens"))
            return ChatResult(generations=[ChatGeneration(message=AIMessage("x"))])

    held: list[int] = []
    with make_guard(tmp_path, "budgets: {all: {of: global, tokens: 5000}}\nreserve: {output_tokens: 700}") as guard:
        Unlimited(script=in_turn("x")).invoke("hi", {"callbacks": guard.callbacks(), **thread()})
    assert held == [700 + 5]


def test_parallel_calls_are_each_told_of_their_own_limit(tmp_path: Path) -> None:
    """Two accounts that come to their warnings in one call are told one after the other; none is lost."""
    policy = (
        "budgets: {one: {of: global, model_calls: 4, warn_at: 0.25}, two: {of: global, model_calls: 8, warn_at: 0.125}}"
    )
    with make_guard(tmp_path, policy) as guard:
        model = guard.model(ScriptedModel(script=in_turn("x")))
        threads = [threading.Thread(target=model.invoke, args=("hi",)) for _ in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        rows = [entry["body"] for run in guard.ledger.runs() for entry in guard.ledger.read(run.run)]
    flagged = sorted(row["reason"] for row in rows if row.get("verdict") == "flag")
    assert flagged == ["budget.one.model_calls", "budget.two.model_calls"]
