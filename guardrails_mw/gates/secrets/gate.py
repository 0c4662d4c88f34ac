"""The secrets gate: finds credentials and takes them out."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Event, Part, Path, Stage
from guardrails_mw.gate import ALL_STAGES, Gate, GateConfig, Site
from guardrails_mw.gates.cutting import LAG, between_words
from guardrails_mw.gates.disguise import before_end, plainly, undisguised
from guardrails_mw.gates.secrets.rules import RuleSet, Secret, default_rules, open_key
from guardrails_mw.gates.secrets.values import is_secret_name, is_secret_value
from guardrails_mw.verdict import Action, Edit, Finding, Operator, Verdict

__all__ = ["SecretsConfig", "SecretsGate"]

REASON = "secret"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OPERATORS = {"remove": Operator.REMOVE, "mask": Operator.MASK, "hash": Operator.HASH, "token": Operator.TOKEN}


_NAMES, _VALUES = frozenset({"name", "key", "Name", "Key"}), frozenset({"value", "default", "Value", "Default"})
"""Keys of what settings are often made of: ``{"name": "DB_PASSWORD", "value": ...}``."""


def _named(parts: Iterable[Part]) -> set[Path]:
    """Where mappings stand that name a secret in a value of their own."""
    return {
        part.path[:-1]
        for part in parts
        if part.path and part.kind == "text" and part.path[-1] in _NAMES and is_secret_name(plainly(part.text))
    }


class SecretsConfig(GateConfig):
    """Keys of ``type: secrets``."""

    action: Literal["edit", "flag", "ask", "block"] = "edit"
    """What a secret means. `ask` and `block` edit too, so that nobody who reads the decision sees it."""
    style: Literal["remove", "mask", "hash", "token"] = "remove"
    """`remove` writes the kind, `mask` keeps up to four characters, `hash` writes a keyed hash, `token` a
    placeholder that becomes the secret again for the user and for tools with ``sees: raw``."""
    allow: tuple[str, ...] = Field(default=())
    """Harmless values, as they are or as ``sha256:`` and the hex digest of their UTF-8."""

    @field_validator("allow")
    @classmethod
    def _digests(cls, allow: tuple[str, ...]) -> tuple[str, ...]:
        for entry in allow:
            if entry.startswith("sha256:") and not _DIGEST.fullmatch(entry):
                raise ValueError("a digest is 'sha256:' and 64 hex digits in lower case")
        return allow


class SecretsGate(Gate):
    """Looks for credentials in every readable text of an event, keys included.

    Besides what a text shows by itself, the key above it counts: a random value under ``password`` is one.
    Findings have the type ``secret.<kind>``.

    >>> from guardrails_mw.event import Content
    >>> verdict = SecretsGate("secrets").check(Event(Stage.OUTPUT, Content({"password": "hK8-vw2_Tz"})))
    >>> verdict.edits[0].text, verdict.findings[0].type
    ('[SECRET:generic]', 'secret.generic')
    """

    stages: ClassVar[frozenset[Stage]] = ALL_STAGES
    config_type: ClassVar[type[GateConfig]] = SecretsConfig
    look_back = 128  # a name, then its value
    max_span = 512  # no kind but a private key has a blank in its first 512 characters or is longer

    def __init__(
        self, name: str, config: SecretsConfig | None = None, secret: bytes = b"", rules: RuleSet | None = None
    ) -> None:
        super().__init__(name)
        self._config = config or SecretsConfig(type="secrets")
        self._secret = secret
        self._rules = rules or default_rules()
        self._allow = frozenset(self._config.allow)

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> SecretsGate:
        """Make the gate. Raises `PolicyError` when hashes are wanted and there is no key to make them with."""
        assert isinstance(config, SecretsConfig)
        if config.style == "hash" and not site.secret:
            raise PolicyError("'hash' needs a store that keeps a key; allowed without: remove, mask", field="style")
        return cls(site.name, config, site.secret)

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - the same at every stage
        """It edits under every action but `flag`."""
        return frozenset({"edit", self._config.action} if self._config.action != "flag" else ())

    def settled(self, text: str, limit: int) -> int:
        """Between words, and in front of a private key that may go on, as the text stands and as it reads."""
        plain = undisguised(text)
        limit = min(limit, before_end(text, plain, LAG))
        while limit > 0:
            limit = between_words(text, limit)
            begins = [open_key(text, limit)]
            if plain is not None:
                begin = open_key(plain.text, plain.place(limit))
                begins.append(plain.origin(begin) if begin >= 0 else -1)
            if max(begins) < 0:
                return limit
            limit = min(begin for begin in begins if begin >= 0)
        return 0

    def context(self, text: str, position: int) -> int:
        """A few names and values back: one that is not cut may be the name of the next."""
        reach, plain = self.look_back + self.max_span, undisguised(text)
        back = position if plain is None else plain.origin(max(0, plain.place(position) - reach))
        return between_words(text, min(position - reach, back))

    def check(self, event: Event) -> Verdict:
        """Find and replace. Raises `GateError` when the scan could not be finished."""
        edits: list[Edit] = []
        findings: list[Finding] = []
        texts = list(event.texts())
        named = _named(part for _, part in texts)
        for index, part in texts:
            for secret in self._find(part, told=part.path[:-1] in named):
                findings.append(Finding(f"secret.{secret.kind}", secret.start, secret.end, 1.0, index))
                edits.append(self._edit(secret, part.text, index))
        if not findings:
            return Verdict.allow()
        if self._config.action == "edit":
            return Verdict.allow(REASON, edits=edits, findings=findings)
        if self._config.action == "flag":
            return Verdict.flag(REASON, findings=findings)
        action = Action.ASK if self._config.action == "ask" else Action.BLOCK
        return Verdict(action, REASON, tuple(edits), tuple(findings))

    def _find(self, part: Part, *, told: bool) -> Iterator[Secret]:
        """The secrets of a part; `told`: what stands beside it, or two keys up, may say what a value is."""
        found = self._rules.find(part.text)
        names = [part.context, *(part.path[-2:-1] if part.context in _VALUES else ())]
        named = (told and part.context in _VALUES) or any(is_secret_name(plainly(str(name))) for name in names)
        if not found and part.kind == "text" and named:
            value = part.text.strip()
            if is_secret_value(value):
                start = part.text.index(value)
                found = [Secret(start, start + len(value), "generic")]
        for secret in found:
            if not self._allow or not self._allowed(part.text[secret.start : secret.end]):
                yield secret

    def _allowed(self, value: str) -> bool:
        return value in self._allow or f"sha256:{hashlib.sha256(value.encode()).hexdigest()}" in self._allow

    def _edit(self, secret: Secret, text: str, part: int) -> Edit:
        value = text[secret.start : secret.end]
        style = self._config.style
        new = f"[SECRET:{secret.kind}]"
        if style == "mask":
            new = value[: min(4, len(value) // 4)] + "********"  # the length is not told
        elif style == "hash":
            digest = hmac.new(self._secret, value.encode(), hashlib.sha256).hexdigest()[:8]
            new = f"[SECRET:{secret.kind}:{digest}]"
        return Edit(secret.start, secret.end, new, part, _OPERATORS[style])
