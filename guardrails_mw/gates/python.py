"""A user's own function as a gate."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias, cast

from pydantic import Field, JsonValue

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Event
from guardrails_mw.gate import Cost, Gate, GateConfig, Site
from guardrails_mw.gates.importing import imported
from guardrails_mw.verdict import Verdict

__all__ = ["CheckFunction", "PythonConfig", "PythonGate", "Recipe"]

GROUP = "guardrails_mw.checks"
"""Entry point group in which packages offer functions under a bare name."""

CheckFunction: TypeAlias = "Callable[[Event], Verdict | Awaitable[Verdict]]"
"""What a user writes, once its keyword arguments are bound."""


class PythonConfig(GateConfig):
    """The keys of a `python` gate."""

    type: Literal["python"] = "python"
    call: str = Field(min_length=1)
    """The function: ``package.module:name``, or the name of an installed check."""
    cost: Cost = Cost.BLOCKING
    """``linear``: inline; ``blocking``: in a thread; ``isolated``: in a process that is killed on overrun."""
    with_: dict[str, JsonValue] = Field(default_factory=dict, alias="with")
    """Keyword arguments for the function, after the event."""
    max_span: int | None = Field(default=None, ge=1, le=8192)
    """Characters of the longest thing it looks for, if what it says of that depends on nothing farther away than
    `look_back` and `look_ahead`. A stream then flows past it in windows; otherwise it is held until its end."""
    look_back: int = Field(default=0, ge=0, le=8192)
    """Characters that it has to see before what it looks for."""
    look_ahead: int = Field(default=0, ge=0, le=8192)
    """Characters that it has to see after what it looks for."""
    classifies: bool = False
    """Whether it judges a text as a whole, and the beginning of one as well: for ``stream: {hold: window}``."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to make the function again in another process. It can be pickled; the function need not be.

    >>> Recipe("guardrails_mw.verdict:Verdict.allow").load()("event").action.word
    'allow'
    """

    call: str
    kwargs: Mapping[str, JsonValue] = field(default_factory=dict)

    def load(self) -> CheckFunction:
        """The function with its arguments bound. Raises `PolicyError` when it cannot be found or called."""
        target = imported(self.call, field="call", group=GROUP)
        if inspect.isclass(target) or not callable(target):
            kind = "a class" if inspect.isclass(target) else f"of type {type(target).__name__}"
            raise PolicyError(f"{self.call!r} is {kind}, not a function that takes an event", field="call")
        _fits(self.call, target, self.kwargs)
        kwargs = dict(self.kwargs)

        def check(event: Event) -> Verdict | Awaitable[Verdict]:
            return cast("Verdict | Awaitable[Verdict]", target(event, **kwargs))

        return check if kwargs else cast("CheckFunction", target)


class PythonGate(Gate):
    """Asks a user's function.

    What the function returns or raises is passed on as it is: the engine turns everything but a verdict into
    the policy's `on_error`. An `async` function is awaited by the engine.

    Args:
        name: the gate's name in the policy.
        recipe: the function and its arguments.
        cost: how the engine runs it.

    Raises:
        PolicyError: the function cannot be found or called so, or it is `async` and should be isolated.
    """

    config_type: ClassVar[type[GateConfig]] = PythonConfig

    def __init__(self, name: str, recipe: Recipe, cost: Cost = Cost.BLOCKING) -> None:
        super().__init__(name)
        self.cost = cost
        self._recipe, self._check = recipe, recipe.load()
        self.awaits = _is_async(imported(recipe.call, field="call", group=GROUP))
        """Whether the function is `async`."""
        if self.awaits and cost is Cost.ISOLATED:
            problem = f"{recipe.call!r} is async and cannot be isolated; allowed: linear, blocking"
            raise PolicyError(problem, field="cost")

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> PythonGate:
        """Find the function, so that a wrong name is an error when the policy is loaded."""
        assert isinstance(config, PythonConfig)
        gate = cls(site.name, Recipe(config.call, config.with_), config.cost)
        gate.classifies = config.classifies
        if config.max_span is not None:
            gate.look_back, gate.max_span, gate.look_ahead = config.look_back, config.max_span, config.look_ahead
        return gate

    @property
    def call(self) -> str:
        """The function's import path or entry point name, as in the policy."""
        return self._recipe.call

    @property
    def kwargs(self) -> Mapping[str, JsonValue]:
        """The function's keyword arguments."""
        return self._recipe.kwargs

    def recipe(self) -> Recipe:
        """What a process needs to make the function again."""
        return self._recipe

    def check(self, event: Event) -> Verdict | Awaitable[Verdict]:
        """Ask the function, in this thread, whatever `cost` says: to isolate it is the engine's work."""
        return self._check(event)


def _is_async(target: object) -> bool:
    """Whether calling gives something to await; also for an object with an `async` call."""
    return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(getattr(type(target), "__call__", None))  # noqa: B004 - its type's call, not whether it has one


def _fits(call: str, target: Callable[..., object], kwargs: Mapping[str, JsonValue]) -> None:
    """Raise `PolicyError` when the function cannot be called with an event and these arguments."""
    try:
        signature = inspect.signature(target)
    except ValueError:  # some builtins have none
        return
    try:
        signature.bind(None, **kwargs)
    except TypeError as error:
        rest = list(signature.parameters.values())[1:]
        named = [each.name for each in rest if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        unknown = next((key for key in kwargs if key not in named), "")
        hint = nearest(unknown, named) if unknown else f"allowed: {', '.join(named) or 'nothing'}"
        problem = f"{call!r} cannot be called with an event and these arguments: {error}; {hint}"
        raise PolicyError(problem, field="with") from None
