"""The commands ``store check | migrate``: which version of its format a store holds, and raising it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from guardrails_mw.cli.options import AsJson, PolicyFile, placed, read_policy
from guardrails_mw.cli.output import write, write_json

if TYPE_CHECKING:
    from guardrails_mw.policy import Policy
    from guardrails_mw.stores.schema import Schema

__all__ = ["app"]

app = typer.Typer(
    name="store", help="Check and migrate where things last.", no_args_is_help=True, rich_markup_mode=None
)

_TOLD = {
    "absent": "nothing is there yet; made at the first run, or by: guardrails-mw store migrate",
    "older": "raised when it is next opened, or by: guardrails-mw store migrate",
    "current": "up to date",
    "newer": "a later version of guardrails-mw wrote this; update this one",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """A store as people may see it, and its schema; None where the store keeps nothing."""

    place: str
    schema: Schema | None

    @property
    def state(self) -> str:
        return self.schema.state if self.schema else "current"

    def show(self, as_json: bool, before: str = "") -> None:
        schema = self.schema
        found, newest, notes = (schema.found, schema.newest, schema.notes) if schema else (0, 0, ())
        if as_json:
            row = {"store": self.place, "state": self.state, "version": found, "newest": newest, "notes": list(notes)}
            write_json(row | ({"before": before} if before else {}))
            return
        told = _TOLD[self.state] if schema else "lasts as long as the process; there is nothing to migrate"
        number = f"schema version {found} of {newest}, " if schema and found else ""
        write(f"{self.place}: {before}{number}{told}")
        for note in notes:
            write(f"  {note}")


@app.command()
def check(policy: PolicyFile, as_json: AsJson = False) -> None:
    """Look at a store's schema and the settings of its server. Changes nothing.

    Exits with 1 where the store has to be migrated first or a later version wrote it.

    Example: guardrails-mw store check --policy policy.yaml
    """
    with placed(policy):
        found = _look(read_policy(policy))
    found.show(as_json)
    raise typer.Exit(1 if found.state in ("older", "newer") else 0)


@app.command()
def migrate(policy: PolicyFile, as_json: AsJson = False) -> None:
    """Make a store's schema, or raise an older one. Doing it twice, or at several places at once, is harmless.

    Example: guardrails-mw store migrate --policy policy.yaml
    """
    from guardrails_mw.stores import open_store

    with placed(policy):
        read = read_policy(policy)
        before = _look(read)
        open_store(read.store, read.base).close()
        after = _look(read)
    changed = before.schema != after.schema
    old = before.schema.found if before.schema else 0
    after.show(as_json, (f"was at version {old}; " if old else "was empty; ") if changed else "")


def _look(policy: Policy) -> _Found:
    from guardrails_mw.stores import schema_of, shown

    return _Found(shown(policy.store), schema_of(policy.store, policy.base))
