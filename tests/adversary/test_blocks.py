"""Content blocks with types that are none."""

from __future__ import annotations

import pytest

from guardrails_mw.event import Content


@pytest.mark.parametrize("kind", [["text"], {"text": 1}, None, 7])
def test_a_block_type_of_any_kind_is_walked(kind: object) -> None:
    """A block whose type is a list or a mapping is an unknown block with readable text, not an exception."""
    parts = Content([{"type": kind, "text": "hello"}], blocks=True).parts
    assert (parts[0].kind, parts[-1].text) == ("unknown", "hello")
