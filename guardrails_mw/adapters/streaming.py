"""An answer of a model as it arrives: what of it may be shown already, and the rest once it is decided.

Text and reasoning flow as far as the gates let them. Everything else (calls of tools, usage, metadata, content
that is not plain text) waits for the whole answer, which is decided as one that came in one piece would be.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks

from guardrails_mw.adapters.answered import decided
from guardrails_mw.adapters.chunks import as_chunk, last, settled
from guardrails_mw.adapters.exchange import MAX_REASKS, Exchange, sent_back
from guardrails_mw.adapters.failures import heard
from guardrails_mw.adapters.messages import ended, no_text, output_event, refusal_message
from guardrails_mw.adapters.metadata import folded, unfolded
from guardrails_mw.adapters.source import Source
from guardrails_mw.adapters.target import Target
from guardrails_mw.adapters.usage import outcome
from guardrails_mw.event import Content, ModelCall, Stage, is_name
from guardrails_mw.stream import Hold, Shown, Text
from guardrails_mw.verdict import Action, Check, Decision, Outcome, Verdict

__all__ = ["streamed"]

Place: TypeAlias = "tuple[str, object]"
"""Where a text stands in a message: the type and index of its block, or a name."""

_FIELDS = {"text": "text", "reasoning": "reasoning", "thinking": "thinking"}
"""Content blocks whose text flows, and the key that it is under."""
_SILENT = frozenset({"type", "index", "id", "signature"})
"""Keys of a block that say nothing to a reader, and wait for the end."""
_TEXT: Place = ("text", None)
_BESIDE: Place = ("beside", "reasoning_content")


@dataclass(slots=True)
class _Lane:
    """One text of an answer: what of it arrived, and the hold that it goes through."""

    place: Place
    hold: Hold
    text: Text = field(default_factory=Text)
    shown: Text = field(default_factory=Text)

    def chunk(self, text: str) -> AIMessageChunk:
        """A piece of this text as a message."""
        kind, index = self.place
        if self.place == _TEXT:
            return AIMessageChunk(content=text)
        if self.place == _BESIDE:
            return AIMessageChunk(content="", additional_kwargs={"reasoning_content": text})
        return AIMessageChunk(content=[{"type": kind, _FIELDS[kind]: text, "index": index}])


class _Draft:
    """An answer that is not complete. Keeps its texts as texts, and whole only the chunks that hold something else."""

    def __init__(self, exchange: Exchange, key: str) -> None:
        self._exchange, self._key = exchange, key
        self._lanes: dict[Place, _Lane] = {}
        self._parts: list[_Lane | ChatGenerationChunk] = []
        self._flows = True
        self._like: ChatGenerationChunk | None = None
        self.began = False

    @property
    def lanes(self) -> Sequence[_Lane]:
        """The texts of the answer, in the order in which they began."""
        return list(self._lanes.values())

    @property
    def shown(self) -> int:
        """Characters that were shown."""
        return sum(lane.hold.shown for lane in self._lanes.values())

    @property
    def ending(self) -> tuple[Check, ...]:
        """What gates said in the middle of a text that blocks the rest of the answer."""
        return tuple(check for lane in self._lanes.values() for check in lane.hold.ending)

    def take(self, chunk: ChatGenerationChunk) -> list[tuple[_Lane, str]]:
        """Add a chunk; the texts in it that may flow."""
        self.began = True
        message = chunk.message
        assert isinstance(message, AIMessageChunk)
        found = _texts(message) if self._flows else None
        if found is None or (found and _mixed(self._lanes, found)):
            self._flows = False  # what comes now has an order that texts must not leave
            self._parts.append(chunk)
            return []
        if not found or self._like is None or not _plain(chunk):
            bare = message.model_copy(update={"content": _without(message), "additional_kwargs": _beside(message)})
            self._parts.append(ChatGenerationChunk(message=bare, generation_info=chunk.generation_info))
        self._like = self._like or chunk
        return [(self._lane(place), text) for place, text in found.items()]

    def _lane(self, place: Place) -> _Lane:
        lane = self._lanes.get(place)
        if lane is None:
            exchange, frame = self._exchange, _frame(place)
            event = output_event(AIMessage(""), exchange.here, self._key)
            hold = Hold(exchange.enforcer.engine, event, exchange.seam, frame)
            lane = self._lanes[place] = _Lane(place, hold)
            self._parts.append(lane)
        return lane

    def piece(self, lane: _Lane, text: str) -> ChatGenerationChunk:
        """A piece of a text that may be shown, under the answer's own name."""
        chunk, like = lane.chunk(text), self._like
        if like is not None:
            chunk.id = no_text(like.message.id)
            provider = like.message.response_metadata.get("model_provider")
            if provider is not None and is_name(str(provider)):
                chunk.response_metadata = {"model_provider": provider}
        return ChatGenerationChunk(message=chunk)

    def whole(self) -> tuple[AIMessage, dict[str, object] | None]:
        """The answer as far as it arrived, and what was said about its generation."""
        chunks = [
            ChatGenerationChunk(message=part.chunk(str(part.text))) if isinstance(part, _Lane) else part
            for part in self._parts
        ]
        merged = merge_chat_generation_chunks(chunks)
        if merged is None:
            raise ValueError("No generations found in stream.")
        return settled(cast("AIMessage", merged.message)), merged.generation_info

    def told(self) -> Shown:
        """What was shown, for the decision on the whole."""
        return Shown(self.shown, self._fits, self.ending)

    def _fits(self, content: Content) -> bool:
        return all(lane.hold.fits(_said(content.value, lane.place)) for lane in self.lanes if lane.hold.shown)

    def rest(self, message: AIMessage) -> AIMessage:
        """The decided answer without what was shown."""
        content, kwargs = message.content, dict(message.additional_kwargs)
        for lane in self.lanes:
            cut = lane.hold.shown
            if lane.place == _TEXT and isinstance(content, str):
                content = content[cut:]
            elif lane.place == _BESIDE and cut:
                kwargs["reasoning_content"] = str(kwargs.get("reasoning_content", ""))[cut:]
            elif isinstance(content, list) and cut:
                content = _shortened(content, lane.place, cut)
        if not kwargs.get("reasoning_content", True):
            del kwargs["reasoning_content"]
        return message.model_copy(update={"content": content, "additional_kwargs": kwargs})

    def refusal(self, text: AIMessage) -> AIMessage:
        """A refusal in the form that the answer has begun in."""
        indices = [index for _, index in self._lanes if isinstance(index, int)]
        update: dict[str, object] = {"id": no_text(self._like.message.id) if self._like else None}
        if indices:
            update["content"] = [{"type": "text", "text": text.content, "index": max(indices) + 1}]
        return text.model_copy(update=update)


class _Attempt:
    """One call of the model, whose leave was given: its pieces, then its answer."""

    def __init__(self, exchange: Exchange, attempt: str, permit: Decision, chunks: Source[ChatGenerationChunk]) -> None:
        self._exchange, self._permit, self._chunks = exchange, permit, chunks
        self._key, self._engine, self._seconds = f"{attempt}.0", exchange.enforcer.engine, 0.0
        self.draft = _Draft(exchange, self._key)

    async def pieces(self) -> AsyncGenerator[ChatGenerationChunk, None]:
        """What may be shown while the answer arrives. However it ends, what is held for the call is settled."""
        draft, ended = self.draft, Outcome("unknown")
        try:
            while not draft.ending and (chunk := await self._next()) is not None:
                for lane, text in draft.take(chunk):
                    lane.text.add(text)
                    if shown := await lane.hold.feeding(text):
                        lane.shown.add(shown)
                        yield draft.piece(lane, shown)
            if not draft.ending:
                asked = cast("ModelCall", self._permit.event.call).input_tokens
                ended = outcome([draft.whole()[0]], asked, 0.0)
        except BaseException:
            await self._broken_off()
            raise
        finally:
            self._engine.settle(self._permit, replace(ended, seconds=self._seconds))
            await self._chunks.close()

    async def _next(self) -> ChatGenerationChunk | None:
        """The next piece; what its reader does meanwhile is not the model's time."""
        began = time.perf_counter()
        try:
            return await heard(self._chunks.next(), self._exchange.failing)
        finally:
            self._seconds += time.perf_counter() - began

    async def answer(self) -> tuple[ChatGenerationChunk, Decision | None]:
        """The rest of the decided answer; or what there was of it, and the decision that blocked."""
        message, info = self.draft.whole()
        try:
            answer, block = await self._exchange.answer(folded(message, info), self._key, self.draft.told())
        except BaseException:
            await self._broken_off()
            raise
        if block is not None:
            return ChatGenerationChunk(message=AIMessageChunk(content=message.content)), block
        decided(self._exchange.enforcer.seat, answer)
        return last(self.draft.rest(cast("AIMessage", answer)), unfolded(answer, info)), None

    async def _broken_off(self) -> None:
        """Keep what was shown of an answer that stays undecided: its stream broke, or nobody listens any more."""
        draft, exchange = self.draft, self._exchange
        if draft.began and self._engine.serves(Stage.OUTPUT):
            shown = "".join(str(lane.shown) for lane in draft.lanes)
            event = output_event(AIMessage(shown), exchange.here, self._key)
            await self._engine.stating(
                event, Check("stream", Verdict.flag("stream.broken_off")), exchange.seam, len(shown)
            )


async def streamed(
    exchange: Exchange, messages: Sequence[BaseMessage], target: Target
) -> AsyncGenerator[ChatGenerationChunk, None]:
    """The model's answer as it comes, or a refusal."""
    name = exchange.named()
    checked, refused = await exchange.checked(messages)
    if refused is None and (end := ended(exchange.enforcer, messages)) is not None:
        yield last(end, None)
        return
    engine, number = exchange.enforcer.engine, 0
    while refused is None:
        permit, call = await exchange.leave(checked, f"{name}#{number}", target)
        if permit.action > Action.FLAG:
            refused = permit
            break
        attempt = _Attempt(exchange, f"{name}#{number}", permit, _source(call, checked))
        async with aclosing(attempt.pieces()) as pieces:
            async for piece in pieces:
                yield piece
        rest, block = await attempt.answer()
        if block is None:
            yield rest
            return
        if attempt.draft.shown:
            refusal = attempt.draft.refusal(refusal_message(exchange.enforcer, block))
            yield last(refusal, None)
            return
        if number >= min(engine.reasks(block), MAX_REASKS):
            refused = block
        else:
            checked, number = checked + sent_back(rest.message, block.verdict.note), number + 1
    yield as_chunk(exchange.refused(refused, messages))


def _source(target: Target, messages: list[BaseMessage]) -> Source[ChatGenerationChunk]:
    return Source(lambda: target.pieces(messages), lambda: target.apieces(messages))


def _texts(message: AIMessageChunk) -> dict[Place, str] | None:
    """The texts in a chunk that may flow; None where it says something that is no such text."""
    found: dict[Place, str] = {}
    if isinstance(message.content, str):
        if message.content:
            found[_TEXT] = message.content
    else:
        for block in message.content:
            if not isinstance(block, dict) or "index" not in block:
                return None
            kind, key = str(block.get("type")), _FIELDS.get(str(block.get("type")))
            if key is None or not set(block) <= _SILENT | {key} or not isinstance(block.get(key, ""), str):
                return None
            place = kind, block["index"]
            if not (isinstance(place[1], int) or (isinstance(place[1], str) and is_name(place[1]))) or place in found:
                return None  # two that hosts keep apart, or one that they do not add up
            if block.get(key):
                found[place] = block[key]
    for name, value in message.additional_kwargs.items():
        if name == _BESIDE[1] and isinstance(value, str):
            found.update({_BESIDE: value} if value else {})
        elif name not in ("tool_calls", "function_call"):
            return None
    return found


def _mixed(lanes: Mapping[Place, _Lane], found: Mapping[Place, str]) -> bool:
    """Whether a text and content blocks stand in one answer, so that what comes first is not what began first.

    Or two texts of one kind, which are read together: what ends one may be half a value.
    """
    places = {*lanes, *found} - {_BESIDE}
    return len(places) > 1 and (_TEXT in places or len({kind for kind, _ in places}) < len(places))


def _plain(chunk: ChatGenerationChunk) -> bool:
    """Whether a chunk holds nothing besides its texts."""
    message = chunk.message
    assert isinstance(message, AIMessageChunk)
    more = message.tool_call_chunks or message.usage_metadata or chunk.generation_info or message.chunk_position
    if more or set(message.response_metadata) - {"model_provider"} or set(message.additional_kwargs) - {_BESIDE[1]}:
        return False
    return isinstance(message.content, str) or all(
        set(block) <= {"type", "index", *_FIELDS} for block in message.content
    )


def _without(message: AIMessageChunk) -> str | list[str | dict[str, object]]:
    """The content of a chunk without its texts: what else its blocks hold."""
    if isinstance(message.content, str):
        return ""
    left = ({k: v for k, v in b.items() if k not in _FIELDS} for b in message.content if isinstance(b, dict))
    return [block for block in left if set(block) - {"type", "index"}]


def _beside(message: AIMessageChunk) -> dict[str, object]:
    return {name: value for name, value in message.additional_kwargs.items() if name != _BESIDE[1]}


def _frame(place: Place) -> Callable[[str], Content]:
    """How a text of an answer stands in the content that is decided in the end."""
    kind, index = place
    if place == _TEXT:
        return Content
    if place == _BESIDE:
        return lambda text: Content(
            [{"type": "reasoning", "beside": {"additional_kwargs": {_BESIDE[1]: text}}}], blocks=True
        )
    return lambda text: Content([{"type": kind, _FIELDS[kind]: text, "index": index}], blocks=True)


def _said(value: object, place: Place) -> str:
    """What a decided content says at a place; empty where nothing is there."""
    if isinstance(value, str):
        return value if place == _TEXT else ""
    for block in value if isinstance(value, list) else ():
        if place == _TEXT and isinstance(block, str):  # a text that blocks came after
            return block
        if not isinstance(block, Mapping):
            continue
        if place == _BESIDE and "beside" in block:
            return str(block["beside"].get("additional_kwargs", {}).get(_BESIDE[1], ""))
        if place == _TEXT and block.get("type") == "text" and "index" not in block:
            return str(block.get("text", ""))
        if (block.get("type"), block.get("index")) == place:
            return str(block.get(_FIELDS[place[0]], ""))
    return ""


def _shortened(content: list[str | dict[str, object]], place: Place, cut: int) -> list[str | dict[str, object]]:
    """Content blocks without the beginning of the text at a place."""
    if place == _TEXT:  # it came first, and blocks after it
        first, *more = content
        left = first[cut:] if isinstance(first, str) else first
        return [left, *more] if left else more
    return [
        {**block, _FIELDS[place[0]]: str(block.get(_FIELDS[place[0]], ""))[cut:]}
        if isinstance(block, dict) and (block.get("type"), block.get("index")) == place
        else block
        for block in content
    ]
