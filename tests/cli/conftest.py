"""A policy of its own for every test."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import POLICY


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A policy file in an empty folder."""
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    return file


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables have room, whatever terminal the tests run in."""
    monkeypatch.setenv("COLUMNS", "200")
