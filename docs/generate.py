"""Writes the tables of the pages in `PAGES`, and the schema for editors, from the objects that decide.

python docs/generate.py            write the pages anew
python docs/generate.py --check    exit with 1 if that would change it
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from guardrails_mw import policy, sections
from guardrails_mw.event import Stage
from guardrails_mw.gate import ALL_STAGES, GateConfig, GateTypes
from guardrails_mw.policy_schema import policy_schema
from guardrails_mw.seam import SEAMS, Power

FOLDER = Path(__file__).parent
START, END = "<!-- generated:start -->", "<!-- generated:end -->"

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", policy.Policy),
    ("queue", sections.QueuePolicy),
    ("record", sections.RecordPolicy),
    ("stream", sections.StreamPolicy),
    ("vault", sections.VaultPolicy),
    ("traces", sections.TracesPolicy),
    ("traces.otlp[]", sections.Otlp),
    ("stages.NAME", sections.StagePolicy),
    ("tools.NAME", sections.ToolPolicy),
    ("tools.NAME.ask[] and block[]", sections.Rule),
    ("approval and tools.NAME.approval", sections.ApprovalPolicy),
    ("budgets.NAME", sections.BudgetPolicy),
    ("reserve", sections.ReservePolicy),
    ("risk", sections.RiskPolicy),
    ("prices.NAME", sections.Price),
    ("loops", sections.LoopsPolicy),
)
WORDS = {Power.BLOCK: "block", Power.EDIT: "edit", Power.ASK: "ask"}
PLAIN: dict[object, str] = {
    str: "text", int: "whole number", float: "number", Decimal: "amount", bool: "`true` or `false`",
    SecretStr: "text", object: "any", Stage: "a stage",
}  # fmt: skip


def keys() -> str:
    """Every key of a policy and of the gates of this package."""
    lines: list[str] = []
    for title, model in SECTIONS:
        lines += [f"### {title}", "", *section(model)]
    lines += ["## Gates", "", "These keys belong to every gate:", "", *table(GateConfig)]
    installed = GateTypes.installed()
    for name in installed.names:
        kind = installed.get(name)
        if not kind.__module__.startswith("guardrails_mw."):
            continue
        serves = "every stage" if kind.stages == ALL_STAGES else ", ".join(f"`{s}`" for s in Stage if s in kind.stages)
        lines += [f"### type: {name}", "", f"{prose(kind)} Serves {serves}.", ""]
        lines += list(table(kind.config_type, hide=frozenset(GateConfig.model_fields)))
    return "\n".join(lines).rstrip() + "\n"


def prose(model: type) -> str:
    """The first paragraph of a docstring on one line, in Markdown."""
    return markdown((model.__doc__ or "").split("\n\n")[0])


def markdown(text: str) -> str:
    """Text of a docstring for a Markdown table."""
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def section(model: type[BaseModel]) -> Iterator[str]:
    """What a section is for, and its keys."""
    yield from (prose(model), "")
    yield from table(model)


def table(model: type[BaseModel], hide: frozenset[str] = frozenset()) -> Iterator[str]:
    """The keys of a model as a table, then the models that only its fields use."""
    hints = get_type_hints(model, include_extras=True)
    rows = {name: info for name, info in model.model_fields.items() if name not in hide}
    if not rows:
        yield from ("No keys of its own.", "")
        return
    yield from ("| key | value | default | meaning |", "|---|---|---|---|")
    for name, info in rows.items():
        key, about = info.alias or name, markdown(info.description or "")
        yield f"| `{key}` | {value(hints[name])} | {default(info, hints[name])} | {about} |"
    yield ""


def value(hint: object) -> str:
    """What may be written, in words."""
    named = {sections.Duration: "duration", sections.ConditionText: "condition", **PLAIN}
    if hint in named:
        return named[hint]
    if get_origin(hint) is None:
        return single(hint)
    return compound(get_origin(hint), get_args(hint))


def compound(origin: object, args: tuple[object, ...]) -> str:
    """A type that is made of others."""
    if origin is Literal:
        return " \\| ".join(f"`{word}`" for word in args)
    if origin in (Union, types.UnionType):
        return " or ".join(value(arg) for arg in args if arg is not type(None))
    if origin in (list, tuple):
        return f"list of {value(args[0])}"
    if origin in (dict, Mapping):
        return "mapping" if args[1] is object or "Json" in str(args[1]) else f"{value(args[0])} → {value(args[1])}"
    return value(args[0])  # Annotated


def single(hint: object) -> str:
    """A class."""
    assert isinstance(hint, type)
    if issubclass(hint, GateConfig):
        return "[gate](#gates)"
    if issubclass(hint, BaseModel):
        title = next((title for title, model in SECTIONS if model is hint), "")
        return f"[section](#{anchor(title)})" if title else thresholds(hint)
    assert issubclass(hint, Enum)
    return " \\| ".join(f"`{each.value}`" for each in hint)


def thresholds(model: type[BaseModel]) -> str:
    """A small mapping that has no section of its own."""
    return "{" + ", ".join(f"`{name}`" for name in model.model_fields) + "}"


def anchor(title: str) -> str:
    """The anchor of a heading."""
    return "".join(c for c in title.lower() if c.isalnum() or c in "-_ ").replace(" ", "-")


def default(info: FieldInfo, hint: object) -> str:
    """The default as it would be written."""
    if info.is_required():
        return "required"
    given = info.get_default(call_default_factory=True, validated_data={})
    if given is None or isinstance(given, BaseModel) or given in ({}, [], (), ""):
        return ""
    if hint == sections.Duration:
        return duration(given)
    if isinstance(given, list):
        return f"`[{', '.join(map(str, given))}]`"
    if isinstance(given, float):
        return f"`{given:g}`"
    return f"`{getattr(given, 'value', str(given).lower() if isinstance(given, bool) else given)}`"


def duration(seconds: float) -> str:
    """A duration as it would be written, in the largest unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"`{seconds / length:g}{unit}`"
    return f"`{seconds:g}s`"


def powers() -> str:
    """What each seam can do at each stage."""
    lines = [f"| seam | {' | '.join(f'`{stage}`' for stage in Stage)} |", "|---" * (len(Stage) + 1) + "|"]
    for seam in SEAMS:
        cells = (", ".join(word for power, word in WORDS.items() if seam.can(stage, power)) for stage in Stage)
        lines.append(f"| {seam.name} | {' | '.join(cell or 'not reached' for cell in cells)} |")
    return "\n".join([*lines, "", *(f"- **{seam.name}**: {seam.note}." for seam in SEAMS)]) + "\n"


def matrix() -> str:
    """What every fault of every gate means, and how many cells prove it."""
    sys.path.insert(0, str(FOLDER.parent / "tests"))
    import matrix as cells

    engine, seams = list(cells.engine_cells()), list(cells.seam_cells())
    whole = sum(1 for _ in cells.every_cell())
    stages = " | ".join(f"`{stage}`" for stage in Stage)
    lines = [
        f"{len(engine):,} cells of the engine, {len(seams):,} of the seams, which stand for {whole:,}.", "",
        "| fault | what the gate does | reason |", "|---|---|---|",
        *(f"| `{fault}` | {markdown(about)} | `error.{fault.code}` |" for fault, about in members(cells.Fault)), "",
        f"| gate | run as | {stages} | cells |", "|---|---|" + "---|" * len(Stage) + "---:|",
    ]
    for subject in cells.subjects():
        mine = [cell for cell in engine if cell.subject == subject]
        asked = " | ".join("yes" if stage in subject.stages else "" for stage in Stage)
        lines.append(f"| `{subject.name}` | {said(cells.kind(subject))} | {asked} | {len(mine)} |")
    lines += ["", f"| seam | {stages} | cells |", "|---|" + "---:|" * (len(Stage) + 1)]
    for seam in SEAMS:
        mine = [cell for cell in seams if cell.seam == seam.name]
        by_stage = " | ".join(str(sum(cell.stage is stage for cell in mine) or "") for stage in Stage)
        lines.append(f"| {seam.name} | {by_stage} | {len(mine)} |")
    return "\n".join(lines) + "\n"


def members(kind: type[Enum]) -> Iterator[tuple[Enum, str]]:
    """The members of an enumeration, each with the docstring below it in the source."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    for line, below in itertools.pairwise(body):
        if isinstance(line, ast.Assign) and isinstance(below, ast.Expr):
            yield kind[line.targets[0].id], below.value.value  # type: ignore[attr-defined]


def said(kind: tuple[object, ...]) -> str:
    """How the engine asks a gate, in words."""
    cost, *traits = kind
    words = ("bounded", "classifies", "holds", "awaited")
    return ", ".join([str(cost), *(word for word, has in zip(words, traits, strict=True) if has)])


def mutations() -> str:
    """The laws that are broken on purpose, and who notices."""
    sys.path.insert(0, str(FOLDER.parent / "tests"))
    from mutations import MUTATIONS

    rows = (f"| {each.name} | {', '.join(f'`{test}`' for test in each.tests)} |" for each in MUTATIONS)
    return "\n".join(["| broken | noticed by |", "|---|---|", *rows]) + "\n"


PAGES: Mapping[str, Callable[[], str]] = {
    "policy.md": keys, "seams.md": powers, "faults.md": matrix, "testing.md": mutations,
}  # fmt: skip
NAMES = (*PAGES, "policy.schema.json")


def schema() -> str:
    """The JSON Schema of a policy, as ``guardrails-mw schema`` prints it."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def page(name: str) -> str:
    """A page with its generated part made anew."""
    if name not in PAGES:
        return schema()
    before, _, rest = (FOLDER / name).read_text(encoding="utf-8").partition(START)
    after = rest.partition(END)[2]
    return f"{before}{START}\n\n{PAGES[name]()}\n{END}{after}"


def stale() -> list[str]:
    """The pages that are not what would be written now."""
    return [name for name in NAMES if page(name) != (FOLDER / name).read_text(encoding="utf-8")]


def main() -> int:
    """Write or check the pages."""
    if "--check" in sys.argv[1:]:
        print("\n".join(stale()))
        return int(bool(stale()))
    for name in NAMES:
        (FOLDER / name).write_text(page(name), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
