"""What the command line's tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables have room, whatever terminal the tests run in."""
    monkeypatch.setenv("COLUMNS", "200")
