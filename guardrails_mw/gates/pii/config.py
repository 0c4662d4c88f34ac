"""The keys of the gate ``pii``. Reading them needs nothing that searching needs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from guardrails_mw.gate import GateConfig
from guardrails_mw.gates.pii.ner import NerConfig
from guardrails_mw.gates.pii.replacement import Style
from guardrails_mw.gates.pii.sources import RecognizerConfig

__all__ = ["PiiConfig"]


class PiiConfig(GateConfig):
    """The keys of a ``pii`` gate."""

    type: Literal["pii"]
    """Which gate this is."""
    profile: Literal["agent", "strict"] = "agent"
    """``agent`` reports what is almost certainly personal; ``strict`` everything that a pattern finds."""
    entities: tuple[str, ...] | None = Field(default=None, min_length=1)
    """What to look for, by Presidio's names; the profile's own list if left out."""
    action: Literal["edit", "flag", "ask", "block"] = "edit"
    """What a finding means. Values are hidden under every action."""
    style: Style = "remove"
    """``remove`` names the kind of value, ``mask`` keeps the last four characters, ``hash`` a keyed fingerprint,
    ``token`` a placeholder that becomes the value again for the user and for tools with ``sees: raw``."""
    min_score: float | None = Field(default=None, ge=0, le=1)
    """Least score that counts, for every entity; the profile's own if left out."""
    countries: tuple[str, ...] = ()
    """Countries whose identifiers are looked for too, such as ``uk``, ``de``, ``in``."""
    recognizers: tuple[RecognizerConfig, ...] = ()
    """Recognizers of your own."""
    ner: NerConfig | None = None
    """A named-entity model, for PERSON, LOCATION and ORGANIZATION."""
