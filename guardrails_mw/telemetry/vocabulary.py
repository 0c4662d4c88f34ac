"""The attributes of a span, in three vocabularies at once.

Langfuse reads its own ``langfuse.*``, Phoenix reads OpenInference, other receivers read the GenAI
conventions of OpenTelemetry. Every span carries all three, and guardrail spans also ``guardrails_mw.*``,
which is stable whatever the conventions become.

Sources: langfuse.com/integrations/native/opentelemetry, the OpenInference semantic conventions, and
OpenTelemetry's GenAI conventions, which name ``gen_ai.evaluation.*`` but no guardrail so far.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeAlias

from guardrails_mw.verdict import Action, Check, Decision, Verdict

__all__ = ["KINDS", "WORDS", "Attributes", "content", "guardrail", "kind", "level", "outcome", "place", "usage"]

Scalar: TypeAlias = str | bool | int | float
Attributes: TypeAlias = dict[str, Scalar | tuple[str, ...]]

KINDS: Mapping[str, tuple[str, str, str]] = {
    "agent": ("agent", "AGENT", "invoke_agent"),
    "chain": ("chain", "CHAIN", ""),
    "model": ("generation", "LLM", "chat"),
    "tool": ("tool", "TOOL", "execute_tool"),
    "retriever": ("retriever", "RETRIEVER", "retrieval"),
    "guardrail": ("guardrail", "GUARDRAIL", "apply_guardrail"),
}
"""Per kind of span: Langfuse's observation type, OpenInference's span kind, GenAI's operation."""

_MIMES = ("text/plain", "application/json")
_LEVELS = ("DEFAULT", "WARNING", "ERROR")

WORDS = frozenset(
    {word for words in KINDS.values() for word in words}
    | {action.word for action in Action}
    | {*_MIMES, *_LEVELS, "edit", "interrupt", "open", "", "input", "model", "output", "tool_call", "tool_result"}
)
"""Values this package itself chooses. They hold no content, so a trace keeps its shape even where nothing
can be redacted."""


def kind(name: str) -> Attributes:
    """What a span is.

    >>> kind("tool")["openinference.span.kind"]
    'TOOL'
    """
    langfuse, openinference, operation = KINDS[name]
    result: Attributes = {"langfuse.observation.type": langfuse, "openinference.span.kind": openinference}
    if operation:
        result["gen_ai.operation.name"] = operation
    return result


def place(thread: str, user: str) -> Attributes:
    """Whose conversation a span belongs to."""
    result: Attributes = {}
    if thread:
        result["session.id"] = result["gen_ai.conversation.id"] = thread
    if user:
        result["user.id"] = user
    return result


def content(which: str, text: str, is_json: bool) -> Attributes:
    """The ``input`` or ``output`` of a span."""
    return {
        f"langfuse.observation.{which}": text,
        f"{which}.value": text,
        f"{which}.mime_type": _MIMES[is_json],
    }


def level(name: str, message: str) -> Attributes:
    """How bad it is, in Langfuse's words, and why, as a code."""
    return {"langfuse.observation.level": name, "langfuse.observation.status_message": message}


def usage(model: str, input_tokens: int, output_tokens: int) -> Attributes:
    """The model that answered and the tokens it used."""
    total = input_tokens + output_tokens
    result: Attributes = {}
    if model:
        result["gen_ai.response.model"] = result["langfuse.observation.model.name"] = model
    if total:
        result |= {
            "gen_ai.usage.input_tokens": input_tokens,
            "gen_ai.usage.output_tokens": output_tokens,
            "llm.token_count.prompt": input_tokens,
            "llm.token_count.completion": output_tokens,
            "llm.token_count.total": total,
            "langfuse.observation.usage_details": json.dumps(
                {"input": input_tokens, "output": output_tokens, "total": total}
            ),
        }
    return result


def outcome(action: Action, edited: bool) -> str:
    """An action as one word, where letting something pass edited is ``edit``.

    >>> outcome(Action.ALLOW, edited=True)
    'edit'
    """
    return "edit" if edited and action is Action.ALLOW else action.word


def guardrail(decision: Decision, check: Check) -> Attributes:
    """A gate's check: what it said (``verdict``) apart from what was done (``enforced``)."""
    verdict, event = check.verdict, decision.event
    said, done = outcome(verdict.action, bool(verdict.edits)), outcome(decision.action, decision.edited)
    own = _own(decision, check, said, done)
    result: Attributes = {
        **kind("guardrail"),
        **place(event.where.thread, event.actor.id),
        **level(_severity(check), f"{said}: {verdict.reason}" if verdict.reason else said),
        **content("output", json.dumps({"verdict": said, "enforced": done, "reason": verdict.reason}), is_json=True),
        **_evaluation(check.gate, verdict, said),
        "metadata": json.dumps(own),
        "graph.node.name": check.gate,
        "langfuse.observation.metadata.langgraph_node": f"gate:{check.gate}",
    }
    if check.error:
        result["error.type"] = check.error
    for key, value in own.items():
        result[f"guardrails_mw.{key}"] = value
        result[f"langfuse.observation.metadata.{key}"] = value if isinstance(value, str) else json.dumps(value)
    return result


def _own(decision: Decision, check: Check, said: str, done: str) -> dict[str, Scalar]:
    verdict = check.verdict
    optional: dict[str, Scalar | None] = {
        "score": verdict.score,
        "threshold": verdict.threshold,
        "reason": verdict.reason or None,
        "error": check.error or None,
        "approval": decision.approval or None,
    }
    return {
        "gate": check.gate,
        "stage": decision.stage.value,
        "verdict": said,
        "enforced": done,
        "policy": decision.policy,
        "latency_ms": round(check.seconds * 1000, 3),
        "seam": decision.seam,
        "decision": decision.id,
        "shadow": decision.shadow,
        **{key: value for key, value in optional.items() if value is not None},
    }


def _evaluation(gate: str, verdict: Verdict, said: str) -> Attributes:
    result: Attributes = {"gen_ai.evaluation.name": gate, "gen_ai.evaluation.score.label": said}
    if verdict.score is not None:
        result["gen_ai.evaluation.score.value"] = verdict.score
    if verdict.reason:
        result["gen_ai.evaluation.explanation"] = verdict.reason
    return result


def _severity(check: Check) -> str:
    if check.error or check.verdict.action is Action.BLOCK:
        return "ERROR"
    return "WARNING" if check.verdict.action is not Action.ALLOW or check.verdict.edits else "DEFAULT"
