"""Llama Guard behind an address: real HTTP against a server on loopback."""

from __future__ import annotations

import math
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.errors import GateError, PolicyError
from guardrails_mw.event import Content, Event, Origin, Stage
from guardrails_mw.gate import DEADLINE, Site
from guardrails_mw.gates.llama_guard.endpoint import MAX_REPLY, read_reply
from guardrails_mw.gates.llama_guard.gate import LlamaGuardConfig, LlamaGuardGate
from guardrails_mw.verdict import Action


def gate(url: str, **keys) -> LlamaGuardGate:
    return LlamaGuardGate.build(LlamaGuardConfig(endpoint=url, model="guard", **keys), Site("harm", Path()))


def step(token: str, **rivals: float) -> dict:
    top = [{"token": each, "logprob": value} for each, value in rivals.items()]
    return {"token": token, "logprob": rivals.get(token, 0.0), "top_logprobs": top}


HELLO = Event(Stage.INPUT, Content("hello"))


def test_the_score_comes_from_the_log_probabilities(chat_server):
    """P(unsafe) is taken at the first token that is not whitespace, over the two words alone."""
    steps = [step("\n\n"), step("unsafe", unsafe=math.log(0.6), safe=math.log(0.2), maybe=math.log(0.2)), step("\n")]
    chat_server.answers("\n\nunsafe\nS10,S1", steps)
    verdict = gate(chat_server.url).check(HELLO)
    assert (verdict.action, verdict.reason) == (Action.BLOCK, "harm.S10")
    assert verdict.score == pytest.approx(0.75)


def test_a_word_cut_in_two_tokens_is_understood(chat_server):
    """A tokenizer that begins "unsafe" with "un" gives the same score."""
    chat_server.answers("unsafe\nS1", [step("un", un=math.log(0.9), safe=math.log(0.1)), step("safe")])
    assert gate(chat_server.url).check(HELLO).score == pytest.approx(0.9)


@pytest.mark.parametrize(("text", "score"), [("\n\nsafe", 0.0), ("unsafe\nS1", 1.0)])
def test_without_log_probabilities_the_word_decides(chat_server, text, score):
    """A server that gives none still gives a verdict: 1 or 0."""
    chat_server.answers(text)
    assert gate(chat_server.url).check(HELLO).score == score


def test_what_is_sent(chat_server):
    """The request asks for log-probabilities, carries the key, and alternates roles for a model's output."""
    chat_server.answers("safe")
    gate(chat_server.url + "/", api_key="sesame").check(Event(Stage.OUTPUT, Content("a<|eot_id|>b"), Origin.MODEL))
    (request,), (headers,) = chat_server.requests, chat_server.headers
    assert chat_server.paths == ["/v1/chat/completions"]
    assert headers["Authorization"] == "Bearer sesame"
    assert [turn["role"] for turn in request["messages"]] == ["user", "assistant"]
    assert request["messages"][1]["content"] == "a< |eot_id| >b"
    assert (request["logprobs"], request["top_logprobs"], request["temperature"]) == (True, 5, 0)
    assert request["model"] == "guard"


def test_the_key_is_not_shown():
    """A gate's configuration can be printed without its key."""
    assert "sesame" not in repr(LlamaGuardConfig(endpoint="http://x/v1", api_key="sesame"))


def test_every_window_is_sent_and_the_worst_counts(chat_server):
    """A long text is sent in overlapping pieces; one unsafe piece blocks the whole."""

    def reply(request):
        text = request["messages"][-1]["content"]
        return {"choices": [{"message": {"content": "unsafe\nS9" if "bomb" in text else "safe"}}]}

    chat_server.reply = reply
    small = gate(chat_server.url, max_chars=64)
    assert small.check(Event(Stage.INPUT, Content("x" * 500))).action is Action.ALLOW
    sent = [request["messages"][0]["content"] for request in chat_server.requests]
    assert sum(map(len, sent)) >= 500
    assert max(map(len, sent)) <= 64
    assert small.check(Event(Stage.INPUT, Content("x" * 500 + "bomb"))).action is Action.BLOCK


def test_nothing_to_judge_is_not_sent(chat_server):
    """An empty text costs no call."""
    assert gate(chat_server.url).check(Event(Stage.INPUT, Content(" \n"))).action is Action.ALLOW
    assert chat_server.requests == []


@pytest.mark.parametrize("status", [500, 429, 401, 404, 204])
def test_another_status_than_200_is_an_error(chat_server, status):
    """Whatever the body says, only a 200 is an answer."""
    chat_server.answers("safe")
    chat_server.status = status
    with pytest.raises(GateError, match=r"^llama_guard\.http$"):
        gate(chat_server.url).check(HELLO)


def test_a_redirect_is_not_followed(chat_server):
    """The text goes to the address in the policy and nowhere else."""
    chat_server.answers("safe")
    chat_server.status, chat_server.location = 307, chat_server.url + "/elsewhere"
    with pytest.raises(GateError, match=r"llama_guard\.http"):
        gate(chat_server.url).check(HELLO)
    assert len(chat_server.requests) == 1


NONSENSE = [
    b"", b"not json", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}',
    b'{"choices": [{"message": {"content": ["safe"]}}]}', b"[" * 50_000, b'"\xff"',
    *({"choices": [{"message": {"content": text}}]} for text in
      ("", "sure", "I think it is safe", "safe?", "safety", "safe\nS1", "not safe", "un", "safe unsafe")),
]  # fmt: skip


@pytest.mark.parametrize("reply", NONSENSE)
def test_nonsense_is_an_error(chat_server, reply):
    """An answer that is not clearly safe or unsafe is never read as safe."""
    chat_server.reply = lambda request: reply
    with pytest.raises(GateError, match=r"^llama_guard\.unparsable$"):
        gate(chat_server.url).check(HELLO)


@pytest.mark.parametrize("steps", [
    [step("unsafe", unsafe=-0.1)], [step("\n")], [{"token": "safe"}], [step("safe", safe=math.nan)], "safe", [7],
    [{"token": "safe", "logprob": "x"}], [step("safe", safe=5.0)], [{"token": "safe", "logprob": 0, "top_logprobs": 3}],
])  # fmt: skip
def test_log_probabilities_that_contradict_the_text_are_an_error(chat_server, steps):
    """Log-probabilities that do not belong to the answer are not used, and neither is the answer."""
    chat_server.answers("safe", steps)
    with pytest.raises(GateError, match=r"^llama_guard\.unparsable$"):
        gate(chat_server.url).check(HELLO)


def test_a_refused_connection_is_an_error():
    """A server that is down is not "safe"."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(GateError, match=r"llama_guard\.unreachable"):
        gate(f"http://127.0.0.1:{port}/v1").check(HELLO)


def test_a_server_that_is_not_http_is_an_error():
    """Bytes that are no HTTP reply are an error of the exchange."""
    from threading import Thread

    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as peer:
                peer.recv(65536)
                peer.sendall(b"SSH-2.0-safe\r\n")

        Thread(target=serve, daemon=True).start()
        with pytest.raises(GateError, match=r"llama_guard\.unreachable"):
            gate(f"http://127.0.0.1:{server.getsockname()[1]}/v1").check(HELLO)


def test_a_huge_reply_is_not_read(chat_server):
    """A reply above the bound is an error, also when it begins like an answer."""
    chat_server.reply = lambda request: b'{"choices": [{"message": {"content": "safe"}}]}' + b" " * MAX_REPLY
    with pytest.raises(GateError, match=r"llama_guard\.too_large"):
        gate(chat_server.url).check(HELLO)


@pytest.mark.parametrize("drip", [0.05, 30.0])
def test_a_slow_server_is_left_at_the_deadline(chat_server, drip):
    """A server that sends a byte now and then holds the check no longer than one that sends nothing."""
    chat_server.answers("safe")
    chat_server.drip = drip  # the whole reply would take 7 s and an hour
    started = time.perf_counter()
    token = DEADLINE.set(started + 0.4)
    try:
        with pytest.raises(GateError, match=r"^deadline$"):
            gate(chat_server.url).check(HELLO)
    finally:
        DEADLINE.reset(token)
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize("url", ["ftp://x/v1", "localhost:8000", "http://", "http://u:p@x/v1", "http://x:port/v1"])
def test_an_address_that_is_none_is_a_policy_error(url):
    """A wrong address is found when the policy is loaded."""
    with pytest.raises(PolicyError):
        gate(url)


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from(["safe", "unsafe", "\n"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["choices", "message", "content", "logprobs", "token", "logprob"]), inner),
    max_leaves=12,
))  # fmt: skip
def test_no_reply_escapes_as_another_error(reply):
    """Whatever a server sends, reading it answers or raises `GateError`."""
    import json

    body = reply if isinstance(reply, bytes) else json.dumps({"choices": [reply]}).encode()
    with suppress(GateError):
        assert 0 <= read_reply(body).score <= 1
