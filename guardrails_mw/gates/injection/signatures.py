"""The signature file, read and compiled: many patterns, one pass over the text.

`signatures.yaml` is data that people read and extend. Patterns are RE2 and meet a folded text (see
`views`): lower case, no accents, one blank between words, no line breaks.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guardrails_mw.document import Document
from guardrails_mw.event import Origin, Stage
from guardrails_mw.gate import windows
from guardrails_mw.gates.injection.folding import View
from guardrails_mw.gates.injection.spellings import Speller
from guardrails_mw.gates.injection.views import views
from guardrails_mw.patterns import PatternSet

__all__ = ["MAX_SPAN", "Signature", "SignatureSet", "default_signatures"]

MAX_SPAN = 512
"""Characters that one match can be long, at most; windows overlap by this much."""

_BOUNDS = ((r"\w+", r"\w{1,20}"), (r"\w*", r"\w{0,20}"), (r"[\pL]+", "[^ .]{1,20}"), (r"[\pL]*", "[^ .]{0,20}"))
# "no blank, no full stop" for letters of any script: RE2 spells out every letter of \pL, twenty times over
_ENGINES = 4  # measured on prose never seen before: one takes twice as long, eight take a little longer again
_WORD = re.compile(r"\{([a-z_]+)\}")

_CUE = re.compile("[a-z]{5,}")
_LITERAL = re.compile(r"(?<![\\a-z])[a-z]{3,}")


class Signature(BaseModel):
    """One known way to attack a model with text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[a-z_]+\.[a-z0-9_]+$")
    """``family.name``; the type of findings."""
    family: str = Field(default="", pattern=r"^[a-z_]*$")
    """What the attack wants; the reason code of a verdict. The first word of `id` if left out."""
    weight: float = Field(default=1.0, gt=0)
    """What one hit adds to the score."""
    tool_result: float | None = Field(default=None, gt=0)
    """The weight in tool results, where nobody has a reason to give orders; `weight` if left out."""
    retrieved: float | None = Field(default=None, gt=0)
    """The weight in retrieved documents; that in tool results if left out."""
    pattern: str | list[str]
    """RE2, or several of which one is enough; ``{name}`` stands for a line of `words`."""
    view: Literal["text", "hidden"] | None = None
    """The only view the signature is meant for; every view if left out."""
    reason: str
    """One line for the person who reads the report."""
    example: str
    """A text that it finds."""

    @model_validator(mode="after")
    def _belongs(self) -> Signature:
        first = self.id.partition(".")[0]
        if self.family not in ("", first):
            raise ValueError(f"id must start with its family: '{self.family}.'")
        object.__setattr__(self, "family", first)
        return self

    def weigh(self, stage: Stage, origin: Origin = Origin.USER) -> float:
        """The weight at a stage for what somebody wrote."""
        brought = self.weight if self.tool_result is None else self.tool_result
        if origin is Origin.RETRIEVED:
            return brought if self.retrieved is None else self.retrieved
        return brought if stage is Stage.TOOL_RESULT else self.weight


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    words: dict[str, str | list[str]] = {}
    vocabulary: str = ""
    signatures: list[Signature]


class SignatureSet:
    """Compiled signatures.

    Args:
        signatures: what to look for.
        words: fragments that patterns name in braces; one may use those before it.
        vocabulary: words that are also looked for misspelt or in disguise, besides those of the examples.

    Raises:
        ValueError: a pattern names an unknown word or is not valid RE2; names the signature.

    >>> signature = Signature(id="role.dan", family="role", weight=1, pattern="do {any} now", reason="", example="")
    >>> [(s.id, span) for s, span in SignatureSet([signature], {"any": "anything"}).scan("you do anything now")]
    [('role.dan', (4, 19))]
    """

    def __init__(
        self,
        signatures: Sequence[Signature],
        words: Mapping[str, str | list[str]],
        vocabulary: Iterable[str] = (),
    ) -> None:
        self.signatures = tuple(signatures)
        self.words: dict[str, str] = {}
        for name, text in words.items():
            self.words[name] = _expand(text, self.words, f"words.{name}")
        examples = " ".join(signature.example for signature in self.signatures).lower()
        self.vocabulary = frozenset(vocabulary) | frozenset(_CUE.findall(examples))
        self._by_id = {signature.id: signature for signature in self.signatures}
        parts = {s.id: [_expand(part, self.words, s.id) for part in _parts(s.pattern)] for s in self.signatures}
        self.patterns = {id_: "|".join(alternatives) for id_, alternatives in parts.items()}
        general = {s.id: parts[s.id] for s in self.signatures if s.view is None}
        self._compiled = PatternSet(general, groups=_ENGINES)
        self._bound = {
            view: PatternSet({s.id: parts[s.id] for s in self.signatures if s.view == view})
            for view in {s.view for s in self.signatures} - {None}
        }
        self._speller = Speller(self.vocabulary, set(_LITERAL.findall(" ".join(self.patterns.values()))))

    @classmethod
    def read(cls, path: Path, words: Mapping[str, str] | None = None) -> SignatureSet:
        """Read a signature file. Raises `PolicyError` with the line of what is wrong.

        Args:
            path: a YAML file in the form of the one that comes with the package.
            words: fragments that its patterns may name besides its own.
        """
        document = Document.read(path, env={})
        try:
            file = _File.model_validate(document.data)
            return cls(file.signatures, {**(words or {}), **file.words}, file.vocabulary.split())
        except ValidationError as error:
            first = error.errors()[0]
            raise document.error(first["loc"], first["msg"]) from None
        except ValueError as error:
            raise document.error(("signatures",), str(error)) from None

    def views(self, text: str) -> Iterator[View]:
        """Every view of a text that is worth a scan; the text as it stands, folded, comes first."""
        return views(text, self._speller)

    def scan(
        self, text: str, view: str | None = None, skip: Container[str] = ()
    ) -> list[tuple[Signature, tuple[int, int]]]:
        """The first match of every signature that occurs in a folded text.

        Args:
            text: the text of a view.
            view: the name of the view, for signatures that are meant for one alone.
            skip: ids that are known already.

        Time is linear in the text. Raises `GateError`: ``deadline`` when the gate's time is over,
        ``pattern_memory`` when the pattern engine gave up.
        """
        found: dict[str, tuple[int, int]] = {}
        sets = (self._compiled, self._bound[view]) if view in self._bound else (self._compiled,)
        for offset, window in windows(text, overlap=MAX_SPAN):
            for patterns in sets:
                for name in patterns.matching(window):
                    span = None if name in found or name in skip else patterns.search(name, window)
                    if span and span[0] < span[1]:
                        found[name] = (offset + span[0], offset + span[1])
        return [(self._by_id[name], span) for name, span in found.items()]

    def present(self, text: str) -> set[str]:
        """Ids of the signatures of any view that occur in a folded text. Raises `GateError` as `scan` does."""
        return {name for _, window in windows(text, overlap=MAX_SPAN) for name in self._compiled.matching(window)}


def _parts(pattern: str | list[str]) -> list[str]:
    return [pattern] if isinstance(pattern, str) else pattern


def _expand(pattern: str | list[str], words: Mapping[str, str], place: str) -> str:
    """The pattern with every word in braces replaced, alternatives joined and words at most 20 letters long."""

    def fragment(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in words:
            raise ValueError(f"{place}: no word named '{name}'")
        return f"(?:{words[name]})"

    whole = "|".join(_parts(pattern))
    for unbounded, bounded in _BOUNDS:
        whole = whole.replace(unbounded, bounded)
    return _WORD.sub(fragment, whole)


@cache
def default_signatures() -> SignatureSet:
    """The signatures that come with the package."""
    return SignatureSet.read(Path(__file__).with_name("signatures.yaml"))
