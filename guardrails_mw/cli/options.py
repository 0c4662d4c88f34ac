"""Options that several commands share, and how they open a policy and its store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from guardrails_mw.errors import PolicyError

if TYPE_CHECKING:
    from guardrails_mw.policy import Policy
    from guardrails_mw.store import Store

__all__ = ["AsJson", "PolicyFile", "existing_store", "placed", "read_policy", "store_file"]

PolicyFile = Annotated[Path, typer.Option("--policy", "-p", help="The policy file.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


def read_policy(path: Path) -> Policy:
    """The policy in a file. Raises `PolicyError`."""
    from guardrails_mw.policy import Policy

    return Policy.read(path)


@contextmanager
def placed(path: Path) -> Iterator[None]:
    """Errors that come up when a policy is put to work name its file and line, as those of loading do."""
    from guardrails_mw.document import Document

    try:
        yield
    except PolicyError as error:
        raise (Document.read(path).placed(error) if error.field else error) from None


def store_file(policy: Policy) -> Path | None:
    """The database file that a policy keeps its records in; None for a store that is no file."""
    name = policy.store.removeprefix("sqlite:///")
    return None if name == policy.store else policy.base / name


def existing_store(policy: Policy) -> Store:
    """Open the store that an agent has written; makes no new one. Raises `PolicyError`, `StoreError`."""
    from guardrails_mw.stores import open_store, schema_of, shown

    if policy.store == "memory:":
        raise PolicyError("the policy's store is memory:, which no other process can see", field="store")
    found = schema_of(policy.store, policy.base)
    if found is not None and found.state == "absent":
        place = store_file(policy) or shown(policy.store)
        raise PolicyError(f"there is no {place} yet: nothing has run with this policy", field="store")
    return open_store(policy.store, policy.base, policy.record.durability)
