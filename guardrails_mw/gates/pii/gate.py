"""The gate ``pii``: personal data in anything that goes in, comes out, or passes through a tool."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Event, Part, Stage
from guardrails_mw.gate import Cost, Gate, GateConfig, Site
from guardrails_mw.gates.pii.context import split_name
from guardrails_mw.gates.pii.countries import COUNTRIES
from guardrails_mw.gates.pii.engine import Engine
from guardrails_mw.gates.pii.forms import forms
from guardrails_mw.gates.pii.ner import MODEL_ENTITIES, USUAL_ENTITIES, Ner, NerConfig
from guardrails_mw.gates.pii.phones import remembering
from guardrails_mw.gates.pii.presidio import Library, load, national
from guardrails_mw.gates.pii.profiles import ENTITIES, PROFILES, Profile
from guardrails_mw.gates.pii.replacement import Replacer, Style, hidden
from guardrails_mw.gates.pii.sources import RecognizerConfig, Source
from guardrails_mw.gates.pii.sources import added as recognized
from guardrails_mw.verdict import Edit, Finding, Operator, Verdict

__all__ = ["PiiConfig", "PiiGate"]

_OPERATORS = {"remove": Operator.REMOVE, "mask": Operator.MASK, "hash": Operator.HASH, "token": Operator.TOKEN}


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
    """``remove`` names the kind of value, ``mask`` keeps the last four characters, ``hash`` a keyed fingerprint,
    ``token`` a placeholder that becomes the value again for the user and for tools with ``sees: raw``."""
    min_score: float | None = Field(default=None, ge=0, le=1)
    """Least score that counts, for every entity; the profile's own if left out."""
    countries: tuple[str, ...] = ()
    """Countries whose identifiers are looked for too, such as ``uk``, ``de``, ``in``."""
    recognizers: tuple[RecognizerConfig, ...] = ()
    """Recognizers of your own."""
    ner: NerConfig | None = None
    """A named-entity model, for PERSON, LOCATION and ORGANIZATION."""


class PiiGate(Gate):
    """Finds personal data and hides it.

    A finding longer than `max_span` is found all the same in a whole text; mailboxes and web addresses
    have no longest form, and none has a space in it.
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
        if engine.model is not None:  # what a model says of a word depends on the whole text
            self.look_back = self.max_span = None

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> PiiGate:
        """Raises `PolicyError` for what cannot be found, a recognizer or model that cannot be used, or no Presidio."""
        assert isinstance(config, PiiConfig)
        field = f"gates.{site.name}"
        library = _library(config.countries, field)
        added = forms() + [
            source
            for i, each in enumerate(config.recognizers)
            for source in recognized(each, f"{field}.recognizers.{i}")
        ]
        profile = PROFILES[config.profile].at_least(config.min_score)
        national = {entity: profile.national for entity in library.recognizers if entity not in ENTITIES}
        if config.min_score is None:
            profile = profile.with_least({**national, **_least(added)})
        entities = _entities(config, profile, national)
        model, of_model = None, frozenset[str]()
        if config.ner is not None:
            of_model = entities & (MODEL_ENTITIES | set(config.ner.labels.values()))
            model = Ner(config.ner, of_model, site.base, f"{field}.ner")
        own = {source.entity for source in added}
        if config.entities is None:
            entities |= own
        known = set(library.recognizers) | own
        for entity in sorted(entities - of_model):
            _check_entity(entity, known, f"{field}.entities")
        chosen = entities & set(library.recognizers)
        engine = Engine(
            profile,
            chosen,
            library,
            [each for each in added if each.entity in entities],
            model,
        )
        cost = Cost.BLOCKING if any(each.use for each in config.recognizers) else Cost.LINEAR
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
            with remembering():
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


def _library(countries: Sequence[str], field: str) -> Library:
    """Presidio's general recognizers and those of some countries."""
    library = load()
    recognizers = dict(library.recognizers)
    for country in countries:
        if country not in COUNTRIES:
            problem = f"unknown country '{country}': {nearest(country, list(COUNTRIES))}"
            raise PolicyError(problem, field=f"{field}.countries")
        recognizers = {**national(country).recognizers, **recognizers}
    return Library(recognizers, library.known)


def _least(added: Sequence[Source]) -> dict[str, float]:
    return {source.entity: source.least for source in added if source.least is not None}


def _entities(config: PiiConfig, profile: Profile, countries: Iterable[str]) -> frozenset[str]:
    """What is looked for: what the policy lists, or the profile's, the countries' and the model's."""
    if config.entities is not None:
        return frozenset(config.entities)
    of_countries = (entity for country in config.countries for entity in national(country).recognizers)
    of_model = USUAL_ENTITIES | set(config.ner.labels.values()) if config.ner else frozenset[str]()
    return profile.entities | set(countries) | set(of_countries) | of_model


def _check_entity(entity: str, known: Collection[str], field: str) -> None:
    if entity in known:
        return
    if entity in MODEL_ENTITIES:
        hint = "ner: {engine: spacy, model: en_core_web_sm} after pip install 'guardrails-mw[ner-spacy]'"
        problem = f"'{entity}' needs a named-entity model; add for example {hint}, or engine gliner or transformers"
        raise PolicyError(problem, field=field)
    country = next((name for name in COUNTRIES if entity in national(name).recognizers), "")
    if country:
        raise PolicyError(f"'{entity}' belongs to a country; add countries: [{country}]", field=field)
    raise PolicyError(f"unknown entity '{entity}': {nearest(entity, sorted(known))}", field=field)
