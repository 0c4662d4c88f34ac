"""The command ``doctor``: what is installed, and whether a policy's surroundings work."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from guardrails_mw.cli.options import AsJson, read_policy, store_file
from guardrails_mw.cli.output import styled, table, write, write_json
from guardrails_mw.errors import GuardrailsError, PolicyError, StoreError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from guardrails_mw.backlog import Waiting
    from guardrails_mw.gate import Gate
    from guardrails_mw.policy import Policy

__all__ = ["Finding", "doctor"]

_PACKAGE = "guardrails-mw"
_SECONDS = 3.0
_COLOURS = {"ok": "allow", "note": "flag", "broken": "block"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. Only ``broken`` makes the command fail."""

    what: str
    state: Literal["ok", "note", "broken"]
    told: str


def doctor(
    policy: Annotated[Path | None, typer.Option("--policy", "-p", help="Look also at what this policy needs.")] = None,
    warm: Annotated[bool, typer.Option("--warm", help="Load every gate, models too; may take minutes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look at versions, store, gates and trace endpoints.

    Exits with 1 if something is broken. Makes no files.

    Example: guardrails-mw doctor --policy policy.yaml
    """
    findings = [*_versions(), *_extras()]
    if policy is not None:
        findings += _policy(policy, warm)
    broken = any(each.state == "broken" for each in findings)
    if as_json:
        write_json([asdict(each) for each in findings])
    else:
        rows = ((each.what, _state(each), each.told) for each in findings)
        table("Doctor", ("what", "state", "found"), rows)
        write("Something is broken." if broken else "Nothing is broken.")
    raise typer.Exit(1 if broken else 0)


def _state(finding: Finding) -> object:
    cell = styled(_COLOURS[finding.state])
    cell.plain = finding.state
    return cell


def _requirements() -> dict[str, list[Requirement]]:
    """What this package says it needs, by extra; its own dependencies under the empty name."""
    from packaging.requirements import Requirement

    found: dict[str, list[Requirement]] = {"": []}
    found |= {extra: [] for extra in metadata.metadata(_PACKAGE).get_all("Provides-Extra") or []}
    for line in metadata.requires(_PACKAGE) or []:
        requirement = Requirement(line)
        for extra, needed in found.items():
            marker = requirement.marker
            plain = marker is None or marker.evaluate({"extra": ""})
            if plain == (extra == "") and (plain or (marker is not None and marker.evaluate({"extra": extra}))):
                needed.append(requirement)
    return found


def _versions() -> Iterator[Finding]:
    """Python, this package, and every package it can use, against the versions it supports."""
    from packaging.specifiers import SpecifierSet

    wanted = SpecifierSet(metadata.metadata(_PACKAGE)["Requires-Python"] or "")
    python = platform.python_version()
    yield Finding("python", "ok" if wanted.contains(python) else "broken", f"{python}, supported: {wanted}")
    yield Finding(_PACKAGE, "ok", metadata.version(_PACKAGE))
    seen: set[str] = {_PACKAGE}
    for extra, requirements in _requirements().items():
        for requirement in requirements:
            if requirement.name not in seen:
                seen.add(requirement.name)
                yield _version(requirement, needed=extra == "")


def _version(requirement: Requirement, needed: bool) -> Finding:
    supported = f"supported: {requirement.specifier or 'any'}"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Finding(requirement.name, "broken" if needed else "note", f"not installed, {supported}")
    fits = requirement.specifier.contains(version, prereleases=True)
    return Finding(requirement.name, "ok" if fits else "broken", f"{version}, {supported}")


def _extras() -> Iterator[Finding]:
    for extra, requirements in _requirements().items():
        if not extra:
            continue
        missing = [each.name for each in requirements if not _installed(each.name)]
        told = f"not installed: {', '.join(missing)}; pip install '{_PACKAGE}[{extra}]'" if missing else "installed"
        yield Finding(f"extra {extra}", "note" if missing else "ok", told)


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _policy(path: Path, warm: bool) -> Iterator[Finding]:
    try:
        policy = read_policy(path)
    except PolicyError as error:
        yield Finding("policy", "broken", str(error))
        return
    yield Finding("policy", "ok", f"{policy.label}, mode {policy.mode}")
    yield _store(policy)
    yield from _gates(policy, warm)
    yield from _traces(policy)
    yield from _warnings(policy)


def _store(policy: Policy) -> Finding:
    """Looks only: a database that is not there yet is not made."""
    from guardrails_mw.stores import schema_of, shown

    file = store_file(policy)
    place = str(file or shown(policy.store))
    try:
        found = schema_of(policy.store, policy.base)
        if found is None:
            return Finding("store", "note", f"{place} lasts as long as the process")
        if found.state == "absent":
            ready = file is None or (file.parent.is_dir() and os.access(file.parent, os.W_OK))
            told = "not there yet; made at the first run" if ready else "its folder is missing or cannot be written to"
            return Finding("store", "note" if ready else "broken", f"{place}: {told}")
        waiting = _waiting(policy) if found.state != "older" else ()  # opening that would raise
    except (PolicyError, StoreError) as error:
        return Finding("store", "broken", f"{place}: {error}")
    told = "; ".join((f"reachable, schema version {found.found} of {found.newest}", *found.notes))
    if waiting:
        told += f"; {len(waiting)} requests wait for: {', '.join(sorted({each.gate for each in waiting}))}"
    return Finding("store", "ok" if found.state == "current" and not waiting else "note", f"{place}: {told}")


def _waiting(policy: Policy) -> Sequence[Waiting]:
    """Who waits in the store, which is opened the way the guard does. Raises `StoreError`."""
    from guardrails_mw.backlog import Backlog
    from guardrails_mw.stores import open_store

    with closing(open_store(policy.store, policy.base, policy.record.durability)) as store:
        return Backlog(store).waiting()


def _gates(policy: Policy, warm: bool) -> Iterator[Finding]:
    from guardrails_mw.gate import GateTypes
    from guardrails_mw.plan import build_gates

    try:
        gates = build_gates(policy, GateTypes.installed(), b"doctor")
    except PolicyError as error:
        yield Finding("gates", "broken", str(error))
        return
    for gate in gates.values():
        yield _gate(gate, warm)
        exact = getattr(getattr(gate, "engine", None), "exact", None)
        if exact is not None:
            told = (
                "finds exactly what Presidio finds" if exact else "Presidio's version is not known: slower, in a thread"
            )
            yield Finding(f"gate {gate.name}", "ok" if exact else "note", told)
        gate.close()


def _gate(gate: Gate, warm: bool) -> Finding:
    """A gate in a process of its own is started; others are loaded only when asked for."""
    from guardrails_mw.plan import process_of

    what = f"gate {gate.name}"
    began = time.perf_counter()
    try:
        process = process_of(gate)
        if process is None and not warm:
            return Finding(what, "ok", f"built, {gate.cost.value}")
        if process is not None:
            with closing(process):
                process.start()
        if warm:
            gate.warm()
    except GuardrailsError as error:
        return Finding(what, "broken", str(error))
    except Exception as error:  # noqa: BLE001 - whatever a gate raises, it does not load
        return Finding(what, "broken", f"does not load: {type(error).__name__}")
    return Finding(what, "ok", f"loaded in {time.perf_counter() - began:.1f} s, {gate.cost.value}")


def _traces(policy: Policy) -> Iterator[Finding]:
    from guardrails_mw.telemetry import Endpoint, langfuse_endpoint

    endpoints = [Endpoint(each.endpoint, each.headers) for each in policy.traces.otlp]
    if policy.traces.langfuse:
        try:
            endpoints.insert(0, langfuse_endpoint(os.environ))
        except PolicyError as error:
            yield Finding("traces langfuse", "broken", str(error))
    for endpoint in endpoints:
        yield _endpoint(f"traces {endpoint.name}", endpoint.url, endpoint.headers)


def _endpoint(what: str, url: str, headers: Mapping[str, str]) -> Finding:
    """Send an export without spans, which is an empty message; keys are not carried along to another address."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.hostname}{parts.path}"  # no query and no password is shown
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=_SECONDS)
        with closing(connection):
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            connection.request("POST", target, b"", {**headers, "Content-Type": "application/x-protobuf"})
            status = connection.getresponse().status
    except (OSError, HTTPException, ValueError) as error:
        return Finding(what, "broken", f"{place}: not reachable ({type(error).__name__})")
    if 200 <= status < 300:
        return Finding(what, "ok", f"{place}: takes spans")
    refused = "refuses the keys" if status in (401, 403) else "answers, but does not take spans"
    return Finding(what, "broken", f"{place}: {refused} ({status})")


def _warnings(policy: Policy) -> Iterator[Finding]:
    from guardrails_mw.explain import explain

    try:
        told = explain(policy)
    except PolicyError:
        return  # said before, about its gates
    for warning in told.warnings:
        yield Finding(f"policy {warning.code}", "note", warning.text)
