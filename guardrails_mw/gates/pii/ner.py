"""Names, places and organisations: found by a named-entity model that the user has installed.

The package ships none and fetches none: a model is a folder, an installed spaCy package, or a repository that
is in Hugging Face's local cache already. It is looked for when the policy is loaded, and loaded when first used.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Literal, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from guardrails_mw.errors import PolicyError
from guardrails_mw.gate import windows
from guardrails_mw.gates.pii.matching import Match

__all__ = ["MODEL_ENTITIES", "USUAL_ENTITIES", "Ner", "NerConfig"]

MODEL_ENTITIES = frozenset({"PERSON", "LOCATION", "ORGANIZATION", "NRP", "AGE", "TITLE", "MEDICAL_CONDITION"})
"""What only a named-entity model can find."""

USUAL_ENTITIES = frozenset({"PERSON", "LOCATION", "ORGANIZATION"})
"""What is looked for when a policy has a model and no list of entities."""

_LABELS: Mapping[str, str] = {
    "PER": "PERSON", "PERSON": "PERSON", "NAME": "PERSON", "FIRSTNAME": "PERSON", "LASTNAME": "PERSON",
    "LOC": "LOCATION", "LOCATION": "LOCATION", "GPE": "LOCATION", "FAC": "LOCATION", "CITY": "LOCATION",
    "COUNTRY": "LOCATION", "ADDRESS": "LOCATION",
    "ORG": "ORGANIZATION", "ORGANIZATION": "ORGANIZATION", "ORGANISATION": "ORGANIZATION", "COMPANY": "ORGANIZATION",
    "NORP": "NRP", "NRP": "NRP", "NATIONALITY": "NRP", "AGE": "AGE", "TITLE": "TITLE",
    "MEDICAL_CONDITION": "MEDICAL_CONDITION", "DISEASE": "MEDICAL_CONDITION", "PROBLEM": "MEDICAL_CONDITION",
}  # fmt: skip
"""Entities that the usual labels of models stand for (OntoNotes, CoNLL 2003, PII models)."""
_PACKAGES = {"gliner": "gliner", "spacy": "spacy", "transformers": "transformers"}
_SIZE, _OVERLAP = 1200, 200
"""Characters a model sees at once (within 512 tokens of ordinary text), and how far two views overlap."""

Found: TypeAlias = tuple[int, int, str, float]
Look: TypeAlias = Callable[[str], Iterator[Found]]


class NerConfig(BaseModel):
    """A named-entity model."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    engine: Literal["gliner", "spacy", "transformers"]
    """What runs it."""
    model: str = Field(min_length=1)
    """A folder, a spaCy package, or a Hugging Face repository that has been downloaded before."""
    min_score: float = Field(default=0.5, ge=0, le=1)
    """Least score that counts; spaCy gives none and always counts."""
    labels: dict[str, str] = {}
    """Entities that labels of the model stand for, besides the usual ones (``PER``, ``GPE``, ``ORG``, ...)."""


class Ner:
    """A model, and the labels of it that are wanted.

    Args:
        config: which model.
        entities: what is looked for.
        base: folder that a relative path starts from.
        field: the policy's key, for errors.

    Raises:
        PolicyError: the engine is not installed, or there is no such model here.
    """

    def __init__(self, config: NerConfig, entities: frozenset[str], base: Path, field: str) -> None:
        package = _PACKAGES[config.engine]
        if find_spec(package) is None:
            hint = f"pip install 'guardrails-mw[ner-{config.engine}]'"
            raise PolicyError(f"engine '{config.engine}' needs the package {package}: {hint}", field=f"{field}.engine")
        folder = base / config.model
        self._model = str(folder.resolve()) if folder.is_dir() else config.model
        if not folder.is_dir() and not _LOOKS[config.engine].here(config.model):
            hint = _LOOKS[config.engine].hint.format(config.model)
            problem = f"there is no model '{config.model}' here, and none is downloaded: {hint}"
            raise PolicyError(problem, field=f"{field}.model")
        self._config, self._lock = config, Lock()
        labels = {**_LABELS, **{label.upper(): entity for label, entity in config.labels.items()}}
        self._entities = {label: entity for label, entity in labels.items() if entity in entities}

    @cached_property
    def _look(self) -> Look:
        return _LOOKS[self._config.engine].load(self._model, sorted(set(map(str.lower, self._entities))))

    def load(self) -> None:
        """Load the model, which the first search does otherwise."""
        with self._lock:
            _ = self._look

    def find(self, text: str) -> list[Match]:
        """What the model finds of the wanted entities. Raises `GateError` (``deadline``) between two views."""
        self.load()
        found: dict[tuple[int, int, str], float] = {}
        for offset, view in windows(text, _OVERLAP, _SIZE):
            for start, end, label, score in self._look(view):
                entity = self._entities.get(label.upper().removeprefix("B-").removeprefix("I-"))
                if entity and score >= self._config.min_score and start < end:
                    key = (offset + start, offset + end, entity)
                    found[key] = max(found.get(key, 0.0), min(score, 1.0))
        return sorted(Match(start, end, entity, score) for (start, end, entity), score in found.items())


class _Engine(Protocol):
    hint: str

    def here(self, model: str) -> bool: ...

    def load(self, model: str, labels: list[str]) -> Look: ...


class _Spacy:
    """Pipelines of spaCy; `spacy.load` never downloads what `is_package` has found."""

    hint = "python -m spacy download {0}"

    def here(self, model: str) -> bool:
        import spacy.util

        return bool(spacy.util.is_package(model))

    def load(self, model: str, labels: list[str]) -> Look:  # noqa: ARG002 - a pipeline has its own labels
        import spacy

        pipeline = spacy.load(model)

        def look(text: str) -> Iterator[Found]:
            for each in pipeline(text).ents:
                yield each.start_char, each.end_char, each.label_, 1.0

        return look


class _Transformers:
    """Token classification with a model in a folder or in the local cache."""

    hint = "hf download {0}"

    def here(self, model: str) -> bool:
        return _cached(model)

    def load(self, model: str, labels: list[str]) -> Look:  # noqa: ARG002 - a model has its own labels
        from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

        classify = pipeline(
            "token-classification",
            model=AutoModelForTokenClassification.from_pretrained(model, local_files_only=True),
            tokenizer=AutoTokenizer.from_pretrained(model, local_files_only=True),
            aggregation_strategy="simple",
        )

        def look(text: str) -> Iterator[Found]:
            for each in classify(text):
                yield int(each["start"]), int(each["end"]), str(each["entity_group"]), float(each["score"])

        return look


class _Gliner:
    """GLiNER, which is asked for labels by name; its ONNX file is used where the model has one."""

    hint = "hf download {0}"

    def here(self, model: str) -> bool:
        return _cached(model)

    def load(self, model: str, labels: list[str]) -> Look:
        from gliner import GLiNER

        onnx = next((f"{path.relative_to(model)}" for path in sorted(Path(model).rglob("*.onnx"))), "")
        keys = {"load_onnx_model": True, "onnx_model_file": onnx} if onnx else {}
        loaded = GLiNER.from_pretrained(model, local_files_only=True, **keys)

        def look(text: str) -> Iterator[Found]:
            for each in loaded.predict_entities(text, labels, threshold=0.05):
                yield int(each["start"]), int(each["end"]), str(each["label"]), float(each["score"])

        return look


def _cached(repository: str) -> bool:
    """Whether Hugging Face's cache on this machine holds a repository."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return any(cache.joinpath("models--" + repository.replace("/", "--"), "snapshots").glob("*/config.json"))


_LOOKS: Mapping[str, _Engine] = {"spacy": _Spacy(), "transformers": _Transformers(), "gliner": _Gliner()}
