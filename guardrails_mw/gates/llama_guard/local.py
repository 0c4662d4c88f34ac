r"""A Llama Guard model in this process, through transformers.

How the score is found: the model answers greedily, once, at most `MAX_ANSWER_TOKENS` tokens. Its first
tokens may be whitespace (Llama Guard 3 answers ``"\n\nsafe"``); the first position that is not must
hold the first token of "safe" or "unsafe". The score is the softmax of that position's raw logits over
exactly those first tokens, so 0.5 is where the model's own word changes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from guardrails_mw.errors import GateError, PolicyError
from guardrails_mw.gate import DEADLINE
from guardrails_mw.gates.llama_guard.answer import MAX_ANSWER_TOKENS, Answer, parse, probability
from guardrails_mw.gates.llama_guard.conversation import Turn

if TYPE_CHECKING:
    from torch import Tensor, device

__all__ = ["LocalModel"]

_LEADS = ("", " ", "\n", "\n\n")
_PROBE = "probe"
_INSTALL = "run: pip install 'guardrails-mw[llama-guard]'"


class _Tokenizer(Protocol):
    """What is used of a transformers tokenizer."""

    unk_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool, return_tensors: str) -> Mapping[str, Tensor]: ...
    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...
    def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str: ...
    def apply_chat_template(self, messages: object, *, tokenize: bool, add_generation_prompt: bool) -> object: ...


class _Generated(Protocol):
    sequences: Tensor
    logits: tuple[Tensor, ...]


class _Model(Protocol):
    """What is used of a transformers model."""

    device: device

    def generate(self, *, input_ids: Tensor, attention_mask: Tensor, **options: object) -> _Generated: ...


@dataclass(frozen=True, slots=True)
class _Loaded:
    tokenizer: _Tokenizer
    model: _Model
    words: dict[int, str]
    """First answer tokens: id -> the word it begins."""
    marks: tuple[str, ...]
    """Texts that the tokenizer reads as one special token, wherever they stand."""
    blocks: bool
    """Whether the template wants a message's content as a list of typed blocks."""
    limit: int
    """Tokens that fit, prompt and answer together."""


class LocalModel:
    """Judges conversations with a model from a folder or the hub. Safe to use from several threads.

    Args:
        source: hub id or folder.
        device: where torch should put it; the first GPU if there is one, else the CPU.

    Raises:
        PolicyError: torch or transformers is not installed.
    """

    def __init__(self, source: str, device: str | None = None) -> None:
        for package in ("torch", "transformers"):
            if find_spec(package) is None:
                raise PolicyError(f"{package} is not installed; {_INSTALL}")
        self._source, self._device = source, device
        self._lock = Lock()
        self._loaded: _Loaded | None = None

    def warm(self) -> None:
        """Load the model. Raises `PolicyError` when it cannot be loaded or its template cannot be used."""
        with self._lock:
            self._load()

    def close(self) -> None:
        """Drop the model; the next judgement loads it again."""
        with self._lock:
            self._loaded = None

    @property
    def charged(self) -> bool:
        """Whether somebody charges for it."""
        return False

    def judge(self, turns: list[Turn]) -> Answer:
        """Judge the last turn. One judgement runs at a time; waiting for it counts against the deadline.

        Raises:
            GateError: ``deadline``, ``llama_guard.too_long`` (more than the model can read),
                ``llama_guard.template`` (the template dropped the text) or ``llama_guard.unparsable``.
        """
        if not self._lock.acquire(timeout=_remaining() or -1):
            raise GateError("deadline")
        try:
            return self._judge(self._load(), turns)
        finally:
            self._lock.release()

    def _load(self) -> _Loaded:
        if self._loaded is None:
            self._loaded = _load(self._source, self._device)
        return self._loaded

    def _judge(self, loaded: _Loaded, turns: list[Turn]) -> Answer:
        import torch  # takes seconds

        text = _broken(turns[-1]["content"], loaded.marks)
        last: Turn = {"role": turns[-1]["role"], "content": text}
        prompt = _render(loaded.tokenizer, [*turns[:-1], last], blocks=loaded.blocks)
        if text.strip() not in prompt:
            raise GateError("llama_guard.template")
        inputs = loaded.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        if length + MAX_ANSWER_TOKENS > loaded.limit:
            raise GateError("llama_guard.too_long")
        with torch.inference_mode():
            output = loaded.model.generate(
                input_ids=inputs["input_ids"].to(loaded.model.device),
                attention_mask=inputs["attention_mask"].to(loaded.model.device),
                max_new_tokens=MAX_ANSWER_TOKENS,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
                max_time=_remaining(),
            )
        _remaining()
        return _answer(loaded, output.sequences[0, length:].tolist(), output.logits)


def _remaining() -> float | None:
    """Seconds until the deadline, None when there is none. Raises `GateError` (``deadline``) when it has passed."""
    remaining = DEADLINE.get() - time.perf_counter()
    if remaining <= 0:
        raise GateError("deadline")
    return None if math.isinf(remaining) else remaining


def _load(source: str, place: str | None) -> _Loaded:
    try:
        torch, transformers = import_module("torch"), import_module("transformers")
    except ImportError:
        raise PolicyError(f"torch or transformers does not import; {_INSTALL}") from None
    place = place or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source)
        # safetensors only: the older format is a pickle, which runs what it holds
        model = transformers.AutoModelForCausalLM.from_pretrained(source, use_safetensors=True).to(place).eval()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        problem = f"cannot load the model {source!r} on {place!r}: {type(error).__name__}: {str(error)[:300]}"
        raise PolicyError(problem, field="model") from error
    if model.generation_config.pad_token_id is None:
        model.generation_config.pad_token_id = tokenizer.eos_token_id or 0
    model.generation_config.update(temperature=None, top_p=None, top_k=None)  # greedy; unused values would warn
    limit = int(getattr(model.config, "max_position_embeddings", 0)) or tokenizer.model_max_length
    marks = tuple(mark for mark in tokenizer.get_added_vocab() if len(mark) > 1)
    return _Loaded(tokenizer, model, _first_tokens(tokenizer), marks, _wants_blocks(tokenizer), limit)


def _broken(text: str, marks: tuple[str, ...]) -> str:
    """The text without the tokenizer's own special tokens, whatever family the model is of."""
    for mark in marks:
        if mark in text:
            text = text.replace(mark, f"{mark[0]} {mark[1:]}")
    return text


def _first_tokens(tokenizer: _Tokenizer) -> dict[int, str]:
    words: dict[int, str] = {}
    for word in ("safe", "unsafe"):
        for lead in _LEADS:
            ids = tokenizer.encode(lead + word, add_special_tokens=False)
            first = next((i for i in ids if str(tokenizer.decode([i])).strip()), None)
            if first is None or first == tokenizer.unk_token_id or words.setdefault(first, word) != word:
                raise PolicyError("the model's tokenizer cannot tell 'safe' from 'unsafe'; is it a Llama Guard model?")
    return words


def _wants_blocks(tokenizer: _Tokenizer) -> bool:
    """Templates read a content as text (8B) or as typed blocks (1B, vision): find out which keeps both turns."""
    turns: list[Turn] = [{"role": "user", "content": f"{_PROBE}1"}, {"role": "assistant", "content": f"{_PROBE}2"}]
    for blocks in (False, True):
        try:
            prompt = _render(tokenizer, turns, blocks=blocks)
        except GateError:
            continue
        if all(turn["content"] in prompt for turn in turns):
            return blocks
    raise PolicyError("the model has no chat template that shows it a user's and an assistant's turn")


def _render(tokenizer: _Tokenizer, turns: list[Turn], *, blocks: bool) -> str:
    from jinja2 import TemplateError  # comes with the extra

    messages = [
        {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}] if blocks else turn["content"]}
        for turn in turns
    ]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))
    except (TemplateError, ValueError, TypeError):
        raise GateError("llama_guard.template") from None


def _answer(loaded: _Loaded, tokens: list[int], logits: Sequence[Tensor]) -> Answer:
    """Read the verdict off the first position that is not whitespace."""
    unsafe, categories = parse(str(loaded.tokenizer.decode(tokens, skip_special_tokens=True)))
    at = next((n for n, token in enumerate(tokens) if str(loaded.tokenizer.decode([token])).strip()), -1)
    if at < 0 or loaded.words.get(tokens[at]) != ("unsafe" if unsafe else "safe"):
        raise GateError("llama_guard.unparsable")
    firsts = logits[at][0, list(loaded.words)].float().tolist()
    return Answer(probability(zip(loaded.words.values(), firsts, strict=True)), categories)
