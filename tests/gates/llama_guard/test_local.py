"""Llama Guard in this process: a real model, loaded and run the way a user's is."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guardrails_mw.errors import GateError, PolicyError
from guardrails_mw.event import Content, Event, Origin, Stage, ToolCall
from guardrails_mw.gate import DEADLINE, Cost, Site
from guardrails_mw.gates.llama_guard.conversation import conversation
from guardrails_mw.gates.llama_guard.gate import LlamaGuardConfig, LlamaGuardGate
from guardrails_mw.gates.llama_guard.local import _broken
from guardrails_mw.verdict import Action

transformers = pytest.importorskip("transformers")
ANSWER = "please tell me how to bake bread"


def gate(folder: Path, **keys) -> LlamaGuardGate:
    return LlamaGuardGate.build(LlamaGuardConfig(model=folder.name, **keys), Site("harm", folder.parent))


@pytest.fixture(scope="module")
def harm(model_folder) -> LlamaGuardGate:
    built = gate(model_folder)
    built.warm()
    return built


def user(text: str) -> Event:
    return Event(Stage.INPUT, Content(text))


@pytest.mark.parametrize(("word", "reason"), [("bomb", "harm.S9"), ("steal", "harm.S2")])
@pytest.mark.parametrize("event_as", [(Stage.INPUT, Origin.USER), (Stage.OUTPUT, Origin.MODEL),
                                      (Stage.TOOL_RESULT, Origin.TOOL), (Stage.TOOL_CALL, Origin.MODEL)])  # fmt: skip
def test_unsafe_is_blocked_with_the_models_own_category(harm, word, reason, event_as):
    """At every stage an unsafe text is blocked, with P(unsafe) and the category that the model generated."""
    stage, origin = event_as
    verdict = harm.check(Event(stage, Content(f"tell me how to {word} bread"), origin))
    assert (verdict.action, verdict.reason, verdict.threshold) == (Action.BLOCK, reason, 0.5)
    assert 0.9 < verdict.score <= 1


@pytest.mark.parametrize("origin", list(Origin))
def test_safe_is_allowed_with_its_score(harm, origin):
    """A safe text passes and its low score is on record."""
    verdict = harm.check(Event(Stage.INPUT, Content(ANSWER), origin))
    assert verdict.action is Action.ALLOW
    assert 0 < verdict.score < 0.1


def test_arguments_of_a_tool_call_are_read(harm):
    """Harm inside a nested argument is seen, not only a plain text."""
    call = ToolCall("order", {"note": {"lines": ["bake bread", "bomb"]}})
    assert harm.check(Event(Stage.TOOL_CALL, Content(call.args), Origin.MODEL, call=call)).action is Action.BLOCK


def test_a_long_text_is_read_to_its_end(model_folder):
    """Harm at the very end of a text longer than one window still blocks; without it the same text passes."""
    long = " ".join([ANSWER] * 40)
    small = gate(model_folder, max_chars=100)
    assert small.check(user(long + " bomb")).reason == "harm.S9"
    assert small.check(user(long)).action is Action.ALLOW


def test_more_than_the_model_can_read_is_an_error(harm):
    """A window that does not fit the model is not cut and not called safe."""
    with pytest.raises(GateError, match="too_long"):
        harm.check(user(" ".join([ANSWER] * 60)))


def test_only_the_chosen_categories_count(model_folder):
    """With `categories`, other categories pass and the chosen one still blocks."""
    chosen = gate(model_folder, categories=["S2"])
    assert chosen.check(user("bomb")).action is Action.ALLOW
    assert chosen.check(user("steal")).reason == "harm.S2"


def test_flag_at_lies_below_block_at(model_folder):
    """A score between the two thresholds is flagged, and `block_at` decides above."""
    flagging = gate(model_folder, block_at=1.0, flag_at=0.5)
    verdict = flagging.check(user("bomb"))
    assert (verdict.action, verdict.reason, verdict.threshold) == (Action.FLAG, "harm.S9", 0.5)


def test_a_low_threshold_counts_before_the_model_says_unsafe(model_folder, harm):
    """The score decides, not the word: a threshold under a safe text's score blocks it without a category."""
    score = harm.check(user(ANSWER)).score
    assert gate(model_folder, block_at=score / 2).check(user(ANSWER)).reason == "harm"


@pytest.mark.parametrize("mark", ["<|eot_id|>", "<|assistant|>", "<|begin_of_text|>", "[UNK]"])
def test_a_text_cannot_answer_for_the_model(harm, mark):
    """A special token written into a text is broken up before the model's tokenizer reads it."""
    loaded = harm._judge._loaded
    (turn,) = conversation(user(mark), f"bomb {mark} bread")
    text = _broken(turn["content"], loaded.marks)
    assert mark not in text
    if mark != "[UNK]":  # which is also what every unknown word becomes
        ids = loaded.tokenizer.encode(text, add_special_tokens=False)
        assert loaded.tokenizer.convert_tokens_to_ids(mark) not in ids
    assert harm.check(user(f"bomb {mark} bread")).action is Action.BLOCK


def test_the_models_own_marks_are_broken_whatever_they_look_like(harm):
    """Marks that no general pattern knows are taken from the tokenizer."""
    assert "[UNK]" in harm._judge._loaded.marks
    assert _broken("a [TURN] b", ("[TURN]",)) == "a [ TURN] b"


def test_an_image_is_not_passed_as_safe_in_silence(harm):
    """What the model cannot read is flagged."""
    blocks = Content([{"type": "text", "text": ANSWER}, {"type": "image", "base64": "AAAA"}], blocks=True)
    assert harm.check(Event(Stage.INPUT, blocks)).reason == "harm.unreadable"


def test_threads_get_their_own_answers(harm):
    """Concurrent checks do not mix up."""
    words = ["bomb", "bread", "steal", "poem"] * 8
    with ThreadPoolExecutor(8) as pool:
        reasons = list(pool.map(lambda word: harm.check(user(word)).reason, words))
    assert reasons == ["harm.S9", "", "harm.S2", ""] * 8


def test_a_passed_deadline_is_an_error(harm):
    """With no time left nothing is decided."""
    token = DEADLINE.set(time.perf_counter() - 1)
    try:
        with pytest.raises(GateError, match="deadline"):
            harm.check(user("bread"))
    finally:
        DEADLINE.reset(token)


def test_waiting_for_another_check_ends_at_the_deadline(model_folder):
    """A check that finds the model busy gives up when its own time is over."""
    busy = gate(model_folder)
    token = DEADLINE.set(time.perf_counter() + 0.05)
    try:
        with busy._judge._lock, pytest.raises(GateError, match="deadline"):
            busy.check(user("bread"))
    finally:
        DEADLINE.reset(token)


def altered(model_folder: Path, tmp_path: Path, change) -> Path:
    """A copy of the model with something changed."""
    folder = tmp_path / "altered"
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    change(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_model_that_rambles_is_an_error(model_folder, tmp_path):
    """A model that answers neither safe nor unsafe allows nothing."""

    def ramble(model, tokenizer):
        model.lm_head.weight.data.zero_()
        model.lm_head.weight.data[tokenizer.convert_tokens_to_ids("bread")] = 0.0

    with pytest.raises(GateError, match="unparsable"):
        gate(altered(model_folder, tmp_path, ramble)).check(user("bomb"))


def test_a_template_of_typed_blocks_is_recognised(model_folder, tmp_path):
    """The 1B and vision templates read typed blocks; the gate finds that out and still judges the text."""

    def blocks(model, tokenizer):
        tokenizer.chat_template = tokenizer.chat_template.replace(
            "message['content'] | trim", "message['content'][0]['text'] | trim"
        )

    built = gate(altered(model_folder, tmp_path, blocks))
    assert [built.check(user(word)).reason for word in ("bomb", "bread")] == ["harm.S9", ""]


@pytest.mark.parametrize("template", [None, "{{ '<|begin_of_text|>' }}", "{{ messages[0]['content'] }}"])
def test_a_template_that_hides_a_turn_is_refused(model_folder, tmp_path, template):
    """A model that would never see the text is refused when it is loaded."""

    def blind(model, tokenizer):
        tokenizer.chat_template = template

    with pytest.raises(PolicyError, match="template"):
        gate(altered(model_folder, tmp_path, blind)).warm()


def test_loading_is_lazy_and_repeatable(model_folder):
    """The first check loads a model that was never warmed, also after `close`."""
    lazy = gate(model_folder)
    assert lazy._judge._loaded is None
    assert lazy.check(user("bomb")).action is Action.BLOCK
    lazy.close()
    assert lazy.check(user("bomb")).action is Action.BLOCK
    assert lazy.cost is Cost.BLOCKING


@pytest.mark.parametrize("name", ["./missing", "../missing", "a/b/c"])
def test_a_missing_folder_is_named(tmp_path, name):
    """A path without a folder is an error when the policy is loaded."""
    with pytest.raises(PolicyError, match=r"missing|a/b/c"):
        LlamaGuardGate.build(LlamaGuardConfig(model=name), Site("harm", tmp_path))


def test_a_folder_without_a_model_is_a_policy_error(tmp_path):
    """An empty folder and an impossible device say what is wrong."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(PolicyError, match="cannot load the model"):
        LlamaGuardGate.build(LlamaGuardConfig(model="empty"), Site("harm", tmp_path)).warm()


def test_an_impossible_device_is_a_policy_error(model_folder):
    """A device that torch does not know says so."""
    with pytest.raises(PolicyError, match="warp"):
        gate(model_folder, device="warp").warm()


def test_without_transformers_the_extra_is_named(model_folder, monkeypatch):
    """A missing library is found when the policy is loaded, with the command that installs it."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(PolicyError, match=r"pip install 'guardrails-mw\[llama-guard\]'"):
        gate(model_folder)


def test_building_the_gate_imports_no_heavy_library():
    """Torch is imported by `warm`, not by naming the gate in a policy."""
    code = (
        "import sys; from pathlib import Path; from guardrails_mw.gate import Site\n"
        "from guardrails_mw.gates.llama_guard.gate import LlamaGuardConfig as C, LlamaGuardGate as G\n"
        "G.build(C(), Site('harm', Path('/')))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("keys", [
    {"flag_at": 0.6}, {"api_key": "k"}, {"categories": []}, {"categories": ["violence"]}, {"block_at": 0},
    {"endpoint": "http://x", "device": "cpu"}, {"modle": "x"},
])  # fmt: skip
def test_contradicting_keys_are_refused(keys):
    """Keys that could only be a mistake are errors."""
    with pytest.raises(ValueError):
        LlamaGuardConfig(**keys)
