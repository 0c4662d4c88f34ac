"""Llama Guard as a gate: P(unsafe) of what is said, with the model's own category as the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from pydantic import Field, SecretStr, model_validator

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Event, ModelCall, Stage
from guardrails_mw.gate import Cost, Gate, GateConfig, Site, windows
from guardrails_mw.gates.llama_guard.answer import MAX_ANSWER_TOKENS, Answer
from guardrails_mw.gates.llama_guard.conversation import Turn, conversation, visible_text
from guardrails_mw.gates.llama_guard.endpoint import Endpoint
from guardrails_mw.gates.llama_guard.local import LocalModel
from guardrails_mw.tokens import tokens
from guardrails_mw.verdict import Usage, Verdict

__all__ = ["Judge", "LlamaGuardConfig", "LlamaGuardGate"]

_PROMPT = 400
"""Tokens that the template of a Llama Guard adds, which names every category; an estimate, on the high side."""


class LlamaGuardConfig(GateConfig):
    """The keys of a `llama_guard` gate."""

    type: Literal["llama_guard"] = "llama_guard"
    model: str = Field(default="meta-llama/Llama-Guard-3-1B", min_length=1)
    """A hub id or a folder (relative to the policy); with `endpoint`, the name the server knows it by."""
    endpoint: str | None = None
    """Base address of an OpenAI-compatible server, such as ``http://127.0.0.1:8000/v1``; without it the model
    runs in this process."""
    api_key: SecretStr | None = None
    """Key for the endpoint; write ``${NAME}`` to take it from the environment."""
    block_at: float = Field(default=0.5, gt=0, le=1)
    """P(unsafe) from which a text is blocked."""
    flag_at: float | None = Field(default=None, gt=0, le=1)
    """P(unsafe) from which a text is flagged; nothing is flagged if left out."""
    categories: tuple[str, ...] | None = Field(default=None, min_length=1)
    """The category codes that count (``S1`` to ``S14`` in Llama Guard 3); all if left out. An unsafe answer that
    names no category always counts."""
    device: str | None = None
    """Where torch runs the model; the first GPU if there is one."""
    max_chars: int = Field(default=16_000, ge=64)
    """Characters judged at once. Longer texts are judged in overlapping pieces, and the worst one counts."""

    @model_validator(mode="after")
    def _fits(self) -> LlamaGuardConfig:
        if self.flag_at is not None and self.flag_at >= self.block_at:
            raise ValueError("flag_at must be below block_at")
        if self.endpoint is None and self.api_key is not None:
            raise ValueError("api_key goes with an endpoint")
        if self.endpoint is not None and self.device is not None:
            raise ValueError("device is for a model in this process, not for an endpoint")
        bad = [code for code in self.categories or () if not (code[:1].isupper() and code[1:].isdecimal())]
        if bad:
            raise ValueError(f"{bad[0]!r} is not a category code; write S1, S2, ...")
        return self


class Judge(Protocol):
    """A Llama Guard model, wherever it runs."""

    def warm(self) -> None:
        """Load what the first judgement would load."""

    @property
    def charged(self) -> bool:
        """Whether somebody charges for it."""

    def judge(self, turns: list[Turn]) -> Answer:
        """Judge the last turn, or raise `GateError`."""

    def close(self) -> None:
        """Free what is held."""


class LlamaGuardGate(Gate):
    """Blocks what a Llama Guard model finds unsafe.

    The reason is ``harm.`` and the first category that counts, or ``harm`` where the model named none. What
    the model cannot read (an image, a file) is flagged as ``harm.unreadable``. A failure is never "safe": it
    is a `GateError`.

    Args:
        name: the gate's name in the policy.
        judge: the model.
        config: thresholds, categories and window size.
    """

    config_type: ClassVar[type[GateConfig]] = LlamaGuardConfig
    joins: ClassVar[bool] = False  # it reads all blocks at once
    cost = Cost.BLOCKING
    classifies = True

    def __init__(self, name: str, judge: Judge, config: LlamaGuardConfig) -> None:
        super().__init__(name)
        self._judge, self._config = judge, config

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> LlamaGuardGate:
        """Make the gate; the model is loaded by `warm` or the first check."""
        assert isinstance(config, LlamaGuardConfig)
        if config.endpoint is None:
            return cls(site.name, LocalModel(_source(config.model, site.base), config.device), config)
        key = config.api_key.get_secret_value() if config.api_key else ""
        return cls(site.name, Endpoint(config.endpoint, config.model, key), config)

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - the same at every stage
        """It only blocks."""
        return frozenset({"block"})

    def check(self, event: Event) -> Verdict:
        """Judge every window until one is blocked. Raises `GateError` for whatever is not a clear answer."""
        worst, used = Answer(0.0), list[Usage | None]()
        for window in self._windows(event):
            answer = self._counted(self._judge.judge(conversation(event, window)))
            used.append(answer.used)
            worst = max(worst, answer, key=lambda each: each.score)
            if worst.score >= self._config.block_at:
                break
        verdict = self._verdict(worst, unreadable=not all(part.readable for part in event.content.parts))
        return replace(verdict, used=tuple(used)) if self._judge.charged else verdict

    def calls(self, event: Event) -> Sequence[ModelCall]:
        """One for every window, where the model is somebody else's."""
        if not self._judge.charged:
            return ()
        name = self._config.model
        return [ModelCall(name, _PROMPT + tokens([each]), MAX_ANSWER_TOKENS) for each in self._windows(event)]

    def _windows(self, event: Event) -> Iterator[str]:
        text = visible_text(event)
        if text.strip():
            for _, window in windows(text, overlap=self._config.max_chars // 8, size=self._config.max_chars):
                yield window

    def warm(self) -> None:
        """Load the model. Raises `PolicyError` when that is impossible."""
        self._judge.warm()

    def close(self) -> None:
        """Drop the model."""
        self._judge.close()

    def _counted(self, answer: Answer) -> Answer:
        wanted = self._config.categories
        if wanted is None or not answer.categories:
            return answer
        counting = tuple(code for code in answer.categories if code in wanted)
        return replace(answer, categories=counting) if counting else Answer(0.0, used=answer.used)

    def _verdict(self, answer: Answer, *, unreadable: bool) -> Verdict:
        reason = ".".join(("harm", *answer.categories[:1]))
        block_at, flag_at = self._config.block_at, self._config.flag_at
        if answer.score >= block_at:
            return Verdict.block(reason, score=answer.score, threshold=block_at)
        if flag_at is not None and answer.score >= flag_at:
            return Verdict.flag(reason, score=answer.score, threshold=flag_at)
        if unreadable:
            return Verdict.flag("harm.unreadable", score=answer.score, threshold=block_at)
        return Verdict.allow(score=answer.score, threshold=block_at)


def _source(model: str, base: Path) -> str:
    """The folder if there is one, else the hub id. Raises `PolicyError` for what can only be a folder."""
    folder = base / Path(model).expanduser()
    if folder.is_dir():
        return str(folder)
    if model.startswith((".", "/", "~", "\\")) or model.count("/") > 1:
        raise PolicyError(f"there is no folder {folder}; give a folder or a hub id such as meta-llama/Llama-Guard-3-1B",
                          field="model")  # fmt: skip
    return model
