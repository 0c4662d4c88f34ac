"""Where findings come from: a search for one entity, the words that support it, and when it can be skipped.

Besides Presidio's recognizers these are what a policy adds: patterns (RE2, so linear), lists of words, and
classes with Presidio's interface.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, Self

import re2
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from guardrails_mw.errors import GateError, PolicyError
from guardrails_mw.gates.importing import imported
from guardrails_mw.gates.pii.matching import Span

__all__ = ["RecognizerConfig", "Search", "Source", "added", "nothing"]

Search = Callable[[str], Iterator[Span]]
Find = Callable[[str], Iterator["re.Match[str]"]]
Entity = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z_]{2,30}$")]


@dataclass(frozen=True, slots=True)
class Source:
    """One search.

    Attributes:
        entity: what its findings are called.
        search: yields spans.
        words: words that make a finding likelier, in lower case; a phrase counts when all its words are near.
        needs: RE2 patterns of which one occurs in every text with a finding; none: always searched.
        whole: searched in one piece, whatever the text's length.
        least: least score that counts; the profile's if left out.
        alone: the search for texts with none of the words: what counts without one is all that it has to find;
            `search` itself if left out.
    """

    entity: str
    search: Search
    words: Sequence[str] = ()
    needs: Sequence[str] = ()
    whole: bool = False
    least: float | None = None
    alone: Search | None = None


def nothing(_: str) -> Iterator[Span]:
    """The search of what counts only near a word, in a text without one."""
    return iter(())


class RecognizerConfig(BaseModel):
    """One recognizer that a policy adds: a `pattern`, words to `deny`, or a class to `use`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    entity: Entity | None = None
    """What its findings are called; a class brings its own names."""
    pattern: str | None = None
    """An RE2 pattern; case counts unless it starts with ``(?i)``."""
    deny: tuple[Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)], ...] = ()
    """Words and phrases, found whole and in any case."""
    use: str | None = None
    """``package.module:Class`` with Presidio's interface (`supported_entities`, `analyze`); made without arguments."""
    score: float = Field(default=0.5, gt=0, le=1)
    """Score of a finding of `pattern` or `deny`; 0.35 more near a word of `context`."""
    context: tuple[str, ...] = ()
    """Words that make a finding likelier."""
    needs_context: bool = False
    """Whether a finding counts only near a word of `context`."""
    max_span: int | None = Field(default=None, ge=1, le=1024)
    """Characters of the longest finding. Required with `pattern` and `use`: a stream is held back as far."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum((self.pattern is not None, bool(self.deny), self.use is not None)) != 1:
            raise ValueError("give exactly one of pattern, deny and use")
        if self.max_span is None and not self.deny:
            raise ValueError("max_span is missing: how many characters can the longest finding have?")
        if self.entity is None and self.use is None:
            raise ValueError("entity is missing: what are findings called?")
        if self.needs_context and (not self.context or self.score == 1):
            raise ValueError("needs_context takes a context and a score below 1")
        return self

    @property
    def reach(self) -> int:
        """Characters of the longest finding."""
        return self.max_span or max(map(len, self.deny))


class _Recognizer(Protocol):
    supported_entities: Sequence[str]
    context: Sequence[str] | None

    def analyze(self, text: str, entities: list[str], nlp_artifacts: None) -> Sequence[_Result]: ...


class _Result(Protocol):
    start: int
    end: int
    score: float


def added(config: RecognizerConfig, field: str) -> list[Source]:
    """The searches that a policy's recognizer stands for. Raises `PolicyError` for what cannot be used."""
    if config.use is not None:
        return _of_class(config, config.use, field)
    assert config.entity is not None
    pattern = config.pattern if config.pattern is not None else _listed(config.deny)
    search = _Pattern(_compiled(pattern, f"{field}.pattern"), config.score, words=bool(config.deny))
    words = [word.lower() for word in config.context]
    least = min(config.score + 0.01, 1.0) if config.needs_context else config.score
    alone = nothing if config.needs_context else search
    return [Source(config.entity, search, words, [f"(?-ims:{pattern})"], least=least, alone=alone)]


def _compiled(pattern: str, field: str) -> Find:
    options = re2.Options()
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        said = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise PolicyError(
            f"not an RE2 pattern (no look-around, no back references): {said[:120]}", field=field
        ) from None
    if compiled.search(""):
        raise PolicyError("the pattern matches an empty text", field=field)
    find: Find = compiled.finditer
    return find


def _listed(words: Sequence[str]) -> str:
    longest_first = sorted(set(words), key=lambda word: (-len(word), word))
    return f"(?i)({'|'.join(map(re2.escape, longest_first))})(?:[^\\pL\\pN_]|$)"


def _of_class(config: RecognizerConfig, path: str, field: str) -> list[Source]:
    kind = imported(path, field=f"{field}.use")
    try:
        made: _Recognizer = kind()  # type: ignore[operator]
        entities, analyze = list(made.supported_entities), made.analyze
    except Exception as error:  # whatever an author's class raises, the policy cannot be used
        problem = f"{path} is no recognizer that can be made without arguments: {type(error).__name__}"
        raise PolicyError(problem, field=f"{field}.use") from error
    if config.entity is not None and config.entity not in entities:
        raise PolicyError(f"{path} finds {', '.join(entities)}", field=f"{field}.entity")
    wanted = [config.entity] if config.entity is not None else entities
    words = [word.lower() for word in (config.context or made.context or ())]
    return [Source(entity, _Foreign(analyze, entity), words, least=0.0) for entity in wanted]


class _Pattern:
    """Matches of an RE2 pattern; of a list of words, those that do not begin inside another word."""

    def __init__(self, find: Find, score: float, *, words: bool) -> None:
        self._find, self._score, self._words = find, score, words

    def __call__(self, text: str) -> Iterator[Span]:
        for match in self._find(text):
            start, end = match.span(1) if self._words else match.span()
            inside = self._words and start > 0 and (text[start - 1].isalnum() or text[start - 1] == "_")
            if start < end and not inside:
                yield start, end, self._score


class _Foreign:
    """A class's own search; its results are checked to be spans."""

    def __init__(self, analyze: Callable[[str, list[str], None], Sequence[_Result]], entity: str) -> None:
        self._analyze, self._entity = analyze, entity

    def __call__(self, text: str) -> Iterator[Span]:
        for result in self._analyze(text, [self._entity], None) or ():
            if not 0 <= result.start < result.end <= len(text):
                raise GateError("pii.recognizer_span")
            yield result.start, result.end, float(result.score)
