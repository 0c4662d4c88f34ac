"""Time of the ``pii`` gate on short texts and on hostile ones; start-up time and memory.

Usage: python benchmarks/pii_speed.py
"""

from __future__ import annotations

import resource
import statistics
import time
from pathlib import Path

PROSE = (
    "The committee met on Tuesday to talk about the new library, and most of the members agreed that the "
    "building should keep its old front while the rooms behind it are made larger and lighter for readers. "
)
MAIL = (
    "Please send the minutes of the meeting to bob.miller@example.com before the end of the week, so that he can "
    "read them on the train. "
)
HOSTILE = (
    ".", "a.a.", "a!a!@", "!", "1 1 1 ", "1/2/1/2/", "www.", "a@", "http://a.", "123-456-7890 ", "::", "1a", "0-"
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    begin = time.perf_counter()
    from guardrails_mw.event import Content, Event, Stage
    from guardrails_mw.gate import Site
    from guardrails_mw.gates.pii.gate import PiiConfig, PiiGate

    def gate(**keys: object) -> PiiGate:
        return PiiGate.build(PiiConfig.model_validate({"type": "pii", **keys}), Site("pii", Path()))

    def event(text: str) -> Event:
        return Event(Stage.INPUT, Content(text))

    agent = gate()
    agent.check(event(MAIL))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"import + build + first decision: {time.perf_counter() - begin:.2f} s, peak memory {peak:.0f} MB")
    mail, strict = gate(entities=["EMAIL_ADDRESS"]), gate(profile="strict")
    for name, used, text in (
        ("clean 200 B, agent", agent, PROSE[:200]),
        ("clean 1 KB, agent", agent, (PROSE * 6)[:1024]),
        ("clean 1 KB, mail only", mail, (PROSE * 6)[:1024]),
        ("one mail 200 B, mail only", mail, (MAIL + PROSE)[:200]),
        ("one mail 200 B, agent", agent, (MAIL + PROSE)[:200]),
        ("one mail 200 B, strict", strict, (MAIL + PROSE)[:200]),
        ("clean 1 KB, strict", strict, (PROSE * 6)[:1024]),
    ):
        times = []
        for _ in range(400):
            begin = time.perf_counter()
            used.check(event(text))
            times.append(time.perf_counter() - begin)
        print(f"{name:28} {statistics.median(times) * 1e6:8.1f} us")
    for piece in HOSTILE:
        text = (piece * 8192)[:8192]
        for name, used in (("agent", agent), ("strict", strict)):
            begin = time.perf_counter()
            used.check(event(text))
            print(f"8 KB of {piece!r:18} {name:8} {(time.perf_counter() - begin) * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
