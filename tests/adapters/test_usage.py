"""What a model call is charged when the model does not say what it used."""

from __future__ import annotations

from pathlib import Path

import pytest
from chat import ScriptedModel, in_turn, make_guard, thread

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
