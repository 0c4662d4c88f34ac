"""Conditions in a policy: ``tool == 'sql' and args.rows > 1000``.

A condition reads a few names, compares, and does nothing else: no calls, no arithmetic, no methods. A
name that nobody provides is an error when the policy loads, and an evaluation that fails counts as a
match, because conditions guard (`ask`, `block`): a missing value must never make a rule more permissive.
Neither must a value of another kind: the model may write ``"1"`` where the tool takes 1, so comparing a
text with a number fails, as does comparing anything with ``nan``.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

from simpleeval import DEFAULT_OPERATORS, EvalWithCompoundTypes

from guardrails_mw.document import nearest
from guardrails_mw.event import Event

__all__ = ["Condition"]

_NAMES = ["actor", "agent", "args", "tool"]
_FIELDS = {"actor": ["id", "roles", "tenant"]}
_ALLOWED = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.Compare, ast.Eq, ast.NotEq,
    ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn, ast.Name, ast.Load, ast.Attribute, ast.Constant, ast.List,
    ast.Tuple,
)  # fmt: skip
_MAX_LENGTH = 1000


def _kind(value: object) -> str:
    """What a tool's own conversion keeps apart: "1" may become 1 and "yes" may become True, after the rule looked."""
    if isinstance(value, bool | int | float):
        return "number"
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list | tuple) else "mapping" if isinstance(value, Mapping) else "other"


def _comparable(left: object, right: object) -> None:
    """Raise `TypeError` where a comparison says nothing about what the tool will get: other kinds, not a number."""
    if left is None or right is None:
        return
    if _kind(left) != _kind(right) or any(value != value for value in (left, right)):  # noqa: PLR0124 - only nan is so
        raise TypeError("not comparable")


def _checked(compare: Callable[..., bool]) -> Callable[[object, object], bool]:
    def checked(left: object, right: object) -> bool:
        _comparable(left, right)
        return compare(left, right)

    return checked


def _contains(item: object, container: object) -> bool:
    if isinstance(container, list | tuple):
        for each in container:
            _comparable(item, each)
    return operator.contains(container, item)  # type: ignore[arg-type]


_OPERATORS = {
    **DEFAULT_OPERATORS,
    ast.Eq: _checked(operator.eq),
    ast.NotEq: _checked(operator.ne),
    ast.Lt: _checked(operator.lt),
    ast.LtE: _checked(operator.le),
    ast.Gt: _checked(operator.gt),
    ast.GtE: _checked(operator.ge),
    ast.In: _contains,
    ast.NotIn: lambda item, container: not _contains(item, container),
}


class _Evaluator(EvalWithCompoundTypes):  # type: ignore[misc]
    """Dots read keys of mappings, never attributes of objects. Values of different kinds do not compare."""

    def _eval_attribute(self, node: ast.Attribute) -> object:
        value = self._eval(node.value)
        if not isinstance(value, Mapping):
            raise TypeError("not a mapping")
        return value[node.attr]


class Condition:
    """A checked condition.

    Raises:
        ValueError: not an expression, something that conditions may not do, or an unknown name; the
            message says what is allowed.

    >>> from guardrails_mw.event import Content, Event, Stage, ToolCall
    >>> event = Event(Stage.TOOL_CALL, Content({}), call=ToolCall("refund", {"amount": 250}))
    >>> Condition("args.amount > 100").matches(event)
    True
    >>> Condition("args.missing > 100").matches(event)      # cannot be evaluated: counts as a match
    True
    """

    def __init__(self, source: str) -> None:
        self.source = source
        if len(source) > _MAX_LENGTH:
            raise ValueError(f"a condition has at most {_MAX_LENGTH} characters")
        try:
            tree = ast.parse(source.strip(), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            raise ValueError(f"not a condition: {source!r}; for example: args.amount > 100") from None
        for node in ast.walk(tree):
            _refuse_unknown(node)
        self._node = tree.body
        self.args = frozenset(
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args"
        )
        """The argument names that the condition reads."""

    def matches(self, event: Event) -> bool:
        """Whether it holds for a tool call; True also when it cannot be evaluated."""
        call = event.tool
        names: dict[str, object] = {
            "tool": call.name if call else "",
            "args": call.args if call else {},
            "agent": event.where.agent,
            "actor": {"id": event.actor.id, "roles": list(event.actor.roles), "tenant": event.actor.tenant},
        }
        evaluator = _Evaluator(operators=_OPERATORS, names=names, functions={})
        try:
            return bool(evaluator.eval(self.source, previously_parsed=self._node))
        except Exception:  # noqa: BLE001 - whatever goes wrong, the rule stays strict
            return True

    def __repr__(self) -> str:
        return f"Condition({self.source!r})"


def _refuse_unknown(node: ast.AST) -> None:
    if not isinstance(node, _ALLOWED):
        raise ValueError(  # noqa: TRY004 - one kind of error for one kind of mistake
            f"a condition cannot use {type(node).__name__}; it compares values with and, or, not, in, ==, <, >"
        )
    if isinstance(node, ast.Name) and node.id not in _NAMES:
        raise ValueError(f"unknown name {node.id!r}; {nearest(node.id, _NAMES)}")
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        fields = _FIELDS.get(node.value.id)
        if fields and node.attr not in fields:
            raise ValueError(f"unknown name {node.value.id}.{node.attr}; {nearest(node.attr, fields)}")
