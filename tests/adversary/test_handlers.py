"""What a caller puts into a configuration does not make a handler look away."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from chat import ScriptedModel, decisions, in_turn, make_guard

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
