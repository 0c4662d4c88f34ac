"""Gates for policies that are reloaded, and ways to see that something ends."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from guardrails_mw.event import Event
from guardrails_mw.verdict import Verdict


def says(event: Event, name: str) -> Verdict:
    """Flags everything with a name."""
    return Verdict.flag(name)


async def says_later(event: Event, name: str) -> Verdict:
    """Flags everything with a name, asynchronously."""
    return Verdict.flag(name)


def waits(event: Event, name: str, folder: str) -> Verdict:
    """Flags everything with a name. Leaves the file `begun` in a folder and waits for `go` there, for a text "wait"."""
    if event.content.text == "wait":
        Path(folder, "begun").touch()
        assert until(Path(folder, "go").exists)
    return Verdict.flag(name)


def until(holds: Callable[[], object], seconds: float = 20.0) -> bool:
    """Wait until something holds; whether it came to hold in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return bool(holds())
