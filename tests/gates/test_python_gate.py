"""A user's own function as a gate: found, bound, called, and made again in another process."""

from __future__ import annotations

import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Actor, Content, Event, Origin, Stage, ToolCall, Where
from guardrails_mw.gate import Cost, Gate, Site, offered
from guardrails_mw.gates.python import PythonConfig, PythonGate
from guardrails_mw.verdict import Action, Edit, Finding, Remedy, Verdict
from guardrails_mw.workers import IsolatedWorker

MODULE = """
from guardrails_mw.verdict import Verdict

def no_competitors(event, names=("Acme",), *, at="block"):
    found = any(name in event.content.text for name in names)
    return getattr(Verdict, at)("competitor") if found else Verdict.allow()

async def slowly(event):
    return Verdict.flag("async")

class Checker:
    def __call__(self, event):
        return Verdict.flag("object")
    async def later(self, event):
        return Verdict.flag("method")

class Later:
    async def __call__(self, event):
        return Verdict.flag("later")

checker, later = Checker(), Later()
number = 7
def nothing(event): return None
def yes(event): return True
def text(event): return "allow"
def fails(event): raise NotImplementedError
def two(event, needed): return Verdict.allow()
"""
HELLO = Event(Stage.INPUT, Content("buy from Acme"))


@pytest.fixture(autouse=True)
def my_app(tmp_path, monkeypatch):
    """An application with checks, one of them offered as an entry point."""
    (tmp_path / "my_checks.py").write_text(MODULE)
    (tmp_path / "needs_more.py").write_text("import not_installed_anywhere")
    (tmp_path / "explodes.py").write_text("raise RuntimeError('at import')")
    info = tmp_path / "my_app-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-app\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[guardrails_mw.checks]\ncompetitors = my_checks:no_competitors\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    import sys

    for name in ("my_checks", "needs_more", "explodes"):
        sys.modules.pop(name, None)


def gate(call: str, **keys) -> PythonGate:
    built = PythonGate.build(PythonConfig.model_validate({"call": call, **keys}), Site("mine", None))
    assert isinstance(built, Gate)
    return built


def test_a_function_decides():
    """The function is given the event, and its verdict is the gate's."""
    mine = gate("my_checks:no_competitors")
    assert (mine.name, mine.cost) == ("mine", Cost.BLOCKING)
    assert mine.check(HELLO).reason == "competitor"
    assert mine.check(Event(Stage.INPUT, Content("hello"))).action is Action.ALLOW


def test_arguments_come_from_the_policy():
    """What stands under `with` reaches the function by name."""
    mine = gate("my_checks:no_competitors", **{"with": {"names": ["from"], "at": "ask"}})
    assert mine.check(HELLO).action is Action.ASK
    assert mine.kwargs == {"names": ["from"], "at": "ask"}


def test_an_object_that_can_be_called_is_a_check():
    """Not only plain functions: whatever takes an event."""
    assert gate("my_checks:checker").check(HELLO).reason == "object"


def test_a_bare_name_is_an_entry_point():
    """An installed package's check is known by its name."""
    assert gate("competitors").check(HELLO).reason == "competitor"


def test_what_is_installed_later_is_found(my_app):
    """Installed packages are read once, and again when one more has been installed beside them."""
    os.utime(my_app, (1, 1))
    assert "later" not in {point.name for point in offered("guardrails_mw.checks")}
    info = my_app / "more-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: more\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[guardrails_mw.checks]\nlater = my_checks:no_competitors\n")
    assert gate("later").check(HELLO).reason == "competitor"


@pytest.mark.parametrize(("call", "reason"), [("my_checks:slowly", "async"), ("my_checks:later", "later"),
                                              ("my_checks:checker.later", "method")])  # fmt: skip
@pytest.mark.anyio
async def test_an_async_function_is_awaitable(call, reason):
    """The gate hands an awaitable on, and says that it does."""
    mine = gate(call)
    assert mine.awaits
    assert (await mine.check(HELLO)).reason == reason


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("call", ["my_checks:slowly", "my_checks:later", "my_checks:checker.later"])
def test_an_async_function_cannot_be_isolated(call):
    """A process runs functions, not coroutines; said when the policy is loaded."""
    with pytest.raises(PolicyError, match="cannot be isolated; allowed: linear, blocking"):
        gate(call, cost="isolated")


@pytest.mark.parametrize(("call", "value"), [("nothing", None), ("yes", True), ("text", "allow")])
def test_what_is_no_verdict_is_not_made_one(call, value):
    """None, True and a text reach the engine as they are, which treats them as errors."""
    assert gate(f"my_checks:{call}").check(HELLO) is value


def test_an_exception_is_not_swallowed():
    """What the function raises is the engine's to judge."""
    with pytest.raises(NotImplementedError):
        gate("my_checks:fails").check(HELLO)


@pytest.mark.parametrize(("call", "said"), [
    ("my_checks:no_competitor", "did you mean 'no_competitors'?"),
    ("my_checks:checker.latr", "did you mean 'later'?"),
    ("my_chekcs:no_competitors", "the module my_chekcs cannot be found"),
    ("my_checks.inner:f", "the module my_checks.inner cannot be found"),
    ("needs_more:f", "not_installed_anywhere, which needs_more imports,"),
    ("explodes:f", "importing explodes failed: RuntimeError"),
    ("my_checks:number", "of type int, not a function"),
    ("my_checks:Checker", "a class, not a function"),
    ("competitor", "did you mean 'competitors'?"),
    ("my_checks:", "write package.module:name"),
    (":f", "write package.module:name"),
])  # fmt: skip
def test_a_wrong_name_is_a_policy_error(call, said):
    """The error names what could not be found and what is nearest."""
    with pytest.raises(PolicyError) as error:
        gate(call)
    assert said in str(error.value)
    assert error.value.field == "call"


@pytest.mark.parametrize(("call", "given_", "said"), [
    ("my_checks:no_competitors", {"nmaes": []}, "did you mean 'names'?"),
    ("my_checks:two", {}, "allowed: needed"),
    ("my_checks:yes", {"x": 1}, "allowed: nothing"),
])  # fmt: skip
def test_wrong_arguments_are_a_policy_error(call, given_, said):
    """Arguments that the function does not take, or misses, are found at load."""
    with pytest.raises(PolicyError) as error:
        gate(call, **{"with": given_})
    assert said in str(error.value)
    assert error.value.field == "with"


@pytest.mark.parametrize("keys", [{"call": ""}, {"cost": "free", "call": "a:b"}, {"call": "a:b", "wiht": {}}, {}])
def test_wrong_keys_are_refused(keys):
    """Unknown keys and costs are errors."""
    with pytest.raises(ValueError):
        PythonConfig.model_validate(keys)


def test_a_recipe_makes_the_check_again_in_another_process():
    """A process that is started fresh finds the function by the recipe and decides on an event sent to it."""
    mine = gate("my_checks:no_competitors", cost="isolated", **{"with": {"at": "flag"}})
    assert mine.cost is Cost.ISOLATED
    worker = IsolatedWorker(mine.recipe().load)
    try:
        assert worker.call(HELLO, 60) == Verdict.flag("competitor")
        assert worker.call(Event(Stage.INPUT, Content("hello")), 60) == Verdict.allow()
    finally:
        worker.close()


def test_a_recipe_can_be_pickled_where_the_function_cannot():
    """That is what recipes are for: a function with bound arguments does not travel."""
    recipe = gate("my_checks:no_competitors", **{"with": {"at": "flag"}}).recipe()
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(recipe.load())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from(Stage), st.sampled_from(Origin), st.booleans())
def test_events_survive_pickling(value, stage, origin, walked):
    """An event is the same after a trip to a process, whether its content was walked before or not."""
    call, where = ToolCall("t", {"a": 1}, "id"), Where("r", "t")
    event = Event(stage, Content(value), origin, Actor("u", ["r"], "t"), where, call, "k")
    if walked:
        assert isinstance(event.content.parts, tuple)
    again = pickle.loads(pickle.dumps(event))
    assert again == event
    assert again.content.parts == event.content.parts


@given(st.sampled_from(Action), st.text(max_size=9), st.floats(0, 1), st.sampled_from(Remedy))
def test_verdicts_survive_pickling(action, reason, score, remedy):
    """A verdict is the same after a trip back."""
    verdict = Verdict(action, reason, (Edit(0, 1, "x"),), (Finding("T", 0, 1),), score, 0.5, remedy, "note")
    assert pickle.loads(pickle.dumps(verdict)) == verdict
