"""JSON Schema, Draft 2020-12, made safe for values that somebody hostile wrote.

jsonschema looks for patterns with Python's `re`, which can take exponential time, and compares the items of
an array pair by pair; here patterns are RE2 and `uniqueItems` is linear. References reach inside the schema
only; nothing is ever fetched. `format` is an annotation, as the draft says, and is not checked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import re2

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Json
from guardrails_mw.files import read_text

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

__all__ = ["MAX_PROBLEMS", "SchemaCheck", "named_keys", "safe_path"]

MAX_PROBLEMS = 10
"""Problems that are reported; a model repairs no more at once."""
_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_MAX_SCHEMA = 1_000_000
_MAX_NESTING = 100


class SchemaCheck:
    """A schema that has been checked itself.

    Args:
        schema: the schema as a mapping.
        file: its file, for errors; empty for one inside the policy.

    Raises:
        PolicyError: jsonschema is not installed, or the schema is broken, of another draft, refers to
            something outside itself, or holds a pattern that RE2 does not know.

    >>> SchemaCheck({"required": ["a"], "properties": {"a": {"type": "integer"}}}).problems({"a": "x"})
    ["at $.a: 'type' expected integer"]
    """

    def __init__(self, schema: Mapping[str, object], file: str = "") -> None:
        if find_spec("jsonschema") is None:
            raise PolicyError("jsonschema is not installed; run: pip install 'guardrails-mw[schema]'")
        self._file = file
        if schema.get("$schema", _DRAFT) not in (_DRAFT, f"{_DRAFT}#"):
            raise self._error("$", f"only Draft 2020-12 is read; $schema may be {_DRAFT} or left out")
        # a $schema would make jsonschema leave our validator; an $id would move what '#' means
        self._schema = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
        self._refuse_unsafe()
        self._validator = self._build()
        self._known = named_keys(self._schema)
        self._refuse_dangling()

    @classmethod
    def from_file(cls, source: str | Path | Mapping[str, object], base: Path) -> SchemaCheck:
        """Read a JSON file, relative to `base`, or take the schema as it is. Raises `PolicyError`."""
        if isinstance(source, Mapping):
            return cls(source)
        path = base / source
        try:
            text = read_text(path)
            data = json.loads(text) if len(text) <= _MAX_SCHEMA else None
        except json.JSONDecodeError as error:
            raise PolicyError(f"not JSON: {error.msg}", file=str(path), line=error.lineno) from None
        except (OSError, ValueError, RecursionError) as error:
            raise PolicyError(f"cannot read the schema: {type(error).__name__}", file=str(path)) from None
        if not isinstance(data, dict):
            raise PolicyError("a schema is a JSON object of at most a million characters", file=str(path))
        return cls(data, str(path))

    def problems(self, value: Json) -> list[str]:
        """What is wrong with a value: up to `MAX_PROBLEMS` messages that hold nothing of the value itself.

        Raises:
            GateError: ``deadline``, when following references outlasts the gate's time.
        """
        from guardrails_mw.gates.json_keywords import TooMuchError, counted

        try:
            with counted():
                errors = list(islice(self._validator.iter_errors(value), MAX_PROBLEMS))
        except TooMuchError:
            return ["at $: nested too deeply to be checked"]
        except RecursionError:
            return ["at $: nested too deeply"]
        except OverflowError:
            return ["at $: a number is too large"]
        places = (safe_path(error.absolute_path, self._known) for error in errors)
        messages = (_message(error.validator, error.validator_value) for error in errors)
        return list(dict.fromkeys(f"at {place}: {message}" for place, message in zip(places, messages, strict=True)))

    def _build(self) -> Validator:
        from jsonschema.exceptions import SchemaError  # an extra
        from referencing import Registry

        from guardrails_mw.gates.json_keywords import validator_type

        kind = validator_type()
        try:
            kind.check_schema(self._schema)
        except SchemaError as error:
            raise self._error(error.json_path, f"broken schema: {error.message[:200]}") from None
        except RecursionError:
            raise self._error("$", "the schema is nested too deeply") from None
        return kind(self._schema, registry=Registry())

    def _refuse_unsafe(self) -> None:
        """Patterns must be RE2, and nothing may leave the file or our validator."""
        closes = patterns = False
        for path, node in _mappings(self._schema, "$"):
            if path.count(".") > _MAX_NESTING:
                raise self._error(path, "the schema is nested too deeply")
            for word in ("$schema", "$id"):
                if isinstance(node.get(word), str):
                    raise self._error(path, f"{word!r} is allowed at the top only")
            for word in ("$ref", "$dynamicRef"):
                target = node.get(word)
                if isinstance(target, str) and not target.startswith("#"):
                    raise self._error(path, f"{word!r} leaves the schema; allowed: references that begin with '#'")
            found = node.get("patternProperties")
            keys = list(found) if isinstance(found, Mapping) else []
            patterns, closes = patterns or bool(keys), closes or "unevaluatedProperties" in node
            for pattern in [*keys, *([node["pattern"]] if isinstance(node.get("pattern"), str) else [])]:
                self._refuse_pattern(path, str(pattern))
        if closes and patterns:
            raise self._error("$", "'unevaluatedProperties' and 'patternProperties' cannot stand in one schema here")

    def _refuse_pattern(self, path: str, pattern: str) -> None:
        from guardrails_mw.gates.json_keywords import compiled

        try:
            compiled(pattern)
        except re2.error as error:
            known = "look-around and back-references are not allowed"
            raise self._error(path, f"the pattern {pattern[:80]!r} is not RE2 ({error}); {known}") from None

    def _refuse_dangling(self) -> None:
        from referencing import Registry
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012

        root = DRAFT202012.create_resource(self._schema)
        resolver = Registry().with_resource("", root).resolver()
        for path, node in _mappings(self._schema, "$"):
            for word in ("$ref", "$dynamicRef"):
                target = node.get(word)
                try:
                    if isinstance(target, str):
                        resolver.lookup(target)
                except Unresolvable:
                    raise self._error(path, f"nothing stands at {target!r}") from None

    def _error(self, path: str, problem: str) -> PolicyError:
        return PolicyError(f"at {path}: {problem}", file=self._file, field="" if self._file else "schema")


def named_keys(schema: object) -> frozenset[str]:
    """The property names that a schema itself mentions: keys that may be said aloud.

    >>> sorted(named_keys({"properties": {"a": {"required": ["b"]}}}))
    ['a', 'b']
    """
    names: set[str] = set()
    for _, node in _mappings(schema, "$"):
        for word in ("properties", "required", "dependentRequired"):
            value = node.get(word)
            if isinstance(value, Mapping | list):
                names.update(name for name in value if isinstance(name, str))
    return frozenset(names)


def safe_path(path: Iterable[str | int], known: frozenset[str]) -> str:
    """A JSON path in which keys that the schema does not name are hidden.

    >>> safe_path(["a", 0, "secret"], frozenset({"a"}))
    '$.a[0].*'
    """
    return "$" + "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" if step in known else ".*" for step in path
    )


def _message(word: object, expected: object) -> str:
    if word == "required" and isinstance(expected, Sequence):
        return f"'required' expected {', '.join(map(str, expected))}"
    if word == "type":
        return f"'type' expected {expected if isinstance(expected, str) else ' or '.join(map(str, _listed(expected)))}"
    if word in ("additionalProperties", "unevaluatedProperties") and expected is False:
        return f"{word!r} expected no other keys"
    if expected is None or isinstance(expected, Mapping) or word in ("anyOf", "oneOf", "allOf"):
        return f"{word!r} is not met" if word else "nothing is allowed here"
    return f"{word!r} expected {json.dumps(expected, ensure_ascii=False)[:200]}"


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _mappings(node: object, path: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Every mapping in a schema, wherever a reference could reach it, with its path."""
    waiting = [(path, node)]
    while waiting:
        path, node = waiting.pop()
        if isinstance(node, Mapping):
            yield path, node
            waiting += [(f"{path}.{key}", item) for key, item in node.items()]
        elif isinstance(node, list):
            waiting += [(f"{path}.{index}", item) for index, item in enumerate(node)]
