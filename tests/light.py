"""A gate for processes that have to start often: nothing to import but what a verdict needs."""

from __future__ import annotations

from guardrails_mw.event import Event
from guardrails_mw.verdict import Verdict


def agrees(event: Event) -> Verdict:
    """Allows everything."""
    return Verdict.allow()
