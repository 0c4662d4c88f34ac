"""The command ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from guardrails_mw.errors import PolicyError

__all__ = ["demo"]


def demo(
    only: Annotated[list[str] | None, typer.Argument(help="Ids of conversations to play; all if left out.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where policy and records go; a new temporary folder if left out.")
    ] = None,
    conversations: Annotated[Path | None, typer.Option(help="Another file of conversations (JSON Lines).")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show also what passed untouched.")] = False,
) -> None:
    """Play conversations with a guarded support agent.

    Works offline; with OPENAI_API_KEY or OPENAI_BASE_URL set, a real model answers. Exits with 1 if a
    conversation does not end as it should.

    Example: guardrails-mw demo --verbose
    """
    try:
        from guardrails_mw.demo.run import run
    except ModuleNotFoundError as error:
        raise PolicyError(f"the demo needs {error.name}: pip install 'guardrails-mw[demo]'") from None
    raise typer.Exit(run(folder, conversations, only=only or (), verbose=verbose))
