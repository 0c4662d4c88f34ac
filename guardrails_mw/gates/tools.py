"""The tool policy: which tools may run, for whom, with which arguments, and what their results must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Content, Event, Stage, ToolCall
from guardrails_mw.gate import Gate
from guardrails_mw.gates.json_schema import SchemaCheck
from guardrails_mw.gates.json_value import UnfitError, json_text, json_value
from guardrails_mw.sections import Rule, ToolPolicy
from guardrails_mw.verdict import Action, Remedy, Verdict

__all__ = ["ToolsGate", "check_names", "tool_args"]

_EMPTY = frozenset({"", "[]", "{}", "null", "none", '""', "''"})


class ToolsGate(Gate):
    """Decides tool calls and results by the policy's `tools`, `tiers` and `default_tool`.

    Args:
        tools: the policy of every named tool.
        default: what a tool means that is not named.
        tiers: what a tool's tier means where the tool has no `ask` rules of its own.
        base: folder that schema files are relative to.
    """

    stages = frozenset({Stage.TOOL_CALL, Stage.TOOL_RESULT})
    joins = False

    def __init__(
        self, tools: Mapping[str, ToolPolicy], default: Action, tiers: Mapping[str, Action], base: Path
    ) -> None:
        super().__init__("tools")
        self._tools, self._default, self._tiers = dict(tools), default, dict(tiers)
        self._args = {
            n: SchemaCheck.from_file(t.args_schema, base) for n, t in tools.items() if t.args_schema is not None
        }
        self._results = {
            n: SchemaCheck.from_file(t.result_schema, base) for n, t in tools.items() if t.result_schema is not None
        }

    def may(self, stage: Stage) -> frozenset[str]:
        """It asks only before a call, and blocks results only where a tool says what they must be."""
        tools = self._tools.values()
        if stage is Stage.TOOL_RESULT:
            return frozenset({"block"} if self._results or any(tool.on_empty == "block" for tool in tools) else ())
        asks = Action.ASK in (self._default, *self._tiers.values()) or any(tool.ask for tool in tools)
        return frozenset({"block", "ask"} if asks else {"block"})

    def check(self, event: Event) -> Verdict:
        """Decide one call or result."""
        call = event.tool
        if call is None:
            return Verdict.allow()
        if event.stage is Stage.TOOL_RESULT:
            return self._result(call, event.content)
        if not call.valid:
            return Verdict.block("tool.invalid_args", remedy=Remedy.REASK, note="The arguments were not valid JSON.")
        if not call.known:
            return Verdict.block("tool.unknown")
        tool = self._tools.get(call.name)
        if tool is None:
            return Verdict(self._default, "tool.not_listed" if self._default > Action.ALLOW else "")
        return self._listed(tool, call, event)

    def _listed(self, tool: ToolPolicy, call: ToolCall, event: Event) -> Verdict:
        if tool.roles and not event.actor.has_role(*tool.roles):
            return Verdict.block("tool.role" if event.actor.id else "tool.no_actor")
        schema = self._args.get(call.name)
        if schema is not None and (problems := schema.problems(json_value(event.content.value))):
            return Verdict.block("tool.args_schema", remedy=Remedy.REASK, note="; ".join(problems[:3]))
        if reason := _matching(tool.block, event):
            return Verdict.block(reason)
        if reason := _matching(tool.ask, event):
            return Verdict.ask(reason)
        tier = Action.ALLOW if tool.ask else self._tiers.get(tool.tier, Action.ALLOW)
        return Verdict(tier, f"tool.{tool.tier}") if tier > Action.ALLOW else Verdict.allow()

    def _result(self, call: ToolCall, content: Content) -> Verdict:
        tool = self._tools.get(call.name)
        if tool is None:
            return Verdict.allow()
        if tool.on_empty != "allow" and content.text.strip().lower() in _EMPTY:
            return Verdict(Action[tool.on_empty.upper()], "tool.empty_result")
        schema = self._results.get(call.name)
        if schema is None:
            return Verdict.allow()
        try:
            value = content.value
            problems = schema.problems(json_text(value) if isinstance(value, str) else json_value(value))
        except UnfitError as error:
            return Verdict.block(f"tool.result_schema.{error.code}")
        return Verdict.block("tool.result_schema") if problems else Verdict.allow()


def _matching(rules: Sequence[Rule], event: Event) -> str:
    """The reason codes of all rules that match, joined; empty when none does."""
    return "+".join(rule.because for rule in rules if rule.condition.matches(event))


def check_names(tools: Mapping[str, ToolPolicy], given: Mapping[str, Sequence[str]], complete: bool) -> None:
    """Compare the policy's tool and argument names with real tools.

    Args:
        tools: the policy's tools.
        given: the argument names of every real tool.
        complete: whether these are all the tools there are, so that a name missing here is wrong.

    Raises:
        PolicyError: a tool or an argument that does not exist, with the nearest spelling.
    """
    for name, tool in tools.items():
        args = given.get(name)
        if args is None:
            if complete:
                raise PolicyError(f"no such tool; {nearest(name, sorted(given))}", field=f"tools.{name}")
            continue
        for kind, rules in (("ask", tool.ask), ("block", tool.block)):
            for index, rule in enumerate(rules):
                for unknown in sorted(rule.condition.args - set(args)):
                    raise PolicyError(
                        f"the tool has no argument {unknown!r}; {nearest(unknown, sorted(args))}",
                        field=f"tools.{name}.{kind}.{index}.if",
                    )


def tool_args(tools: Sequence[object]) -> dict[str, list[str]]:
    """Name and argument names of tools, as far as they are known: LangChain tools, or plain functions."""
    found: dict[str, list[str]] = {}
    for tool in tools:
        args = getattr(tool, "args", None)
        name = getattr(tool, "name", None) or getattr(tool, "__name__", None)
        if name and isinstance(args, Mapping):
            found[str(name)] = list(args)
        elif name and callable(tool):
            code = getattr(tool, "__code__", None)
            found[str(name)] = list(code.co_varnames[: code.co_argcount]) if code else []
    return found
