"""A model behind a gate is paid from the budgets of whoever it judges for; real HTTP against a server on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chat import ScriptedModel, in_turn, make_guard

from guardrails_mw import Guard
from guardrails_mw.event import Content, Event, Stage

HELD = 400 + 20 + 3 + 4  # the template, the answer, "good morning" at four characters a token, and a few


def judged(folder: Path, url: str, limits: str, more: str = "") -> Guard:
    """A guard whose input is judged; `more` of the policy goes on top."""
    return make_guard(
        folder,
        f"{more}\ngates: {{harm: {{type: llama_guard, endpoint: {url}, model: guard-1, max_chars: 64}}}}\n"
        f"stages: {{input: [harm]}}\nbudgets: {{all: {{of: global, {limits}}}}}",
    )


def used(guard: Guard, unit: str) -> int:
    return guard.store.used(f"all:all:{unit}")


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_judges_calls_are_counted_with_what_the_server_reports(tmp_path: Path, chat_server, mode: str) -> None:
    """Two calls, the judge's and the model's: tokens as told, and a line of its own among the costs."""
    chat_server.reply = lambda _: {
        "choices": [{"message": {"content": "safe"}}],
        "usage": {"prompt_tokens": 210, "completion_tokens": 4},
    }
    with judged(tmp_path, chat_server.url, "model_calls: 9, tokens: 9000") as guard:
        model = guard.model(ScriptedModel(script=in_turn("hello")))
        said = model.invoke("good morning") if mode == "sync" else asyncio.run(model.ainvoke("good morning"))
        assert said.content == "hello"
        assert (used(guard, "model_calls"), used(guard, "tokens")) == (2, 214 + 15)
        costs = {row.name: (row.model_calls, row.input_tokens, row.output_tokens) for row in guard.spend("model")}
        assert costs["guard-1"] == (1, 210, 4)


def test_a_judge_that_nothing_is_left_for_is_not_asked(tmp_path: Path, chat_server) -> None:
    """The text that it should have judged is blocked with the budget's code; nothing stays held."""
    chat_server.answers("safe")
    with judged(tmp_path, chat_server.url, "model_calls: 1") as guard:
        assert guard.check("good morning").action.word == "allow"
        refused = guard.check("good evening")
        assert (refused.action.word, refused.verdict.reason) == ("block", "budget.all.model_calls")
        assert len(chat_server.requests) == 1
        assert used(guard, "model_calls") == 1


def test_every_window_is_a_call_and_those_not_made_cost_nothing(tmp_path: Path, chat_server) -> None:
    """A long text is judged in pieces; the first that is unsafe ends it, and the rest is given back."""
    chat_server.answers("safe")
    with judged(tmp_path, chat_server.url, "model_calls: 99") as guard:
        guard.check("good morning " * 20)
        whole = len(chat_server.requests)
        assert whole > 2
        assert used(guard, "model_calls") == whole
        chat_server.answers("unsafe\nS1")
        assert guard.check("good evening " * 20).verdict.reason == "harm.S1"
        assert used(guard, "model_calls") == whole + 1


def test_a_judge_that_fails_is_charged_what_was_held(tmp_path: Path, chat_server) -> None:
    """Nobody knows what a call cost that ended badly; a server that tells no figures is taken by the estimate."""
    chat_server.answers("safe")
    with judged(tmp_path, chat_server.url, "tokens: 9000") as guard:
        guard.check("good morning")
        assert used(guard, "tokens") == HELD
        chat_server.status = 500
        assert guard.check("good morning").verdict.reason == "error.llama_guard.http"
        assert used(guard, "tokens") == 2 * HELD


def test_a_judge_without_a_price_is_not_asked_where_money_counts(tmp_path: Path, chat_server) -> None:
    """As for any model: a price, also of nothing, lets it be asked."""
    chat_server.answers("safe")
    with judged(tmp_path, chat_server.url, "usd: 1", "prices: {other: {input: 1, output: 1}}") as guard:
        assert guard.check("good morning").verdict.reason == "budget.unknown_price"
    with judged(tmp_path, chat_server.url, "usd: 1", "prices: {guard-1: {input: 0, output: 0}}") as guard:
        assert guard.check("good morning").action.word == "allow"


def test_in_shadow_mode_a_judge_is_asked_whatever_is_left(tmp_path: Path, chat_server) -> None:
    """Nothing is refused there, and what it cost is counted."""
    chat_server.answers("safe")
    with judged(tmp_path, chat_server.url, "model_calls: 1", "mode: shadow") as guard:
        for text in ("good morning", "good evening"):
            assert guard.check(text).verdict.action.word == "allow"
        assert len(chat_server.requests) == 2
        assert guard.spend("model")[0].model_calls == 2


def test_a_text_that_is_only_tried_costs_nothing(tmp_path: Path, chat_server) -> None:
    """What never happens is judged, and charged to nobody."""
    chat_server.answers("safe")
    with judged(tmp_path, chat_server.url, "model_calls: 1") as guard:
        for _ in range(3):
            guard.engine.judge(Event(Stage.INPUT, Content("good morning")))
        assert len(chat_server.requests) == 3
        assert used(guard, "model_calls") == 0
