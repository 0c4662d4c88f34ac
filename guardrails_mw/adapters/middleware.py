"""The middleware for `create_agent`: guards the agent's model and every tool it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import cast

from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import (
    ExtendedModelResponse,
    ModelCallResult,
    ModelRequest,
    ModelResponse,
)
from langchain.agents.structured_output import AutoStrategy, ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, RemoveMessage
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from guardrails_mw.adapters.answered import ANSWERED, Answered
from guardrails_mw.adapters.exchange import Exchange
from guardrails_mw.adapters.host import Runs
from guardrails_mw.adapters.messages import name_of
from guardrails_mw.adapters.model import GuardedChatModel, guard_model
from guardrails_mw.adapters.reading import Entered, Reading
from guardrails_mw.adapters.target import Target
from guardrails_mw.adapters.tools import ToolResult, guarded_call
from guardrails_mw.enforcer import Enforcer
from guardrails_mw.event import Stage
from guardrails_mw.generation import Seat
from guardrails_mw.seam import MIDDLEWARE, Power
from guardrails_mw.wait import Either, drive, drive_async

__all__ = ["GuardrailsMiddleware"]

_MAX_MODELS = 16


class GuardrailsMiddleware(AgentMiddleware):
    """Everything a policy decides, in an agent. Made by `Guard.middleware`.

    The model is swapped for a guarded one, so that streams, tracers and checkpoints see guarded data.
    Messages that were edited or blocked are replaced in the agent's state under the same id.
    """

    name = "Guardrails"

    def __init__(
        self,
        seat: Seat,
        runs: Runs,
        check_tools: Callable[[Sequence[object]], None],
        cheaper: BaseChatModel | None = None,
    ) -> None:
        super().__init__()
        self._seat, self._runs, self._check_tools, self._cheaper = seat, runs, check_tools, cheaper
        self._seen: frozenset[str] = frozenset()
        self._wanted: tuple[object, frozenset[str]] = (None, frozenset())
        self._models: dict[tuple[int, frozenset[str]], tuple[BaseChatModel, GuardedChatModel]] = {}

    def wrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]
    ) -> ModelCallResult:
        """Call the guarded model."""
        return drive(self._model_call(request, lambda changed: Either.only_here(lambda: handler(changed))))

    # The asynchronous hooks are plain functions that give something to await: LangChain would wrap an `async def`
    # so that it crosses to another thread and back twice, whether anything traces it or not.

    def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
    ) -> Coroutine[object, object, ModelCallResult]:
        """Call the guarded model."""
        return drive_async(self._model_call(request, lambda changed: Either.only_there(lambda: handler(changed))))

    async def _model_call(
        self, request: ModelRequest, call: Callable[[ModelRequest], Either[ModelResponse]]
    ) -> ModelCallResult:
        """Call the guarded model; an answer that is not what it gave, but another middleware's, is decided here."""
        model, answered = self._guarded(request), Answered(self._seat)
        exchange = model.exchange(await self._runs.here())
        reading = await exchange.read(request.messages, system=True)  # the agent's own words are not among these
        changed = request.override(model=model, messages=cast("list[AnyMessage]", reading.messages))
        token = ANSWERED.set(answered)
        try:
            with Entered(exchange.enforcer, exchange.here, reading).standing():
                response = await call(changed)
        finally:
            ANSWERED.reset(token)
        response = await _decided(response, exchange, Target(model.inner), answered)
        return self._with_state(response, _replacements(request.messages, reading, exchange.enforcer))

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], ToolResult]) -> ToolResult:
        """Run the tool under guard."""
        return drive(self._tool(request, lambda changed: Either.only_here(lambda: handler(changed))))

    def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolResult]]
    ) -> Coroutine[object, object, ToolResult]:
        """Run the tool under guard."""
        return drive_async(self._tool(request, lambda changed: Either.only_there(lambda: handler(changed))))

    async def _tool(
        self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Either[ToolResult]]
    ) -> ToolResult:
        return await guarded_call(self._seat.enforcer, request, await self._runs.here(), MIDDLEWARE, execute)

    def _guarded(self, request: ModelRequest) -> GuardedChatModel:
        names = frozenset(str(getattr(tool, "name", "")) for tool in request.tools)
        if names != self._seen:
            self._check_tools(request.tools)
            self._seen = names
        wanted = request.response_format
        if self._wanted[0] is not wanted:  # a schema takes longer to read than a gate
            self._wanted = (wanted, _answer_names(wanted))
        return self._model(request.model, self._wanted[1])

    def _model(self, model: BaseChatModel, answers: frozenset[str]) -> GuardedChatModel:
        """The model, guarded; made once, since making it takes longer than a gate."""
        known = self._models.get((id(model), answers))
        if known is not None and known[0] is model:
            return known[1]
        guarded = cast(
            "GuardedChatModel", guard_model(model, self._seat, self._runs, MIDDLEWARE, answers, self._cheaper)
        )
        if len(self._models) >= _MAX_MODELS:  # an agent that makes a model for every request
            self._models.clear()
        self._models[id(model), answers] = (model, guarded)
        return guarded

    @staticmethod
    def _with_state(response: ModelResponse, replacements: list[BaseMessage]) -> ModelCallResult:
        """The response, and with it what changes in the agent's state."""
        if not replacements:
            return response
        return ExtendedModelResponse(response, Command(update={"messages": replacements}))


def _replacements(messages: Sequence[BaseMessage], reading: Reading, enforcer: Enforcer) -> list[BaseMessage]:
    """State messages that must not stay as they are."""
    remove = enforcer.manners.blocked_messages == "remove"
    replacements: list[BaseMessage] = []
    for index, decision in reading.decisions.items():
        message, new = messages[index], reading.messages[index]
        if message.id is None or new == message:
            continue
        gone = remove and decision.blocked and decision.stage is Stage.INPUT
        replacements.append(RemoveMessage(id=message.id) if gone else new)
    return replacements


async def _decided(response: ModelResponse, exchange: Exchange, target: Target, answered: Answered) -> ModelResponse:
    """A response with each answer in it decided that is not, to the letter, what the guarded model gave.

    What was read out of such an answer already cannot be edited any more.
    """
    if response.structured_response is not None:
        exchange = replace(exchange, seam=exchange.seam.without(Power.EDIT))
    result = list[BaseMessage]()
    for message in response.result:
        if not isinstance(message, AIMessage) or answered.gave(message):
            result.append(message)
            continue
        counted = answered.began(message)
        said, refused = await exchange.foreign(message, name_of(message), None if counted else target)
        result.append(said)
        if refused:
            return ModelResponse(result=result)
    return response if result == response.result else ModelResponse(result=result)


def _answer_names(wanted: object) -> frozenset[str]:
    """Tools whose arguments are the agent's structured answer, by what it asks for.

    Raises `ValueError` for a schema whose tool LangChain would give a name that nobody else can know.
    """
    if wanted is None or isinstance(wanted, ProviderStrategy):
        return frozenset()  # the answer is the text
    schema = wanted.schema if isinstance(wanted, AutoStrategy) else wanted
    specs = (wanted if isinstance(wanted, ToolStrategy) else ToolStrategy(schema)).schema_specs  # type: ignore[arg-type]
    if not isinstance(wanted, ToolStrategy) and any(
        isinstance(s.schema, dict) and "title" not in s.schema for s in specs
    ):
        raise ValueError(
            "response_format: give the JSON schema a title, or an answer in it could not be told from a call"
        )
    return frozenset(spec.name for spec in specs)
