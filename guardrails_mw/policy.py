"""The policy file as typed, frozen objects.

Every key that the file may hold is a field here, and its docstring is what editors show. A policy cannot
be silently empty: an unknown key, gate, stage or condition name, a gate that no stage uses, a stage that
no gate can serve are errors when it loads, each with file, line, field and what is allowed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, PrivateAttr, ValidationError
from pydantic.json_schema import SkipJsonSchema

from guardrails_mw.account import KINDS
from guardrails_mw.diagnostics import explained, together
from guardrails_mw.document import Document, nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Path as Loc
from guardrails_mw.event import Stage
from guardrails_mw.gate import GateConfig, GateTypes
from guardrails_mw.sections import (
    Answer,
    ApprovalPolicy,
    BudgetPolicy,
    LoopsPolicy,
    Price,
    QueuePolicy,
    RecordPolicy,
    ReservePolicy,
    RiskPolicy,
    Section,
    StagePolicy,
    StreamPolicy,
    ToolPolicy,
    TracesPolicy,
    VaultPolicy,
    limits_of,
)

__all__ = ["Policy"]


class Policy(Section):
    """A guardrails policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, title="Guardrails policy")

    version: Literal[1]
    """Version of this file format."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """`shadow` decides and records everything and changes nothing."""
    on_error: Literal["block", "flag", "queue", "unsafe_allow"] = "block"
    """What a gate means that fails or overruns; `queue`: the request waits for it to come back, then is blocked."""
    queue: QueuePolicy = QueuePolicy()
    """How requests wait for a gate whose `on_error` is `queue`."""
    on_unenforceable: Literal["block", "flag"] = "block"
    """What happens where a seam cannot carry out a decision, such as an edit in a callback."""
    unchecked: Literal["block", "flag", "allow"] = "block"
    """What content means that no gate can read, such as an image."""
    on_block: Literal["refuse", "raise"] = "refuse"
    """Answer with a refusal, or raise `GuardrailBlocked`. Callbacks always raise."""
    refusal: str = "I can't help with that ({reason})."
    """What the user sees instead of a blocked message; may hold ``{reason}`` and ``{partial}``: what the model had said
    before a budget ended its turn."""
    blocked_messages: Literal["replace", "remove", "keep"] = "replace"
    """What stays in the conversation of a message that was blocked."""
    deadline_ms: float = Field(default=300.0, gt=0)
    """Time one gate may take for one check."""
    store: str = Field(default="memory:", repr=False)
    """Where things last: ``memory:``, ``sqlite:///g.db``, ``postgresql://...`` or ``redis://...``; see `stores.md`."""
    record: RecordPolicy = RecordPolicy()
    """What the ledger keeps."""
    stream: StreamPolicy = StreamPolicy()
    """How text is held back that is streamed."""
    vault: VaultPolicy | None = None
    """How hidden values are kept; there is a vault as soon as a gate has ``style: token``."""
    traces: TracesPolicy = TracesPolicy()
    """Where traces go."""
    gates: dict[str, SkipJsonSchema[GateConfig]] = {}
    """The gates by name; `type` says which gate, the rest are its own keys."""
    stages: dict[Stage, StagePolicy] = {}
    """Which gates are asked where, in order. A block ends the stage."""
    default_tool: Answer | None = None
    """What a tool means that `tools` does not name; `block` where there are `tools`."""
    tiers: dict[Literal["read", "write", "privileged"], Answer] = {}
    """What a tool's tier means where the tool has no `ask` rules of its own."""
    tools: dict[str, ToolPolicy] = {}
    """What each tool may do."""
    approval: ApprovalPolicy = ApprovalPolicy()
    """How people are asked."""
    budgets: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")], BudgetPolicy] = {}
    """What may be used up, by name: ``run``, ``tenant``, or any name with `of`. A call has to fit into all of them."""
    reserve: ReservePolicy = ReservePolicy()
    """What is held for a call before its cost is known."""
    risk: RiskPolicy = RiskPolicy()
    """Risk points that verdicts cost."""
    prices: dict[str, Price] = {}
    """Prices by model name; ``*`` stands for any ending."""
    price_list: Literal["genai-prices"] | None = None
    """Where prices come from that `prices` does not name; needs the extra ``prices``."""
    loops: LoopsPolicy | None = None
    """When repeating becomes a loop."""

    _hash: str = PrivateAttr(default="")
    _base: Path = PrivateAttr(default=Path())

    reserved: ClassVar[frozenset[str]] = frozenset(
        {"approval", "budget", "callbacks", "engine", "ledger", "loops", "seam", "tools", "unchecked", "vault"}
    )
    """Gate names that the sections below `gates` take for themselves."""

    @property
    def hash(self) -> str:
        """Content hash of the file before environment values were filled in: 64 hex digits."""
        return self._hash

    @property
    def label(self) -> str:
        """Format version and the first 12 digits of the hash, as records and traces show it."""
        return f"{self.version}:{self._hash[:12]}"

    @property
    def base(self) -> Path:
        """Folder that relative paths in the policy start from."""
        return self._base

    @property
    def governs_tools(self) -> bool:
        """Whether the policy says anything about which tools may run."""
        return bool(self.tools or self.tiers) or self.default_tool is not None

    @property
    def keeps_values(self) -> bool:
        """Whether hidden values come back: a gate has ``style: token``, or there is a `vault`."""
        styles = (getattr(config, "style", "") for config in self.gates.values())
        return self.vault is not None or "token" in styles

    @classmethod
    def read(cls, path: str | Path, types: GateTypes | None = None, env: Mapping[str, str] | None = None) -> Policy:
        """Load a policy file. Raises `PolicyError` for everything that is wrong with it, at once."""
        return cls.load(Document.read(path, env), types, base=Path(path).resolve().parent)

    @classmethod
    def load(cls, document: Document, types: GateTypes | None = None, base: Path | None = None) -> Policy:
        """Make a policy from a document that was read."""
        types = types or GateTypes.installed()
        data: dict[str, object] = dict(document.data)
        errors: list[PolicyError] = []
        configs = _gate_configs(document, types, errors)
        data["gates"] = configs
        data["stages"] = _stage_lists(data.get("stages", {}))
        policy = None
        try:
            policy = cls.model_validate(data)
        except ValidationError as error:
            errors += [explained(document, cls, item) for item in error.errors()]
        if policy is not None:
            errors += [document.error(loc, problem) for loc, problem in _cross_check(policy, types)]
        if errors:
            raise together(errors)
        assert policy is not None
        digest = hashlib.sha256(json.dumps(document.unexpanded, sort_keys=True).encode()).hexdigest()
        object.__setattr__(policy, "_hash", digest)
        object.__setattr__(policy, "_base", base or Path.cwd())
        return policy


def _gate_configs(document: Document, types: GateTypes, errors: list[PolicyError]) -> object:
    """Each gate's keys checked by its own type, so that errors and defaults are the gate's."""
    gates = document.data.get("gates", {})
    if not isinstance(gates, Mapping):
        return gates
    result: dict[str, GateConfig] = {}
    for name, raw in gates.items():
        kind = raw.get("type") if isinstance(raw, Mapping) else None
        if not isinstance(kind, str) or kind not in types.names:
            field: Loc = ("gates", name, "type") if kind is not None else ("gates", name)
            problem = f"unknown gate type {kind!r}" if kind is not None else "a gate needs a type"
            errors.append(document.error(field, f"{problem}; {nearest(str(kind or name), types.names)}"))
            continue
        config_type = types.get(kind).config_type
        try:
            result[name] = config_type.model_validate(raw)
        except ValidationError as error:
            errors += [explained(document, config_type, item, ("gates", name)) for item in error.errors()]
    return result


def _stage_lists(stages: object) -> object:
    if not isinstance(stages, Mapping):
        return stages
    return {name: {"gates": value} if isinstance(value, list) else value for name, value in stages.items()}


def _cross_check(policy: Policy, types: GateTypes) -> list[tuple[Loc, str]]:
    """What only the whole policy can show."""
    problems: list[tuple[Loc, str]] = []
    used = set(policy.record.redact)
    taken = f"this name is taken; reserved: {', '.join(sorted(policy.reserved))}"
    problems += [(("gates", name), taken) for name in policy.gates if name in policy.reserved]
    for stage, plan in policy.stages.items():
        used.update(plan.gates)
        for index, name in enumerate(plan.gates):
            loc: Loc = ("stages", stage.value, index)
            if name not in policy.gates:
                problems.append((loc, f"unknown gate {name!r}; {nearest(name, sorted(policy.gates))}"))
            elif stage not in (serves := types.get(policy.gates[name].type).stages):
                problems.append((loc, f"{name} cannot serve this stage; it serves: {', '.join(sorted(serves))}"))
        if len(set(plan.gates)) < len(plan.gates):
            problems.append((("stages", stage.value), "a gate is named twice"))
    for index, name in enumerate(policy.record.redact):
        if name not in policy.gates:
            hint = nearest(name, sorted(policy.gates))
            problems.append((("record", "redact", index), f"unknown gate {name!r}; {hint}"))
    problems += [(("gates", name), "no stage uses this gate") for name in policy.gates if name not in used]
    if not (policy.stages or policy.governs_tools or policy.budgets or policy.loops):
        problems.append(((), "nothing is guarded; name at least one of: stages, tools, budgets, loops"))
    problems += _budget_problems(policy)
    return problems


def _budget_problems(policy: Policy) -> list[tuple[Loc, str]]:
    problems: list[tuple[Loc, str]] = []
    for name, budget in policy.budgets.items():
        if budget.of is None and name not in KINDS:
            problems.append(
                (("budgets", name), f"whose budget is it? name it so, or say `of`; {nearest(name, list(KINDS))}")
            )
        else:
            try:
                if not limits_of(name, budget).caps and budget.wall is None:
                    problems.append((("budgets", name), "a budget needs a limit, such as model_calls"))
            except PolicyError as error:
                problems.append((("budgets", name, error.field), error.problem))
        if budget.usd is not None and not (policy.prices or policy.price_list):
            problems.append((("budgets", name, "usd"), "a limit in dollars needs prices; add the section prices"))
        problems += [
            (("budgets", name, "tools", tool), f"unknown tool; {nearest(tool, sorted(policy.tools))}")
            for tool in budget.tools
            if policy.tools and tool not in policy.tools
        ]
    return problems
