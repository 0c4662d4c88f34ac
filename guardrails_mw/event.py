"""What is about to happen: an `Event`, and the `Content` that gates look at.

Content is never stringified. A message, the arguments of a tool call or the result of a tool is a tree
of JSON values; `Content` walks it into `Part`s, one for every text, and can put edited texts back in
their places. What cannot be read as text (an image, a file) becomes a part of its own, so that nothing
passes a gate unseen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias, cast

__all__ = [
    "ANONYMOUS",
    "Actor",
    "Blocks",
    "Content",
    "Event",
    "Json",
    "ModelCall",
    "Origin",
    "Part",
    "Path",
    "Stage",
    "ToolCall",
    "Where",
    "encodable",
    "is_name",
    "is_sealed",
]

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value as JSON knows it. `Content` also accepts other objects and marks them unreadable."""

Path: TypeAlias = tuple[str | int, ...]
"""Where a part sits in its content: keys and indices, outermost first."""


class Blocks(list["object"]):
    """The content blocks of a message that is part of a larger content, such as a chain's input."""


class Stage(StrEnum):
    """Where in a run an event stands."""

    INPUT = "input"
    MODEL = "model"
    OUTPUT = "output"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"


class Origin(StrEnum):
    """Who wrote a content. Only `SYSTEM` and `USER` speak for the people who run or use the agent.

    `RETRIEVED` is what a search found for a question and a chain puts beside it: written by anybody.
    """

    SYSTEM = "system"
    USER = "user"
    MODEL = "model"
    TOOL = "tool"
    RETRIEVED = "retrieved"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks. Comes from the caller's code, never from messages.

    >>> Actor("u1", roles=["support"]).has_role("support")
    True
    """

    id: str = ""
    roles: Sequence[str] = ()
    tenant: str = ""

    def has_role(self, *roles: str) -> bool:
        """Whether the actor holds any of these roles."""
        return any(role in self.roles for role in roles)


ANONYMOUS = Actor()


@dataclass(frozen=True, slots=True)
class Where:
    """Where in the host the event happens.

    Attributes:
        run: one top-level invocation together with its resumes.
        thread: the conversation; equals `run` where the host has no threads.
        task: checkpoint namespace; unique for a step of a graph and stable over a resume.
        caller: the task whose tool called this agent in a thread of its own; empty where it was not so.
        agent: name of the agent or chain.
        span: id of the host's own run that a trace should hang the decision under.
        turn: common to what the model asked for at once; empty where the host does not tell. Steps and tasks from the
            outermost graph inwards, as in ``step/task/step``.
    """

    run: str = ""
    thread: str = ""
    task: str = ""
    agent: str = ""
    span: str = ""
    turn: str = ""
    caller: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool the model wants to run, or whose result came back."""

    name: str
    args: Mapping[str, Json] = field(default_factory=dict, repr=False)
    id: str = ""
    valid: bool = True
    """False when the model's arguments were not valid JSON; `args` is then empty."""
    known: bool = True
    """False when the host has no tool of that name."""
    failed: bool = False
    """At its result: the host says that the call ended with an error."""


@dataclass(frozen=True, slots=True)
class ModelCall:
    """A model about to be called: tokens in are an estimate, `max_tokens` is 0 when unlimited.

    `limitable` says whether its caller can limit the answer, or limit it further. Where several `answers` are asked
    for at once, `max_tokens` is what all of them may have together.
    """

    name: str
    input_tokens: int = 0
    max_tokens: int = 0
    limitable: bool = False
    answers: int = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One text of a content.

    `text` has the same length in code points as the original, but never holds a lone surrogate, so
    offsets are valid in the original and every engine can encode it. `kind` is ``text``, ``key`` (a
    mapping's key), ``number``, or, where there is no text to read, what it is: ``image``, ``audio``,
    ``video``, ``file``, ``object``, ``unknown`` or ``too_deep``.
    """

    text: str = field(repr=False)
    path: Path = ()
    kind: str = "text"

    @property
    def readable(self) -> bool:
        """Whether gates can look at it."""
        return self.kind in _READABLE

    @property
    def context(self) -> str:
        """The nearest key above this part; a hint about what the value means."""
        return next((key for key in reversed(self.path) if isinstance(key, str)), "")


_READABLE = frozenset({"text", "key", "number"})
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_DEPTH = 64
_MIN_NUMBER = 100_000  # shorter numbers identify nobody; longer ones may be a card or an account
_OPAQUE_BLOCKS = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
    "media": "file",
}
_READABLE_BLOCKS = frozenset(
    {
        "text", "text-plain", "input_text", "output_text", "refusal", "reasoning", "thinking", "summary_text",
        "redacted_thinking", "tool_use", "tool_call", "tool_call_chunk", "tool_result", "function_call",
        "invalid_tool_call", "server_tool_use", "server_tool_call", "server_tool_call_chunk",
        "server_tool_result", "web_search_tool_result", "web_search_call", "file_search_call", "citation",
    }
)  # fmt: skip
_TECHNICAL = frozenset({"type", "id", "index", "signature", "encrypted_content", "mime_type", "status"})
_NAME = re.compile(r"(?![0-9.:_/+-]{9,}$)[A-Za-z0-9_.:/+-]{1,128}", re.ASCII)
_SEALED = re.compile(r"[A-Za-z0-9+/=_-]{100,}", re.ASCII)
_KEY = re.compile(r"[A-Za-z_]{1,64}", re.ASCII)


def is_sealed(text: str) -> bool:
    """Whether a text is a long run of base64, as signatures and encrypted contents are: no words for a reader."""
    return _SEALED.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether a text is a name or an id as programs make them. Digits alone are none: they may be an account.

    >>> is_name("run-4f.2"), is_name("Ann Jones"), is_name("4111-1111-1111-1111")
    (True, False, False)
    """
    return _NAME.fullmatch(text) is not None


def encodable(text: str) -> str:
    """The text as gates read it: of the same length, with a sign in place of each lone surrogate."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


@dataclass(frozen=True)
class Content:
    """A JSON value, walked into parts.

    Args:
        value: the text, the list of content blocks or the tree of arguments.
        blocks: whether mappings in the top-level list are content blocks of a chat message.

    >>> content = Content({"to": "bob@example.com", "n": 1})
    >>> [(part.path, part.text, part.kind) for part in content.parts if part.kind == "text"]
    [(('to',), 'bob@example.com', 'text')]
    >>> content.replaced({1: "[EMAIL]"}).value
    {'to': '[EMAIL]', 'n': 1}
    """

    value: object = field(repr=False)
    blocks: bool = False

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Every text (and every unreadable piece) in reading order."""
        if isinstance(self.value, str):
            return (Part(encodable(self.value)),)
        return tuple(_walk(self.value, (), self.blocks))

    @cached_property
    def size(self) -> int:
        """Characters in all readable parts."""
        return sum(len(part.text) for part in self.parts)

    @property
    def text(self) -> str:
        """All readable texts but keys, one per line. For display and hashing, not for offsets."""
        return "\n".join(part.text for part in self.parts if part.kind in ("text", "number"))

    def written(self, index: int) -> str:
        """The text of a part as it was written, lone surrogates included: halves of a sign that came in two pieces."""
        part = self.parts[index]
        if "\ufffd" not in part.text or part.kind != "text":
            return part.text
        value: object = self.value
        for step in part.path:
            if isinstance(value, Mapping):
                value = next(item for key, item in value.items() if str(key) == step)
            else:
                value = cast("Sequence[object]", value)[cast("int", step)]
        return str(value)

    def replaced(self, texts: Mapping[int, str]) -> Content:
        """A copy with the texts of some parts (by index) replaced; the original is left alone."""
        if not texts:
            return self
        changes = {(self.parts[i].path, self.parts[i].kind == "key"): text for i, text in texts.items()}
        return Content(_rebuild(self.value, (), changes), self.blocks)


def _walk(value: object, path: Path, blocks: bool) -> Iterator[Part]:
    if isinstance(value, str):
        yield Part(encodable(value), path)
    elif value is None or isinstance(value, bool):
        return
    elif isinstance(value, int | float):
        if abs(value) >= _MIN_NUMBER:
            yield Part(_digits(value), path, "number")
    elif len(path) >= _MAX_DEPTH:
        yield Part("", path, "too_deep")
    elif isinstance(value, Mapping):
        yield from _walk_mapping(value, path, blocks)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _walk(item, (*path, index), isinstance(value, Blocks) or (blocks and not path))
    else:
        yield Part("", path, "object")


def _digits(value: float) -> str:
    """A number as people read it: whole numbers without a point, whatever their type."""
    return str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)


def _walk_mapping(value: Mapping[object, object], path: Path, block: bool) -> Iterator[Part]:
    kind = str(value.get("type"))  # whoever wrote the block may have put anything there
    if block:
        if kind in _OPAQUE_BLOCKS:
            yield Part("", path, _OPAQUE_BLOCKS[kind])
        elif kind not in _READABLE_BLOCKS:
            yield Part("", path, "unknown")
    for key, item in value.items():
        name = str(key)
        if block and name in _TECHNICAL and _is_technical(name, item):
            continue
        if block and kind in _OPAQUE_BLOCKS:
            yield from (part for part in _walk(item, (*path, name), False) if part.kind == "text" and " " in part.text)
            continue
        if not (block and _KEY.fullmatch(name)):
            yield Part(encodable(name), (*path, name), "key")
        yield from _walk(item, (*path, name), False)


def _is_technical(name: str, value: object) -> bool:
    """Whether a technical field of a block holds what it is for: a tool may have put anything there."""
    if not isinstance(value, str):
        return value is None or (isinstance(value, int) and abs(value) < _MIN_NUMBER)
    if name == "type":
        return value in _READABLE_BLOCKS
    return is_name(value) or (name in ("signature", "encrypted_content") and is_sealed(value))


def _rebuild(value: object, path: Path, changes: Mapping[tuple[Path, bool], str]) -> object:
    new = changes.get((path, False))
    if new is not None:
        return new
    if isinstance(value, Mapping):
        result: dict[object, object] = {}
        for key, item in value.items():
            new = changes.get(((*path, str(key)), True), key)
            again = new  # two keys that became one: both values stay
            while again in result:
                again = f"{new} ({len(result) + 1})"
            result[again] = _rebuild(item, (*path, str(key)), changes)
        return result
    if isinstance(value, list | tuple):
        return [_rebuild(item, (*path, index), changes) for index, item in enumerate(value)]
    return value


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a policy decides on before it happens.

    Attributes:
        stage: where in the run it stands.
        content: everything in it that can be read.
        origin: who wrote the content.
        call: the tool or model call, at the stages that have one.
        key: identifies the event across re-runs of a node; empty means "never seen again".
        first: the key of the first try, where this is a retry, which has a key of its own because it costs again.

    >>> Event(Stage.INPUT, Content("hello")).content.text
    'hello'
    """

    stage: Stage
    content: Content
    origin: Origin = Origin.USER
    actor: Actor = ANONYMOUS
    where: Where = Where()
    call: ToolCall | ModelCall | None = None
    key: str = ""
    first: str = ""

    @property
    def tool(self) -> ToolCall | None:
        """The tool call, if this event has one."""
        return self.call if isinstance(self.call, ToolCall) else None

    def texts(self, accept: Callable[[Part], bool] | None = None) -> Iterator[tuple[int, Part]]:
        """Index and part of every readable text, for gates that look for spans."""
        for index, part in enumerate(self.content.parts):
            if part.text and part.kind in _READABLE and (accept is None or accept(part)):
                yield index, part
