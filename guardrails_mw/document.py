"""A YAML document that remembers the line of every key, and says so when something is wrong.

The reader follows YAML 1.2 for plain words (only ``true`` and ``false`` are booleans, ``12:30`` is a
text), refuses duplicate keys and tags, and bounds aliases so that a small file cannot become a large one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import yaml

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Json
from guardrails_mw.event import Path as Loc
from guardrails_mw.files import read_text

__all__ = ["Document", "nearest"]

_MAX_NODES = 50_000
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class _Loader(yaml.SafeLoader):
    """SafeLoader with the plain words of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("int", r"^[-+]?[0-9]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class Document:
    r"""The data of a YAML file with its lines.

    Args:
        source: the text.
        file: its name in error messages.
        env: values for ``${NAME}`` and ``${NAME:-default}``; the process environment if left out.

    Raises:
        PolicyError: not YAML, a duplicate key, a tag, an unset variable, or nothing in it.

    >>> document = Document("a: 1\nb: {c: '${X:-two}'}", file="p.yaml", env={})
    >>> document.data, document.line(("b", "c"))
    ({'a': 1, 'b': {'c': 'two'}}, 2)
    """

    def __init__(self, source: str, file: str = "", env: Mapping[str, str] | None = None) -> None:
        self.file = file
        self._env = os.environ if env is None else env
        self._lines: dict[Loc, int] = {}
        self._count = 0
        try:
            node = yaml.compose(source, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise PolicyError(f"not YAML: {error.problem}", file=file, line=mark.line + 1 if mark else 0) from None
        except (yaml.YAMLError, ValueError) as error:
            raise PolicyError(f"not YAML: {type(error).__name__}", file=file) from None
        if not isinstance(node, yaml.MappingNode) or not node.value:
            raise PolicyError("the file is empty or not a mapping of keys", file=file, line=1)
        data = self._build(node, ())
        assert isinstance(data, dict)
        self.data: dict[str, Json] = data
        """The values, with environment variables filled in."""
        self.unexpanded = _Loader("").construct_document(node)
        """The values as written: what a content hash may cover without covering secrets."""

    @classmethod
    def read(cls, path: str | Path, env: Mapping[str, str] | None = None) -> Document:
        """Read a file. Raises `PolicyError` also when it cannot be read."""
        try:
            source = read_text(Path(path))
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyError(f"cannot read the file: {type(error).__name__}", file=str(path)) from None
        return cls(source, str(path), env)

    def __contains__(self, path: Loc) -> bool:
        return path in self._lines

    def line(self, path: Loc) -> int:
        """Line of a key or item, or of the nearest thing above it that has one."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def error(self, path: Loc, problem: str) -> PolicyError:
        """An error about one place in this document."""
        return PolicyError(problem, file=self.file, line=self.line(path), field=".".join(map(str, path)))

    def placed(self, error: PolicyError) -> PolicyError:
        """The same error with this file and its line, where it names a field of it."""
        if error.file:
            return error
        path = tuple(int(part) if part.isdigit() else part for part in error.field.split("."))
        return PolicyError(error.problem, file=self.file, line=self.line(path), field=error.field)

    def _build(self, node: yaml.Node, path: Loc) -> Json:
        self._count += 1
        if self._count > _MAX_NODES or len(path) > 32:
            raise self.error(path, "too many values or too deeply nested")
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Loc) -> dict[str, Json]:
        result: dict[str, Json] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            self._lines[(*path, key)] = key_node.start_mark.line + 1
            if key in result:
                raise self.error((*path, key), "this key appears twice")
            result[key] = self._build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.Node, path: Loc) -> Json:
        text, kind = str(node.value), node.tag.rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool":
            return text == "true"
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
        if kind != "str":
            raise self.error(path, f"tags are not allowed here: {node.tag}")
        return _VARIABLE.sub(lambda match: self._variable(match, path), text)

    def _variable(self, match: re.Match[str], path: Loc) -> str:
        name, default = match.group(1), match.group(2)
        value = self._env.get(name) or default
        if value is None:
            hint = f"write ${{{name}:-default}} for a default"
            raise self.error(path, f"the environment variable {name} is not set; {hint}")
        return value


def nearest(word: str, allowed: list[str]) -> str:
    """A hint for a misspelt word: the nearest spelling, and what is allowed.

    >>> nearest("injektion", ["injection", "pii"])
    "did you mean 'injection'? allowed: injection, pii"
    """
    close = get_close_matches(word, allowed, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}allowed: {', '.join(allowed) if allowed else 'nothing'}"
