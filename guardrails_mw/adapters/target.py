"""The model that is called, with what it is called with: how long its answer may be, and every way of calling it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.chat_models import agenerate_from_stream, generate_from_stream
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult

from guardrails_mw.adapters.chunks import arriving
from guardrails_mw.adapters.usage import length, offered, size
from guardrails_mw.event import ModelCall
from guardrails_mw.wait import Either

__all__ = ["Target"]

_LIMITS = (
    "max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict", "max_tokens_to_sample",
    "maxTokens", "maxOutputTokens", "maxOutputLength",
)  # fmt: skip
"""How providers call the longest answer."""
_NUMBERS = ("n", "candidate_count", "candidateCount", "num_return_sequences")
"""How they call the number of answers."""
_BAGS = (
    "options", "generation_config", "generationConfig", "inference_config", "inferenceConfig", "model_kwargs",
    "extra_body", "additional_model_request_fields",
)  # fmt: skip
"""Mappings of more settings, in the arguments of a call or of the model, which override what stands beside them."""
_REPLACES = {"options": "num_predict"}
"""One that takes the place of all other settings, and what the longest answer is called in it."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model and the arguments of one call of it.

    Attributes:
        model: the provider's chat model.
        stop: words that end the answer.
        kwargs: whatever else the call was bound or made with.
    """

    model: BaseChatModel
    stop: list[str] | None = None
    kwargs: Mapping[str, object] = field(default_factory=dict)

    def asked(self, messages: Sequence[BaseMessage]) -> ModelCall:
        """The call as budgets see it before it is made."""
        params = self.model._get_ls_params(self.stop, **self.kwargs)
        name = self._limit_name
        own = self.kwargs[name] if name in self.kwargs else getattr(self.model, name, 0) or params.get("ls_max_tokens")
        inside = [length(bag.get(key)) for key, bag in self._limits_inside]
        return ModelCall(
            name=str(params.get("ls_model_name") or self.model._llm_type),
            input_tokens=size(*messages) + offered(self.kwargs),
            max_tokens=(min(inside) and max(inside) if inside else length(own)) * self._answers,
            limitable=bool(name or inside),
            answers=self._answers,
        )

    def limited(self, most: int | None) -> Target:
        """The same call with answers of no more than so many tokens together; None leaves it as it is."""
        name = self._limit_name
        if most is None or not (name or self._limits_inside):
            return self
        each = max(1, most // self._answers)
        kwargs = {**self.kwargs, **_limited_bags(self.kwargs, each)}
        update = _limited_bags({bag: getattr(self.model, bag, None) for bag in _BAGS}, each)
        if name in kwargs:
            kwargs[name] = each
        elif name:
            update[name] = each
        model = self.model.model_copy(update=update) if update else self.model
        return replace(self, model=model, kwargs=kwargs)

    @property
    def _limit_name(self) -> str:
        """What this provider calls the longest answer: the argument of the call, or else the model's own setting."""
        for known in (self.kwargs, type(self.model).model_fields):
            for name in _LIMITS:
                if name in known:
                    return name
        return ""

    @property
    def _limits_inside(self) -> list[tuple[str, Mapping[str, object]]]:
        """The limits in mappings of more settings: their names, and those mappings."""
        bags = [(name, self.kwargs.get(name) or getattr(self.model, name, None)) for name in _BAGS]
        return [(key, bag) for name, bag in bags if isinstance(bag, Mapping) and bag for key in _limits_in(name, bag)]

    @property
    def _answers(self) -> int:
        """How many answers the call asks for at once."""
        places = [self.kwargs, vars(self.model)]
        places += [bag for place in places for name in _BAGS if isinstance(bag := place.get(name), Mapping)]
        found = [place.get(name) for place in places for name in _NUMBERS]
        return max([1, *(number for number in found if isinstance(number, int))])

    @property
    def streams(self) -> Either[bool]:
        """Whether the model has a stream of its own, in either world."""
        return Either(lambda: self._streams_here, lambda: _ready(self._streams_there))

    @property
    def _streams_here(self) -> bool:
        return type(self.model)._stream is not BaseChatModel._stream

    @property
    def _streams_there(self) -> bool:
        return self._streams_here or type(self.model)._astream is not BaseChatModel._astream

    def whole(self, messages: list[BaseMessage]) -> Either[ChatResult]:
        """Its whole answer."""
        return Either(
            lambda: self.model._generate(messages, self.stop, None, **self.kwargs),
            lambda: self.model._agenerate(messages, self.stop, None, **self.kwargs),
        )

    def gathered(self, messages: list[BaseMessage]) -> Either[ChatResult]:
        """Its whole answer as one who adds up its stream reads it: calls that are cut off are completed."""
        return Either(
            lambda: generate_from_stream(self.pieces(messages)), lambda: agenerate_from_stream(self.apieces(messages))
        )

    def pieces(self, messages: list[BaseMessage]) -> Iterator[ChatGenerationChunk]:
        """Its answer as it comes; in one piece from a model that cannot stream."""
        if not self._streams_here:
            return iter([arriving(self.whole(messages).here())])
        return self.model._stream(messages, self.stop, None, **self._streaming)

    def apieces(self, messages: list[BaseMessage]) -> AsyncIterator[ChatGenerationChunk]:
        """Its answer as it comes, in the running loop; in one piece from a model that cannot stream."""
        if not self._streams_there:
            return self._apiece(messages)
        return self.model._astream(messages, self.stop, None, **self._streaming)

    async def _apiece(self, messages: list[BaseMessage]) -> AsyncIterator[ChatGenerationChunk]:
        yield arriving(await self.whole(messages).there())

    @property
    def _streaming(self) -> dict[str, object]:
        """The arguments of a stream: without `stream_usage` a custom base_url reports no tokens."""
        asks = {"stream_usage": True} if hasattr(self.model, "stream_usage") else {}
        return {**asks, **self.kwargs}


def _limits_in(name: str, bag: Mapping[str, object]) -> list[str]:
    """The names of limits in a mapping of settings; the one that it takes the place of, where it has none."""
    return [key for key in _LIMITS if key in bag] or ([_REPLACES[name]] if name in _REPLACES else [])


def _limited_bags(place: Mapping[str, object], most: int) -> dict[str, object]:
    """The mappings of settings in which there is a limit, with this one."""
    return {
        name: {**bag, **dict.fromkeys(keys, most)}
        for name in _BAGS
        if isinstance(bag := place.get(name), Mapping) and bag and (keys := _limits_in(name, bag))
    }


async def _ready(value: bool) -> bool:
    return value
