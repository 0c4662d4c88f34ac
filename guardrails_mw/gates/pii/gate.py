"""The gate ``pii``: personal data in anything that goes in, comes out, or passes through a tool."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Event, Part, Stage
from guardrails_mw.gate import Cost, Gate, GateConfig, Site
from guardrails_mw.gates.pii.config import PiiConfig
from guardrails_mw.gates.pii.context import split_name
from guardrails_mw.gates.pii.replacement import Replacer, hidden
from guardrails_mw.verdict import Edit, Finding, Operator, Verdict

if TYPE_CHECKING:
    from guardrails_mw.gates.pii.engine import Engine

__all__ = ["PiiConfig", "PiiGate"]

_OPERATORS = {"remove": Operator.REMOVE, "mask": Operator.MASK, "hash": Operator.HASH, "token": Operator.TOKEN}


class PiiGate(Gate):
    """Finds personal data and hides it.

    What is found further than `max_span` before a text's end stays as it is, whatever is appended; words up to
    `look_back` before a value have a say. No finding is longer than `max_span`: a web address or an IPv6 zone
    that goes on is several from its beginning on, and of anything else the end is hidden.
    A text that as a whole is JSON is an exception: it is known for JSON at its end, and numbers in it are hidden
    with quotes.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.INPUT, Stage.OUTPUT, Stage.TOOL_CALL, Stage.TOOL_RESULT})
    config_type = PiiConfig
    look_back: int | None = 400
    max_span: int | None = 1024

    def __init__(
        self, name: str, engine: Engine, replacer: Replacer, action: str = "edit", cost: Cost = Cost.LINEAR
    ) -> None:
        super().__init__(name)
        self.engine, self._replace, self._action = engine, replacer, action
        self.cost = cost if engine.exact and engine.model is None else Cost.BLOCKING
        self.max_span = engine.longest
        if engine.model is not None:  # what a model says of a word depends on the whole text
            self.look_back = self.max_span = None

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> PiiGate:
        """Raises `PolicyError` for what cannot be found, a recognizer or model that cannot be used, or no Presidio."""
        assert isinstance(config, PiiConfig)
        try:
            from guardrails_mw.gates.pii.assembly import assembled
        except ModuleNotFoundError as error:  # what Presidio brings along; the keys can be checked without it
            raise PolicyError(f"gate 'pii' needs {error.name}: pip install 'guardrails-mw[pii]'") from None
        engine, cost = assembled(config, site)
        return cls(site.name, engine, Replacer(config.style, site.secret), config.action, cost)

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - the same at every stage
        """It edits under every action."""
        return frozenset({"edit", self._action} - {"flag"})

    def check(self, event: Event) -> Verdict:
        """Edits and findings for every readable part."""
        edits: list[Edit] = []
        findings: list[Finding] = []
        for index, part in event.texts():
            hints = _hints(part)
            with self.engine.remembering():
                found = hidden(part.text, partial(self.engine.find, hints=hints), self._replace)
            for match, text in found:
                start, end, entity, score = match
                edits.append(Edit(start, end, text, index, _OPERATORS[self._replace.style]))
                findings.append(Finding(entity, start, end, score, index))
        if not findings:
            return Verdict.allow()
        say = {"edit": Verdict.allow, "flag": Verdict.flag, "ask": Verdict.ask, "block": Verdict.block}[self._action]
        return say("pii", edits=edits, findings=findings)

    def warm(self) -> None:
        """Load patterns, number plans, suffixes and the model."""
        self.engine.load()


def _hints(part: Part) -> list[str]:
    return split_name(part.context) if part.path and part.kind != "key" else []
