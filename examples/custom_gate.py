"""A gate of your own: a function that the policy names, and a test of the policy."""

from __future__ import annotations

import sys
from pathlib import Path

from guardrails_mw import Edit, Event, Guard, Policy, Verdict
from guardrails_mw.document import Document
from guardrails_mw.testing import assert_allows, assert_blocks

POLICY = """
version: 1
gates:
  competitors: {type: python, call: "custom_gate:no_competitors", with: {names: [Acme, Bolt], block_at: 2}}
stages: {output: [competitors]}
"""


def no_competitors(event: Event, names: list[str], block_at: int) -> Verdict:
    """Hide the names of competitors; block an answer that is full of them."""
    edits = [
        Edit(start, start + len(name), "another shop", index)
        for index, part in event.texts()
        for name in names
        if (start := part.text.find(name)) >= 0
    ]
    if len(edits) >= block_at:
        return Verdict.block("competitors", edits=edits)
    return Verdict.allow("competitors", edits=edits)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # where the policy finds this module
    guard = Guard(Policy.load(Document(POLICY)))
    print(assert_allows(guard, "You get that at Acme.", stage="output").content.value)
    print(assert_blocks(guard, "Acme is cheaper than Bolt.", stage="output", reason="competitors").verdict.reason)
