"""The sections of a policy file. Every key is a field, and its docstring is what editors show."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema, SecretStr
from pydantic_core import core_schema

from guardrails_mw.account import Limits
from guardrails_mw.condition import Condition

__all__ = [
    "Answer",
    "ApprovalPolicy",
    "BudgetPolicy",
    "ConditionText",
    "Duration",
    "LoopsPolicy",
    "Otlp",
    "Price",
    "QueuePolicy",
    "RecordPolicy",
    "ReservePolicy",
    "RiskPolicy",
    "Rule",
    "Section",
    "StagePolicy",
    "StreamPolicy",
    "ToolPolicy",
    "TracesPolicy",
    "VaultPolicy",
    "limits_of",
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


class Section(BaseModel):
    """A part of the file. What it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True)


class Rule(Section):
    """A condition on a tool call and the reason code it gives."""

    condition: ConditionText = Field(alias="if")
    """When the rule applies, for example ``args.amount > 100``."""
    because: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    """The reason code that people and records see."""


class ApprovalPolicy(Section):
    """How a person is asked."""

    ask: str = ""
    """Who should answer; shown to them, for example ``support-lead``."""
    within: Duration = 1800.0
    """How long the question stays open."""
    on_timeout: list[Literal["block"]] = Field(default=["block"], min_length=1)
    """What happens when nobody answers in time, in this order."""


class ToolPolicy(Section):
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
    risk: int = Field(default=0, ge=0)
    """Risk points that a call costs, where a budget has `risk`."""
    polls: bool | Annotated[int, Field(ge=2, le=30)] = False
    """Whether calling it again with the same arguments is its normal use: always, or up to so many same results."""
    effect: bool | None = None
    """Whether it changes something outside: a new call is then progress, a repeated one counts harder. Judged by its
    name and results if left out."""
    key: list[str] = []
    """The arguments that tell one call from another, for loops; all if left out."""


class BudgetPolicy(Section):
    """What may be used up. A limit that is left out does not exist."""

    of: Literal["run", "thread", "task", "agent", "actor", "tenant", "global"] | None = None
    """Whose budget it is; the budget's own name if left out. Everybody without an actor or tenant shares one."""
    per: Literal["minute", "hour", "day", "month"] | None = None
    """When it is full again; never if left out."""
    zone: str = "UTC"
    """Time zone of that, such as ``Europe/Berlin``."""
    usd: Decimal | None = Field(default=None, gt=0)
    """Money, in US dollars; needs `prices` or a `price_list`."""
    tokens: int | None = Field(default=None, gt=0)
    """Tokens in and out."""
    model_calls: int | None = Field(default=None, gt=0)
    """Calls to models, those of retries and of judges included."""
    tool_calls: int | None = Field(default=None, gt=0)
    """Calls to tools."""
    tools: dict[str, Annotated[int, Field(ge=0)]] = {}
    """Calls to single tools, by name."""
    seconds: float | None = Field(default=None, gt=0)
    """Time spent in model and tool calls; waiting for a person does not count."""
    wall: Duration | None = Field(default=None, gt=0)
    """Time since the first call, waiting included."""
    risk: int | None = Field(default=None, gt=0)
    """Points that tools cost (`risk` of a tool) and verdicts (`risk` of the policy)."""
    warn_at: float | None = Field(default=None, gt=0, lt=1)
    """Flag once when this share of a limit is used."""
    then: Literal["end", "block", "ask", "cheaper"] = "end"
    """What exhaustion means: the end of the run, a block of this call alone, a question to a person who may raise the
    limit by itself once, or the cheaper model that the seam was given."""


class ReservePolicy(Section):
    """What is held for a call before its cost is known."""

    output_tokens: int = Field(default=1024, gt=0)
    """For the answer of a call that names no limit; where the seam can, the answer is limited to it."""
    least_output_tokens: int = Field(default=64, gt=0)
    """An answer is shortened to what is affordable, but not below this."""
    lasts: Duration = Field(default=900.0, gt=0)
    """After this time a call is taken for lost, and what it held for spent. One that ends later is charged what it
    really used all the same; 30 days later what it held is final."""
    unknown_price: Literal["block", "allow"] = "block"
    """What a model without a price means under a limit in dollars."""


class RiskPolicy(Section):
    """Risk points that verdicts cost, once per event."""

    flag: int = Field(default=0, ge=0)
    """A flag."""
    ask: int = Field(default=0, ge=0)
    """A question to a person."""
    block: int = Field(default=0, ge=0)
    """A block."""


class Price(Section):
    """What a model costs, in US dollars per million tokens."""

    input: Decimal = Field(ge=0)
    """Of a million tokens that go in."""
    output: Decimal = Field(ge=0)
    """Of a million tokens that come out."""
    cached_input: Decimal | None = Field(default=None, ge=0)
    """Of a million that the provider had in its cache; as `input` if left out."""
    cache_write: Decimal | None = Field(default=None, ge=0)
    """Of a million that it puts there; as `input` if left out."""
    audio_input: Decimal | None = Field(default=None, ge=0)
    """Of a million of audio that go in; as `input` if left out."""
    reasoning: Decimal | None = Field(default=None, ge=0)
    """Of a million of reasoning; as `output` if left out."""
    audio_output: Decimal | None = Field(default=None, ge=0)
    """Of a million of audio that come out; as `output` if left out."""


class LoopsPolicy(Section):
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


class RecordPolicy(Section):
    """What the ledger keeps."""

    redact: list[str] = []
    """Gates whose findings are removed from everything recorded or traced."""
    content: Literal["redacted", "none"] = "redacted"
    """Whether contents are recorded at all."""
    durability: Literal["process", "power"] = "process"
    """What a record survives: the end of the process, or also a power cut."""
    on_failure: Literal["block", "flag"] = "block"
    """What it means when a decision cannot be recorded."""


class VaultPolicy(Section):
    """Where values are kept that gates with ``style: token`` hid."""

    key: SecretStr | None = Field(default=None, min_length=32)
    """What values are encrypted by, from the environment: ``${GUARDRAILS_VAULT_KEY}``. Left out, a key in the store."""
    lifetime: Duration = Field(default=604800.0, gt=0)
    """How long a value is kept after it was last hidden."""


class Otlp(Section):
    """An OpenTelemetry endpoint."""

    endpoint: str = Field(pattern=r"^https?://")
    """Full URL for traces, for example ``http://localhost:6006/v1/traces``."""
    headers: dict[str, str] = {}
    """Extra headers; take keys from the environment: ``${PHOENIX_KEY}``."""


class TracesPolicy(Section):
    """Where traces go."""

    langfuse: bool = False
    """Send to Langfuse: LANGFUSE_BASE_URL, LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY in the environment."""
    otlp: list[Otlp] = []
    """Any other OpenTelemetry endpoints."""
    content: Literal["redacted", "none"] = "redacted"
    """Whether spans carry what was said, after redaction, or no content."""


class StreamPolicy(Section):
    """How classifiers look at text that is streamed; gates with bounds look at all of it as it comes."""

    every_tokens: int = Field(default=64, ge=8, le=4096)
    """With ``hold: window``, how much arrives before a classifier is asked again; a token is four characters."""
    hold: Literal["window", "all"] = "all"
    """``window``: what a classifier agreed to is shown, though what follows may change its mind."""


class QueuePolicy(Section):
    """How requests wait for a gate that fails, where `on_error` is `queue`."""

    within: Duration = Field(default=30.0, gt=0, le=3600)
    """How long a request waits, from the gate's first failure on; then it is blocked with the last failure's code."""
    most: int = Field(default=64, ge=1, le=10_000)
    """How many requests of a process may wait at once; who comes later is blocked with ``error.queue_full``."""


class StagePolicy(Section):
    """What happens at one stage."""

    gates: list[str] = Field(min_length=1)
    """Names of gates, in the order they are asked."""
    on_block: Literal["refuse", "raise"] | None = None
    """Answer with a refusal or raise; the policy's own `on_block` if left out."""
    refusal: str | None = None
    """The refusal; the policy's own if left out."""


def limits_of(name: str, budget: BudgetPolicy) -> Limits:
    """A budget of the policy in whole units. Raises `PolicyError` for what only it can see is wrong."""
    return Limits(
        name=name,
        of=budget.of or name,
        per=budget.per,
        zone=budget.zone,
        usd_micro=int(budget.usd * 1_000_000) if budget.usd is not None else None,
        tokens=budget.tokens,
        model_calls=budget.model_calls,
        tool_calls=budget.tool_calls,
        tools=budget.tools,
        milliseconds=int(budget.seconds * 1000) if budget.seconds is not None else None,
        wall=budget.wall,
        risk=budget.risk,
        warn_at=budget.warn_at,
        then=budget.then,
    )
