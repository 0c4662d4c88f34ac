"""The program ``guardrails-mw``: its commands, and how errors end."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from guardrails_mw import __version__
from guardrails_mw.cli import approvals, check, demo, doctor, explain, loops, runs, scan, schema, spend, store
from guardrails_mw.cli.output import complain
from guardrails_mw.errors import GuardrailsError, PolicyError, StoreError

__all__ = ["app", "main"]


_BECAUSE = {
    "store.newer_version": "a later version of guardrails-mw wrote it; update this one",
    "store.older_version": "it is older, and this user may not raise it; run guardrails-mw store migrate as its owner",
    "store.not_ours": "something else is kept there",
    "store.unreachable": "nobody answers at its address",
    "store.timeout": "its server accepts and does not answer",
    "store.denied": "its server refuses the user, the password or a right",
    "store.not_durable": "its server may lose a write that it has confirmed, and the policy says durability: power",
}


class _Program(TyperGroup):
    """Ends with one clear message and exit code 2 where a policy, a store or a gate is at fault."""

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run a command."""
        try:
            return super().invoke(ctx)
        except StoreError as error:
            because = _BECAUSE.get(error.code, "")
            complain(f"the store cannot be used: {error.code}{because and ': '}{because}")
        except PolicyError as error:
            complain(error)
        except GuardrailsError as error:
            complain(f"{type(error).__name__}: {error}")
        raise typer.Exit(2)


app = typer.Typer(
    name="guardrails-mw",
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing the help takes longer than writing it
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("check")(check.check)
app.command("scan")(scan.scan)
app.command("explain")(explain.explain)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)
app.command("loops")(loops.loops)
app.add_typer(approvals.app)
app.add_typer(runs.app)
app.add_typer(store.app)
app.command("spend")(spend.spend)
app.command("demo")(demo.demo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """One policy file that makes LangChain and LangGraph agents safe to run in production.

    Example: guardrails-mw explain --policy configs/default.yaml
    """


def main() -> None:
    """Run the program."""
    app()


if __name__ == "__main__":
    main()
