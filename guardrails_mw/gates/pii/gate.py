"""The gate ``pii``: personal data in anything that goes in, comes out, or passes through a tool."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Event, Part, Stage
from guardrails_mw.gate import Cost, Gate, GateConfig, Site
from guardrails_mw.gates.pii.context import split_name
from guardrails_mw.gates.pii.profiles import ENTITIES, MODEL_ENTITIES, PROFILES
from guardrails_mw.gates.pii.replacement import Replacer, Style, hidden
from guardrails_mw.verdict import Edit, Finding, Operator, Verdict

if TYPE_CHECKING:
    from guardrails_mw.gates.pii.engine import Engine

__all__ = ["PiiConfig", "PiiGate"]

_OPERATORS = {"remove": Operator.REMOVE, "mask": Operator.MASK, "hash": Operator.HASH}


class PiiConfig(GateConfig):
    """The keys of a ``pii`` gate."""

    type: Literal["pii"]
    """Which gate this is."""
    profile: Literal["agent", "strict"] = "agent"
    """``agent`` reports what is almost certainly personal; ``strict`` everything that a pattern finds."""
    entities: tuple[str, ...] | None = Field(default=None, min_length=1)
    """What to look for, by Presidio's names; the profile's own list if left out."""
    action: Literal["edit", "flag", "ask", "block"] = "edit"
    """What a finding means. Values are hidden under every action."""
    style: Style = "remove"
    """``remove`` names the kind of value, ``mask`` keeps the last four characters, ``hash`` a keyed fingerprint."""
    min_score: float | None = Field(default=None, ge=0, le=1)
    """Least score that counts, for every entity; the profile's own if left out."""


class PiiGate(Gate):
    """Finds personal data and hides it.

    A finding longer than `max_span` is found all the same in a whole text; mailboxes and web addresses
    have no longest form, and none has a space in it.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.INPUT, Stage.OUTPUT, Stage.TOOL_CALL, Stage.TOOL_RESULT})
    config_type = PiiConfig
    look_back = 400
    max_span = 1024

    def __init__(self, name: str, engine: Engine, replacer: Replacer, action: str = "edit") -> None:
        super().__init__(name)
        self.engine, self._replace, self._action = engine, replacer, action
        self.cost = Cost.LINEAR if engine.exact else Cost.BLOCKING

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> PiiGate:
        """Raises `PolicyError` for an entity that no pattern finds, or when Presidio is not installed."""
        assert isinstance(config, PiiConfig)
        profile = PROFILES[config.profile].at_least(config.min_score)
        entities = profile.entities if config.entities is None else config.entities
        for entity in entities:
            _check_entity(entity, f"gates.{site.name}.entities")
        try:
            from guardrails_mw.gates.pii.engine import Engine
        except ModuleNotFoundError as error:  # what Presidio brings along; the keys can be checked without it
            raise PolicyError(f"gate 'pii' needs {error.name}: pip install 'guardrails-mw[pii]'") from None
        return cls(site.name, Engine(profile, entities), Replacer(config.style, site.secret), config.action)

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - the same at every stage
        """It edits under every action."""
        return frozenset({"edit", self._action} - {"flag"})

    def check(self, event: Event) -> Verdict:
        """Edits and findings for every readable part."""
        edits: list[Edit] = []
        findings: list[Finding] = []
        for index, part in event.texts():
            hints = _hints(part)
            for match, text in hidden(part.text, partial(self.engine.find, hints=hints), self._replace):
                start, end, entity, score = match
                edits.append(Edit(start, end, text, index, _OPERATORS[self._replace.style]))
                findings.append(Finding(entity, start, end, score, index))
        if not findings:
            return Verdict.allow()
        say = {"edit": Verdict.allow, "flag": Verdict.flag, "ask": Verdict.ask, "block": Verdict.block}[self._action]
        return say("pii", edits=edits, findings=findings)

    def warm(self) -> None:
        """Search a text that every recognizer looks at: patterns, number plans and suffixes get loaded."""
        self.engine.find(_EVERYTHING)


_EVERYTHING = "\u0130 a@b.co http://x.org 4111 1111 1111 1111 +1 212-555-0123 DE89370400440532013000 219-09-9999"


def _hints(part: Part) -> list[str]:
    return split_name(part.context) if part.path and part.kind != "key" else []


def _check_entity(entity: str, field: str) -> None:
    if entity in MODEL_ENTITIES:
        raise PolicyError(f"'{entity}' needs a named-entity model, which this gate does not ship", field=field)
    if entity not in ENTITIES:
        raise PolicyError(f"unknown entity '{entity}': {nearest(entity, list(ENTITIES))}", field=field)
