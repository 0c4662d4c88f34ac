"""Who says canaries: a user, a model and tools that put one into every field that they can fill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool, InjectedToolCallId, StructuredTool
from langgraph.types import Command
from pydantic import PrivateAttr

from guardrails_mw.event import Stage
from guardrails_mw.testing.canary import Canaries
from guardrails_mw.testing.model import ScriptedChatModel

__all__ = ["STORIES", "CanaryModel", "Planting", "Story", "stage_of"]

Story: TypeAlias = Literal["calls", "says", "tool fails", "model fails"]
STORIES: Sequence[Story] = ("calls", "says", "tool fails", "model fails")
"""What happens in a run: the model calls tools and then answers, it only answers, a tool raises, the model raises."""

_STAGES = {
    "input": Stage.INPUT,
    "output": Stage.OUTPUT,
    "call": Stage.TOOL_CALL,
    "result": Stage.TOOL_RESULT,
}


def stage_of(field: str) -> Stage | None:
    """The stage at which a field is decided, by the first word of its name; None for what your own code fills.

    >>> stage_of("call.args"), stage_of("config.tags")
    (<Stage.TOOL_CALL: 'tool_call'>, None)
    """
    return _STAGES.get(field.partition(".")[0])


class Planting:
    """Messages, answers and results with canaries in every field.

    Attributes:
        story: what happens in the next run.
        heard: what the model was given.
        got: what tools were called with.
    """

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self.text, self.word = canaries.text, canaries.word
        self.story: Story = "calls"
        self.heard: list[object] = []
        self.got: list[object] = []

    def messages(self) -> list[BaseMessage]:
        """What a user says."""
        return [
            HumanMessage(
                [{"type": "text", "text": self.text("input.block")}],
                name=self.text("input.name"),
                id=self.text("input.id"),
                additional_kwargs=self.table("input.additional_kwargs"),
                response_metadata=self.table("input.response_metadata"),
            ),
            HumanMessage(self.text("input.text")),
        ]

    def table(self, field: str) -> dict[str, object]:
        """A value of every kind under a key, as a key, and, where they are digits, as numbers of both types."""
        digits = [value for kind in self._canaries.kinds if (value := self._canaries.value(field, kind)).isdigit()]
        return {
            "note": self.text(field),
            self.text(f"{field}.key"): True,
            "numbers": [each(value) for value in digits for each in (int, float)],
        }

    def config(self) -> dict[str, object]:
        """What an application's own code says beside it."""
        return {
            "configurable": {"note": self.text("config.configurable")},
            "metadata": {"note": self.text("config.metadata")},
            "tags": [self.text("config.tags")],
            "run_name": self.text("config.run_name"),
        }

    def calling(self, tools: Sequence[str]) -> AIMessage:
        """An answer that calls tools, one call for each way in which a tool may answer."""
        ways = ("error",) if self.story == "tool fails" else ("text", "message", "command")
        calls = [
            {"name": name, "args": {"q": self.text(f"call.args.{way}"), "way": way}, "id": f"{name}-{way}"}
            for name in tools
            for way in ways
        ]
        wrong = {"args": f'{{"q": {self.text("call.invalid.args")}', "id": "wrong", "error": None}
        named = {"name": self.word("call.word"), "args": {}, "id": self.word("call.word")}
        unknown = {"name": self.text("call.name"), "args": {self.text("call.args.key"): 1}, "id": self.text("call.id")}
        return AIMessage(
            [
                {"type": "text", "text": self.text("output.beside_calls")},
                *({"type": "tool_use", "id": c["id"], "name": c["name"], "input": c["args"]} for c in calls),
            ],
            tool_calls=[*calls, unknown, named],
            invalid_tool_calls=[{**wrong, "name": tools[0] if tools else "none"}],
        )

    def saying(self) -> AIMessage:
        """An answer."""
        cited = [{"type": "citation", "cited_text": self.text("output.citation"), "url": "https://example.org"}]
        return AIMessage(
            [
                {"type": "reasoning", "reasoning": self.text("output.reasoning")},
                {"type": "text", "text": self.text("output.block"), "annotations": cited},
            ],
            name=self.text("output.name"),
            additional_kwargs={
                "reasoning_content": self.text("output.additional_kwargs"),
                **self.table("output.beside"),
            },
            response_metadata={
                "grounding": [self.text("output.response_metadata")],
                **self.table("output.told"),
                "logprobs": {"content": [{"token": self.text("output.logprobs")}]},
            },
            usage_metadata={"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
        )

    def result(self, way: str, call_id: str) -> object:
        """What a tool gives back."""
        if way == "error":
            cause = ExceptionGroup("several", [ValueError(self.text("result.exception.part"))])
            raise ValueError(self.text("result.exception")) from cause
        if way == "text":
            return self.text("result.text")
        message = ToolMessage(
            [{"type": "text", "text": self.text(f"result.{way}.block"), "id": self.text(f"result.{way}.block_id")}],
            name=self.text(f"result.{way}.name"),
            id=self.text(f"result.{way}.id"),
            tool_call_id=call_id,
            artifact={"rows": [self.text(f"result.{way}.artifact")], **self.table(f"result.{way}.table")},
            additional_kwargs=self.table(f"result.{way}.additional_kwargs"),
            response_metadata=self.table(f"result.{way}.response_metadata"),
            note=self.text(f"result.{way}.field"),
        )
        if way == "message":
            return message
        added = AIMessage(self.text("result.added.text"), name=self.text("result.added.name"))
        return Command(update={"messages": [message, added], "note": self.table("result.state")})

    def tool(self, name: str) -> BaseTool:
        """A tool that answers with canaries."""

        def look(q: str, way: str, call_id: Annotated[str, InjectedToolCallId] = "") -> object:
            self.got.append((name, q))
            return self.result(way, call_id)

        return StructuredTool.from_function(look, name=name, description="Looks something up.")


class CanaryModel(ScriptedChatModel):
    """A chat model that plays the story of its `Planting`: it calls tools, answers, or fails."""

    cut: str = r"(?s).{1,5}"
    _planting: Planting = PrivateAttr()
    _tools: Sequence[str] = PrivateAttr(default=())

    @classmethod
    def of(cls, planting: Planting, tools: Sequence[str]) -> CanaryModel:
        """A model that calls these tools."""
        model = cls(replies=())
        model._planting, model._tools = planting, tuple(tools)
        return model

    def bind_tools(
        self,
        tools: Sequence[object],
        **kwargs: object,  # noqa: ARG002 - LangChain's signature
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """It knows which tools it calls; what it is told of them is something that it hears."""
        self._planting.heard.append([_described(tool) for tool in tools])
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> ChatResult:
        result = super()._generate(messages, stop, run_manager, **kwargs)
        for generation in result.generations:
            generation.generation_info = {"cited": self._planting.text("output.generation_info")}
        return result

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: object,
    ) -> Iterator[ChatGenerationChunk]:
        yield from super()._stream(messages, stop, run_manager, **kwargs)
        info = {"cited": self._planting.text("output.generation_info")}
        yield ChatGenerationChunk(message=AIMessageChunk(content=""), generation_info=info)

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        planting = self._planting
        planting.heard.append(list(messages))
        if planting.story == "model fails":
            raise ValueError(planting.text("output.exception"))
        begun = planting.story == "says" or any(isinstance(message, AIMessage) for message in messages)
        return planting.saying() if begun else planting.calling(self._tools)


def _described(tool: object) -> object:
    return dict(tool) if isinstance(tool, Mapping) else (getattr(tool, "name", ""), getattr(tool, "description", ""))
