"""The policy file as typed, frozen objects.

Every key that the file may hold is a field here, and its docstring is what editors show. A policy cannot
be silently empty: an unknown key, gate, stage or condition name, a gate that no stage uses, a stage that
no gate can serve are errors when it loads, each with file, line, field and what is allowed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetPydanticSchema,
    PrivateAttr,
    SecretStr,
    ValidationError,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import core_schema

from guardrails_mw.condition import Condition
from guardrails_mw.diagnostics import explained, together
from guardrails_mw.document import Document, nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Path as Loc
from guardrails_mw.event import Stage
from guardrails_mw.gate import GateConfig, GateTypes

__all__ = [
    "ApprovalPolicy",
    "LoopsPolicy",
    "Otlp",
    "Policy",
    "Price",
    "RecordPolicy",
    "Rule",
    "RunBudget",
    "StagePolicy",
    "ToolPolicy",
    "TracesPolicy",
    "VaultPolicy",
]

Answer = Literal["allow", "flag", "ask", "block"]

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(value: object) -> float:
    match = _DURATION.match(value) if isinstance(value, str) else None
    if not match:
        raise ValueError("a duration is a number and a unit: 500ms, 30s, 30m, 2h, 7d")
    return float(match.group(1)) * _SECONDS[match.group(2)]


def _condition(value: object) -> Condition:
    if isinstance(value, Condition):
        return value
    if not isinstance(value, str):
        raise ValueError("a condition is a text, for example: args.amount > 100")  # noqa: TRY004 - pydantic wants ValueError
    return Condition(value)


Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=str)]
ConditionText = Annotated[
    Condition,
    GetPydanticSchema(
        lambda _source, _handler: core_schema.no_info_plain_validator_function(
            _condition, json_schema_input_schema=core_schema.str_schema()
        )
    ),
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


class Rule(_Section):
    """A condition on a tool call and the reason code it gives."""

    condition: ConditionText = Field(alias="if")
    """When the rule applies, for example ``args.amount > 100``."""
    because: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    """The reason code that people and records see."""


class ApprovalPolicy(_Section):
    """How a person is asked."""

    ask: str = ""
    """Who should answer; shown to them, for example ``support-lead``."""
    within: Duration = 1800.0
    """How long the question stays open."""
    on_timeout: list[Literal["block"]] = Field(default=["block"], min_length=1)
    """What happens when nobody answers in time, in this order."""


class ToolPolicy(_Section):
    """What one tool may do."""

    tier: Literal["read", "write", "privileged"] = "read"
    """How much harm it can do; `tiers` says what that means."""
    roles: list[str] = []
    """Roles of which the actor needs one. Nobody without an actor has any."""
    ask: list[Rule] = []
    """When a person has to approve the call."""
    block: list[Rule] = []
    """When the call must not happen."""
    approval: ApprovalPolicy | None = None
    """How a person is asked about this tool; the policy's own `approval` if left out."""
    args_schema: str | dict[str, object] | None = None
    """JSON Schema of the arguments: a file or a mapping."""
    result_schema: str | dict[str, object] | None = None
    """JSON Schema of the result: a file or a mapping."""
    on_empty: Literal["allow", "flag", "block"] = "allow"
    """What an empty result means."""
    sees: Literal["tokens", "raw"] = "tokens"
    """``raw``: the tool runs with real values where the model wrote tokens. Rules and reviewers see tokens."""
    polls: bool | Annotated[int, Field(ge=2, le=30)] = False
    """Whether calling it again with the same arguments is its normal use: without end, or until so many same results."""
    effect: bool | None = None
    """Whether it changes something outside: a new call is then progress, a repeated one counts harder. Judged by its
    name and results if left out."""
    key: list[str] = []
    """The arguments that tell one call from another, for loops; all if left out."""


class RunBudget(_Section):
    """What one run may use up. A limit that is left out does not exist."""

    usd: Decimal | None = Field(default=None, gt=0)
    """Money, in US dollars; needs `prices`."""
    tokens: int | None = Field(default=None, gt=0)
    """Tokens in and out."""
    model_calls: int | None = Field(default=None, gt=0)
    """Calls to models, retries included."""
    tool_calls: int | None = Field(default=None, gt=0)
    """Calls to tools."""
    seconds: float | None = Field(default=None, gt=0)
    """Time spent in model and tool calls; waiting for a person does not count."""
    warn_at: float | None = Field(default=None, gt=0, lt=1)
    """Flag from this share of a limit on."""
    assume_output: int = Field(default=1024, gt=0)
    """Output tokens to reserve for a call that names no maximum."""


class Budgets(_Section):
    """Limits by scope."""

    run: RunBudget
    """One top-level invocation together with its resumes."""


class Price(_Section):
    """What a model costs, in US dollars per million tokens."""

    input: Decimal = Field(ge=0)
    """Of a million tokens that go in."""
    output: Decimal = Field(ge=0)
    """Of a million tokens that come out."""


class LoopsPolicy(_Section):
    """When repeating becomes a loop."""

    repeats: int = Field(default=5, ge=2, le=20)
    """How often one call may give the same result."""
    cycles: int = Field(default=3, ge=2, le=5)
    """How often several calls may come in the same order with the same results."""
    errors: int = Field(default=6, ge=2, le=20)
    """How often one tool may fail with the same error, whatever its arguments."""
    no_news: int = Field(default=8, ge=2, le=20)
    """How many steps may bring nothing new."""
    steps: int | None = Field(default=None, gt=0)
    """Tool calls that a run may make; no limit if left out."""
    seconds: float | None = Field(default=None, gt=0)
    """Seconds that a run may go on calling tools, by the clock on the wall, from its first tool call; no limit if
    left out."""
    then: list[Literal["nudge", "ask", "block"]] = Field(default=["nudge", "ask", "block"], min_length=1)
    """What happens to the call that would go on with the loop, to the next one, and from there on."""


class RecordPolicy(_Section):
    """What the ledger keeps."""

    redact: list[str] = []
    """Gates whose findings are removed from everything recorded or traced."""
    content: Literal["redacted", "none"] = "redacted"
    """Whether contents are recorded at all."""
    durability: Literal["process", "power"] = "process"
    """What a record survives: the end of the process, or also a power cut."""
    on_failure: Literal["block", "flag"] = "block"
    """What it means when a decision cannot be recorded."""


class VaultPolicy(_Section):
    """Where values are kept that gates with ``style: token`` hid."""

    key: SecretStr | None = Field(default=None, min_length=32)
    """What values are encrypted by, from the environment: ``${GUARDRAILS_VAULT_KEY}``. Left out, a key in the store."""
    lifetime: Duration = Field(default=604800.0, gt=0)
    """How long a value is kept after it was last hidden."""


class Otlp(_Section):
    """An OpenTelemetry endpoint."""

    endpoint: str = Field(pattern=r"^https?://")
    """Full URL for traces, for example ``http://localhost:6006/v1/traces``."""
    headers: dict[str, str] = {}
    """Extra headers; take keys from the environment: ``${PHOENIX_KEY}``."""


class TracesPolicy(_Section):
    """Where traces go."""

    langfuse: bool = False
    """Send to Langfuse: LANGFUSE_BASE_URL, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY in the environment."""
    otlp: list[Otlp] = []
    """Any other OpenTelemetry endpoints."""
    content: Literal["redacted", "none"] = "redacted"
    """Whether spans carry what was said, after redaction, or no content."""


class StagePolicy(_Section):
    """What happens at one stage."""

    gates: list[str] = Field(min_length=1)
    """Names of gates, in the order they are asked."""
    on_block: Literal["refuse", "raise"] | None = None
    """Answer with a refusal or raise; the policy's own `on_block` if left out."""
    refusal: str | None = None
    """The refusal; the policy's own if left out."""


class Policy(_Section):
    """A guardrails policy."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, title="Guardrails policy")

    version: Literal[1]
    """Version of this file format."""
    mode: Literal["enforce", "shadow"] = "enforce"
    """`shadow` decides and records everything and changes nothing."""
    on_error: Literal["block", "flag", "unsafe_allow"] = "block"
    """What a gate means that fails or overruns."""
    on_unenforceable: Literal["block", "flag"] = "block"
    """What happens where a seam cannot carry out a decision, such as an edit in a callback."""
    unchecked: Literal["block", "flag", "allow"] = "block"
    """What content means that no gate can read, such as an image."""
    on_block: Literal["refuse", "raise"] = "refuse"
    """Answer with a refusal, or raise `GuardrailBlocked`. Callbacks always raise."""
    refusal: str = "I can't help with that ({reason})."
    """What the user sees instead of a blocked message; may hold ``{reason}``."""
    blocked_messages: Literal["replace", "remove", "keep"] = "replace"
    """What stays in the conversation of a message that was blocked."""
    deadline_ms: float = Field(default=300.0, gt=0)
    """Time one gate may take for one check."""
    store: str = "memory:"
    """Where records, counters and approvals last: ``memory:`` or ``sqlite:///guardrails.db``."""
    record: RecordPolicy = RecordPolicy()
    """What the ledger keeps."""
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
    budgets: Budgets | None = None
    """What may be used up."""
    prices: dict[str, Price] = {}
    """Prices by model name; ``*`` stands for any ending."""
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
    if policy.budgets and policy.budgets.run.usd is not None and not policy.prices:
        problems.append((("budgets", "run", "usd"), "a limit in dollars needs prices; add the section prices"))
    return problems
