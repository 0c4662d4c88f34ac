"""What a model call is charged when the model does not say what it used."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from chat import ScriptedModel, in_turn, make_guard, thread

from guardrails_mw.errors import GuardrailBlocked

POLICY = "budgets: {run: {tokens: 10000, model_calls: 9}}"


@pytest.mark.parametrize("seam", ["callbacks", "model"])
def test_input_is_charged_without_usage(seam: str, tmp_path: Path) -> None:
    """A long prompt costs its estimate in every seam, though the model reports no usage."""
    model, prompt = ScriptedModel(script=in_turn("ok"), usage=False), "word " * 400
    with make_guard(tmp_path, POLICY) as guard:
        if seam == "callbacks":
            model.invoke(prompt, {"callbacks": guard.callbacks()})
        else:
            guard.model(model).invoke(prompt, thread())
        [run] = guard.ledger.runs()
        used = guard.store.used(f"run:{run.run}:tokens")
    assert used == 500 + 4 + 1 + 4


@pytest.mark.parametrize("seam", ["callbacks", "model"])
def test_what_is_offered_beside_messages_counts(seam: str, tmp_path: Path) -> None:
    """The schemas of tools go into the model as well, and are held and charged like what is said."""
    offered = [{"type": "function", "function": {"name": "look", "description": "word " * 400}}]
    model = ScriptedModel(script=in_turn("ok"), usage=False)
    with make_guard(tmp_path, POLICY) as guard:
        if seam == "callbacks":
            model.bind(tools=offered).invoke("hi", {"callbacks": guard.callbacks()})
        else:
            guard.model(model).bind(tools=offered).invoke("hi", thread())
        [run] = guard.ledger.runs()
        used = guard.store.used(f"run:{run.run}:tokens")
    assert 500 < used < 560


@pytest.mark.parametrize("mode", ["invoke", "stream"])
@pytest.mark.parametrize("seam", ["callbacks", "model"])
def test_calls_under_one_run_id_are_each_counted(seam: str, mode: str, tmp_path: Path) -> None:
    """A caller who gives several calls of a model the same run id pays for each of them."""
    model, run_id = ScriptedModel(script=in_turn("ok")), uuid4()
    with make_guard(tmp_path, "budgets: {run: {model_calls: 3}}\non_block: raise") as guard:
        if seam == "callbacks":
            call = getattr(model.with_config(callbacks=guard.callbacks()), mode)
        else:
            call = getattr(guard.model(model), mode)
        for _ in range(3):
            list(call("hi", {"run_id": run_id}))
        with pytest.raises(GuardrailBlocked, match=r"budget\.run\.model_calls"):
            list(call("hi", {"run_id": run_id}))
    assert model.calls == 3
