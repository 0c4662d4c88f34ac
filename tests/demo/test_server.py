"""The demo's model server, asked over the wire."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from guardrails_mw.demo.conversations import Reply
from guardrails_mw.demo.server import HEADER, JUDGE, MODEL, ModelServer

SCRIPT = [Reply(say="You said: {last}"), Reply(say="one moment", call="get_order", args={"order_id": "1001"})]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer({"c": SCRIPT, "d": SCRIPT}) as running:
        yield running


def _model(server: ModelServer, conversation: str) -> ChatOpenAI:
    return ChatOpenAI(
        model=MODEL,
        base_url=server.url,
        api_key=SecretStr("none"),
        default_headers={HEADER: conversation},
        max_retries=0,
        stream_usage=True,
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_the_real_client_reads_text_calls_and_usage(server: ModelServer, streamed: bool) -> None:
    """Plain and streamed answers carry the same text, tool call and usage, told apart by conversation."""

    def ask(model: ChatOpenAI, text: str):
        if not streamed:
            return model.invoke(text)
        chunks = list(model.stream(text))
        assert len(chunks) > 3
        return sum(chunks[1:], chunks[0])

    model = _model(server, "c")
    assert ask(_model(server, "d"), "hey").text == "You said: hey"
    assert ask(model, "hello").text == "You said: hello"
    answer = ask(model, "and?")
    assert answer.text == "one moment"
    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("get_order", {"order_id": "1001"})]
    assert answer.usage_metadata["output_tokens"] > 0
    assert "and?" in server.seen("c")
    assert "and?" not in server.seen("d")


def _post(url: str, body: object) -> dict[str, object]:
    with urlopen(Request(f"{url}/chat/completions", json.dumps(body).encode(), {HEADER: "c"})) as response:
        return json.load(response)


def test_usage_is_streamed_only_where_it_is_asked_for(server: ModelServer) -> None:
    """The last piece of a stream holds usage with `include_usage`, and there is none without."""
    for options, wanted in (({}, False), ({"stream_options": {"include_usage": True}}, True)):
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "x"}], **options}
        with urlopen(Request(f"{server.url}/chat/completions", json.dumps(body).encode(), {HEADER: "c"})) as response:
            text = response.read().decode()
        assert text.endswith("data: [DONE]\n\n")
        assert ('"usage"' in text) is wanted


def test_the_judge_answers_in_the_form_of_llama_guard(server: ModelServer) -> None:
    """The other model says safe, or unsafe with a category."""
    for text, said in (("a nice day", "safe"), ("a PIPE bomb", "unsafe\nS9")):
        reply = _post(server.url, {"model": JUDGE, "messages": [{"role": "user", "content": text}]})
        assert reply["choices"][0]["message"]["content"] == said


@pytest.mark.parametrize("body", [{}, [], {"model": JUDGE, "messages": []}, {"model": MODEL, "messages": 5}])
def test_a_request_that_makes_no_sense_is_an_error(server: ModelServer, body: object) -> None:
    """The server answers 400, and goes on."""
    with pytest.raises(HTTPError, match="400"):
        _post(server.url, body)
    with pytest.raises(HTTPError, match="400"):
        _post(f"{server.url}/other", {"model": JUDGE, "messages": [{"role": "user", "content": "x"}]})
    assert _post(server.url, {"model": JUDGE, "messages": [{"role": "user", "content": "x"}]})


def test_a_script_that_is_over_is_an_error(server: ModelServer) -> None:
    """A call that nobody expected is not answered with something made up."""
    for _ in SCRIPT:
        _post(server.url, {"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
    with pytest.raises(HTTPError, match="400"):
        _post(server.url, {"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
