"""Puts an engine together from a policy's keys: recognizers, countries, forms of one's own, a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from guardrails_mw.document import nearest
from guardrails_mw.errors import PolicyError
from guardrails_mw.gate import Cost, Site
from guardrails_mw.gates.pii.config import PiiConfig
from guardrails_mw.gates.pii.countries import COUNTRIES
from guardrails_mw.gates.pii.engine import LONGEST, Engine
from guardrails_mw.gates.pii.forms import forms
from guardrails_mw.gates.pii.ner import MODEL_ENTITIES, USUAL_ENTITIES, Ner
from guardrails_mw.gates.pii.presidio import Library, load, national
from guardrails_mw.gates.pii.profiles import ENTITIES, PROFILES, Profile
from guardrails_mw.gates.pii.sources import Source
from guardrails_mw.gates.pii.sources import added as recognized

__all__ = ["assembled"]


def assembled(config: PiiConfig, site: Site) -> tuple[Engine, Cost]:
    """The engine and what running it costs.

    Raises:
        PolicyError: something to look for that cannot be found, a recognizer or model that cannot be used,
            or no Presidio.
    """
    field = f"gates.{site.name}"
    library = _library(config.countries, field)
    added = forms(library) + [
        source for i, each in enumerate(config.recognizers) for source in recognized(each, f"{field}.recognizers.{i}")
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
        longest=max([LONGEST, *(each.reach for each in config.recognizers)]),
    )
    cost = Cost.BLOCKING if any(each.use for each in config.recognizers) else Cost.LINEAR
    return engine, cost


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
