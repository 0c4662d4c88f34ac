"""Putting another policy to work in a guard that is at work: all of it or nothing, and on record."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from guardrails_mw.building import Ground, build
from guardrails_mw.document import Document
from guardrails_mw.errors import PolicyError, StoreError
from guardrails_mw.files import MISSING, Files, digest, noting
from guardrails_mw.generation import Generation
from guardrails_mw.policy import Policy

__all__ = ["Reloading", "Watcher"]

_LOG = logging.getLogger("guardrails_mw")
_RACY = 2.0
"""Seconds for which a file's time of change cannot tell two writes apart, on the coarsest of file systems."""


class Reloading:
    """Changes a guard's policy.

    Args:
        ground: what generations are built on.
        check: raises `PolicyError` for a policy that does not fit the tools that the guard knows.
        told: called with a new generation just before it takes office.
        owns_store: whether the store was opened as the policy says, so that it must go on saying so.

    Attributes:
        tried: the files of the last attempt, and what was in them; not of one that only the store stood in the way of.
    """

    def __init__(
        self, ground: Ground, check: Callable[[Policy], None], told: Callable[[Generation], None], owns_store: bool
    ) -> None:
        self._ground, self._check, self._told, self._owns_store = ground, check, told, owns_store
        self._path: Path | None = None
        self._env: Mapping[str, str] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._files: Files = {}
        self.tried: Files = {}
        self._real = ""

    def read_from(self, path: str | Path, env: Mapping[str, str] | None, files: Files) -> None:
        """Where the policy at work was read from, and what there was in its files."""
        self._path, self._env, self._files, self.tried = Path(path), env, files, files
        self._real = os.path.realpath(path)

    @property
    def moved(self) -> bool:
        """Whether links lead elsewhere than at the last attempt, where other files stand beside the policy."""
        return self._path is not None and os.path.realpath(self._path) != self._real

    def reload(self, path: str | Path | None = None, policy: Policy | None = None) -> Policy:
        """Put the policy of a file to work, or this one. See `Guard.reload`."""
        if (self._path is None) is (policy is None) or (policy is not None and path is not None):
            raise TypeError("a guard from a file is reloaded from a file, one from a Policy with policy=")
        with self._lock:
            if self._closed:
                raise RuntimeError("the guard is closed")
            place = self._path if path is None else Path(path)
            real = "" if place is None else os.path.realpath(place)
            with noting() as files:
                try:
                    new = self._ready(place, policy, files)
                except Exception as error:
                    if place == self._path and not isinstance(error, StoreError):
                        self.tried, self._real = files, real
                    self._refused(error)
                    raise
            self._told(new)
            self._ground.seat.pass_on(new)
            self._path, self._files, self.tried, self._real = place, files, files, real
            return new.policy

    def unlock(self) -> None:
        """Forget, in a process that was forked, a reload of the parent's that was under way."""
        self._lock = threading.Lock()

    def close(self) -> None:
        """No more reloading; one that is under way is waited for."""
        with self._lock:
            self._closed = True

    def _ready(self, path: Path | None, policy: Policy | None, files: Files) -> Generation:
        """The new generation, built, warm and on record; nothing of it is left where that fails."""
        if policy is not None:
            return self._succeeding(policy, files)
        assert path is not None
        document = Document.read(path, self._env)
        policy = Policy.load(document, self._ground.types, path.resolve().parent)
        try:
            return self._succeeding(policy, files)
        except PolicyError as error:
            raise document.placed(error) from None

    def _succeeding(self, policy: Policy, files: Files) -> Generation:
        old = self._ground.seat.generation
        for field in _fixed(old.policy, policy, self._owns_store):
            raise PolicyError("cannot be changed by a reload; make a new guard", field=field)
        self._check(policy)
        new = build(policy, self._ground)
        try:
            new.warm()
            new.engine.observers = old.engine.observers
            new.recorder.reloaded(
                {
                    "result": "loaded",
                    "policy": policy.label,
                    "hash": policy.hash,
                    "files": _together(files),
                    "before": old.policy.label,
                    "before_hash": old.policy.hash,
                    "before_files": _together(self._files),
                }
            )
        except BaseException:
            new.engine.close()
            raise
        return new

    def _refused(self, error: Exception) -> None:
        """Keep that a policy was not put to work: a code and a line, nothing that stood in the file."""
        old = self._ground.seat.generation
        body = {"result": "refused", "policy": old.policy.label, "hash": old.policy.hash, **_reason(error)}
        with suppress(StoreError):
            old.recorder.reloaded(body)


class Watcher:
    """Reloads when a file of the policy has changed and come to rest. A thread that sleeps in between.

    Args:
        reloading: what to reload; when nobody else has it any more, the watching ends.
        seconds: between two looks, and how long a file has to be at rest.
    """

    def __init__(self, reloading: Reloading, seconds: float) -> None:
        self._stop = threading.Event()
        self._watching = (weakref.ref(reloading), self._stop, seconds)
        self._begin()
        mine = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _again(mine()))

    def _begin(self) -> None:
        self._thread = threading.Thread(target=_watch, args=self._watching, name="guardrails-mw-watch", daemon=True)
        self._thread.start()

    def begin_again(self) -> None:
        """Watch in a process that was forked: it has the guard, and no thread."""
        reloading = self._watching[0]()
        if reloading is not None and not self._stop.is_set():
            reloading.unlock()
            self._begin()

    def close(self) -> None:
        """End the watching; a reload that is under way is waited for."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join()


def _again(watcher: Watcher | None) -> None:
    if watcher is not None:
        watcher.begin_again()


def _watch(watched: weakref.ref[Reloading], stop: threading.Event, seconds: float) -> None:
    known: dict[Path, tuple[tuple[int, ...], str]] = {}
    moving: Files | None = None
    while not stop.wait(seconds):
        reloading = watched()
        if reloading is None:
            return
        found = {path: _digest(path, known) for path in reloading.tried}
        if found == reloading.tried and not reloading.moved:
            moving = None
        elif found != moving:  # perhaps still being written
            moving = found
        else:
            moving = None
            _try(reloading)
        del reloading


def _try(reloading: Reloading) -> None:
    try:
        reloading.reload()
    except Exception as error:  # noqa: BLE001 - the next version of the file may be better
        reason = _reason(error)
        file = error.file if isinstance(error, PolicyError) else ""
        _LOG.warning("the policy stays as it was: %s at %s:%s", reason["reason"], file, reason.get("line", 0))


def _digest(path: Path, known: dict[Path, tuple[tuple[int, ...], str]]) -> str:
    """What is in a file now; read again only where its state on disk could have changed since."""
    try:
        status = os.stat(path)
    except OSError:
        return MISSING
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if path in known and known[path][0] == state:
        return known[path][1]
    found = digest(path)
    if time.time() - max(status.st_mtime, status.st_ctime) > _RACY:
        known[path] = (state, found)
    return found


def _fixed(old: Policy, new: Policy, owns_store: bool) -> list[str]:
    """Fields that differ and cannot be changed at work."""
    fixed = {"traces": old.traces != new.traces}
    if owns_store:
        fixed["store"] = _place(old) != _place(new)
        fixed["record.durability"] = old.record.durability != new.record.durability
    return [field for field, differs in fixed.items() if differs]


def _place(policy: Policy) -> str:
    """The store that a policy names, wherever the policy itself lies."""
    scheme, _, rest = policy.store.partition(":///")
    return f"{scheme}:///{policy.base / rest}" if scheme == "sqlite" else policy.store


def _reason(error: Exception) -> dict[str, object]:
    """What may be said of a failure: a code, and for a mistake in a file its line."""
    if isinstance(error, PolicyError):
        return {"reason": "policy.invalid", "line": error.line}
    return {"reason": error.code if isinstance(error, StoreError) else "policy.failed"}


def _together(files: Files) -> str:
    """One digest of everything that a policy was read from."""
    return sha256("".join(sorted(files.values())).encode()).hexdigest() if files else ""
