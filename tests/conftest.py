"""Makes the helpers that tests share importable, also in the child processes that isolated gates start."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
