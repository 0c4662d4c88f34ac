"""What every store must do, as tests to run against a store of your own.

Subclass `StoreConformance` in a module of your tests and say how the store is opened. The opener is called
often, also in other processes, so it must be picklable: a class, a function of a module, or a `partial` of
one. What it opens is empty when a test begins.

```python
import functools
import pytest
from guardrails_mw.conformance import StoreConformance
from mine import MyStore

class TestMyStore(StoreConformance):
    @pytest.fixture
    def opener(self, tmp_path):
        return functools.partial(MyStore, tmp_path / "store")
```

A store that no other process can see sets `shared = False`; one that ends with its process also
`lasting = False`. Needs pytest, and nothing else that the package does not need itself.
"""

from __future__ import annotations

from guardrails_mw.conformance.counter import CounterConformance
from guardrails_mw.conformance.crash import CrashConformance
from guardrails_mw.conformance.log import LogConformance
from guardrails_mw.conformance.race import RaceConformance
from guardrails_mw.conformance.register import RegisterConformance
from guardrails_mw.conformance.support import Opener

__all__ = [
    "CounterConformance",
    "CrashConformance",
    "LogConformance",
    "Opener",
    "RaceConformance",
    "RegisterConformance",
    "StoreConformance",
]


class StoreConformance(LogConformance, CounterConformance, RegisterConformance, RaceConformance, CrashConformance):
    """All of it."""
