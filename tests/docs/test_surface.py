"""What people import, and what the generated pages say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import guardrails_mw

GENERATE = Path(__file__).parents[2] / "docs" / "generate.py"
HEAVY = ("pydantic", "langchain", "langchain_core", "langgraph", "presidio_analyzer", "spacy", "torch", "opentelemetry")


def test_public_names_are_sorted_and_there() -> None:
    """`__all__` is sorted, holds nothing twice, and everything in it can be imported."""
    assert list(guardrails_mw.__all__) == sorted(set(guardrails_mw.__all__))
    for name in guardrails_mw.__all__:
        assert getattr(guardrails_mw, name).__name__ == name
    assert set(guardrails_mw.__all__) < set(dir(guardrails_mw))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails like in any other module."""
    with pytest.raises(AttributeError, match="Gaurd"):
        _ = guardrails_mw.Gaurd


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`import guardrails_mw` costs next to nothing; `Guard` itself needs no framework."""
    for statement, allowed in (("import guardrails_mw", ()), ("from guardrails_mw import Guard", ("pydantic",))):
        code = f"{statement}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded = result.stdout.strip()
        assert loaded == str(list(allowed)), f"{statement} imports {loaded}"


def test_generated_pages_are_current() -> None:
    """The tables in the documentation are what the models say now; `python docs/generate.py` writes them."""
    spec = importlib.util.spec_from_file_location("docs_generate", GENERATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.stale() == []
