"""The token vault: values that gates hid, kept so that those who may see them get them back.

A token stands for a value within one thread (or one run, where there is no thread) of one tenant, and for
nothing anywhere else. Values are kept in the store's register, not in checkpoints, encrypted with AES-256-GCM
and bound to their place; what the register's keys show are keyed hashes and numbers. Every change is a
compare-and-set, so that processes that share a store share the vault.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from guardrails_mw.errors import StoreError
from guardrails_mw.event import Actor, Content, Event, Where
from guardrails_mw.placeholder import MAX_NUMBER, Known, check_of, kind_of, placeholder, refilled
from guardrails_mw.redaction import resolve
from guardrails_mw.store import Store
from guardrails_mw.verdict import Check, Edit, Operator

__all__ = ["LIFETIME", "Restored", "Vault", "scope_of"]

LIFETIME = 7 * 86400.0
"""Seconds that a value is kept after it was last hidden."""

_PREFIX = "vault:"
_SWEEP_EVERY, _SWEEP_MOST = 256, 512


@dataclass(frozen=True, slots=True)
class Restored:
    """A content with values in place of tokens: how many, and how many looked like a token and were none."""

    content: Content
    restored: int = 0
    unresolved: int = 0


def scope_of(where: Where, actor: Actor) -> str:
    """Within what a token holds; empty where there is neither a thread nor a run.

    >>> scope_of(Where(run="r1", thread="t1"), Actor("u1", tenant="acme"))
    '["acme", "thread", "t1"]'
    """
    if not (where.thread or where.run):
        return ""
    return json.dumps([actor.tenant, *(("thread", where.thread) if where.thread else ("run", where.run))])


class Vault:
    """Makes tokens and gives values back. Needs the extra ``vault``: the package ``cryptography``.

    Args:
        store: where values are kept; its register is shared by all processes that use it.
        key: what every key of the vault is derived from, 16 bytes or more.
        lifetime: seconds that a value is kept after it was last hidden.
        clock: epoch seconds; a test may bring its own.

    >>> from guardrails_mw.stores.memory import MemoryStore
    >>> vault = Vault(MemoryStore(), b"0123456789abcdef")
    >>> token = vault.token("t1", "EMAIL_ADDRESS", "bob@example.com")
    >>> vault.restore("t1", Content(f"Dear {token.lower()}")).content.value
    'Dear bob@example.com'
    >>> vault.restore("t2", Content(f"Dear {token}")).unresolved
    1
    """

    def __init__(
        self, store: Store, key: bytes, lifetime: float = LIFETIME, clock: Callable[[], float] = time.time
    ) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._store, self._lifetime, self._clock = store, lifetime, clock
        self._cipher = AESGCM(hmac.digest(key, b"guardrails-mw/vault/1/values", "sha256"))
        self._names = hmac.digest(key, b"guardrails-mw/vault/1/names", "sha256")
        self._made = 0

    @property
    def blocking(self) -> bool:
        """Whether calls may wait for a disk or a network."""
        return self._store.blocking

    def tokenised(self, event: Event, checks: Sequence[Check]) -> list[Check]:
        """The same checks, their edits with the operator `TOKEN` writing tokens in place of the gate's label.

        Where there is nothing that a token could hold within, labels stay: such a value does not come back.

        Raises:
            StoreError: the store cannot be used, or ``vault.full``.
        """
        scope = scope_of(event.where, event.actor)
        if not scope:
            return list(checks)
        by_part: dict[int, list[Edit]] = {}
        for edit in (edit for check in checks for edit in check.verdict.edits):
            if edit.part < len(event.content.parts):
                by_part.setdefault(edit.part, []).append(edit)
        new = {part: self._tokens(scope, event.content.parts[part].text, edits) for part, edits in by_part.items()}

        def rewritten(edit: Edit) -> Edit:
            if edit.operator is not Operator.TOKEN or edit.part not in new:
                return edit
            before = bisect_right(new[edit.part], edit.start, key=lambda each: each.start)
            cover = new[edit.part][before - 1] if before else edit
            return cover if cover.start <= edit.start and edit.end <= cover.end else edit

        return [_with_edits(check, tuple(map(rewritten, check.verdict.edits))) for check in checks]

    def _tokens(self, scope: str, text: str, edits: Sequence[Edit]) -> list[Edit]:
        """What the edits of one text come to, as far as those are tokens; in order."""
        wanted = [edit for edit in resolve(edits) if edit.operator is Operator.TOKEN and text[edit.start : edit.end]]
        tokens = [self.token(scope, kind_of(edit.text), text[edit.start : edit.end]) for edit in wanted]
        return [replace(e, text=_relabelled(e.text, token)) for e, token in zip(wanted, tokens, strict=True)]

    def token(self, scope: str, kind: str, value: str) -> str:
        """The token of a value: the same for the same kind and value while the scope remembers it.

        Raises:
            StoreError: the store cannot be used, or ``vault.full`` after 99,999 values in one scope.
        """
        base = self._base(scope)
        index = f"{base}is:{self._mac(base, kind, value).hex()[:32]}"
        while True:
            now = self._clock()
            known = self._store.get(index)
            if known is not None and _due(known) > now:
                if _due(known) - now < self._lifetime / 2:
                    self._prolong(base, index, known)
                return self._written(base, kind, int(_body(known)), value)
            number = self._number(base)
            row, due = f"{base}{number}", now + self._lifetime
            sealed = f"{due:.3f}|{self._seal(row, Known(kind, value))}"
            if not self._store.swap(row, None, sealed, due):
                continue  # the count was forgotten before this value was
            if self._store.swap(index, known, f"{due:.3f}|{number}", due):
                self._sweep()
                return self._written(base, kind, number, value)
            self._store.swap(row, sealed, None)  # somebody else was first

    def restore(self, scope: str, content: Content) -> Restored:
        """The content with the scope's values in place of their tokens, in texts and in keys.

        Raises:
            StoreError: the store cannot be used.
        """
        base, texts, restored, unresolved = self._base(scope), dict[int, str](), 0, 0
        lookup = cache(lambda number: self._row(base, number))

        def checked(number: int, check: str) -> Known | None:
            known = lookup(number)
            right = known is not None and hmac.compare_digest(check, self._check(base, number, known))
            return known if right else None

        for index, part in enumerate(content.parts):
            if part.readable and part.text:
                filled = refilled(part.text, checked)
                restored, unresolved = restored + filled.restored, unresolved + filled.unresolved
                if filled.restored:
                    texts[index] = filled.text
        return Restored(content.replaced(texts), restored, unresolved)

    def forget(self, scope: str) -> int:
        """Delete every value of a scope, whose tokens then mean nothing; returns how many there were."""
        base, count = self._base(scope), 0
        for key in self._store.keys(base):
            found = self._store.get(key)
            if found is not None and self._store.swap(key, found, None):
                count += key[len(base) :].isdigit()
        return count

    def _row(self, base: str, number: int) -> Known | None:
        """The value under a number; None where there is none, its time is over, or another key wrote it."""
        found = self._store.get(f"{base}{number}")
        if found is None or _due(found) <= self._clock():
            return None
        return self._open(f"{base}{number}", _body(found))

    def _number(self, base: str) -> int:
        """A number that nobody else in this scope has."""
        name = f"{base}count"
        while True:
            found = self._store.get(name)
            number = int(_body(found)) + 1 if found else 1
            if number > MAX_NUMBER:
                raise StoreError("vault.full")
            due = self._clock() + self._lifetime
            if self._store.swap(name, found, f"{due:.3f}|{number}", due):
                return number

    def _prolong(self, base: str, index: str, known: str) -> None:
        """Keep a value for another lifetime: its row first, so that the index never outlives it."""
        due = self._clock() + self._lifetime
        for key in (f"{base}count", f"{base}{_body(known)}", index):
            found = self._store.get(key)
            if found is not None and not self._store.swap(key, found, f"{due:.3f}|{_body(found)}", due):
                return  # somebody else is at it

    def _sweep(self) -> None:
        """Now and then, delete what is overdue, of every scope."""
        self._made += 1
        if self._made % _SWEEP_EVERY != 1:
            return
        now = self._clock()
        for key in self._store.due(_PREFIX, now)[:_SWEEP_MOST]:
            found = self._store.get(key)
            if found is not None and _due(found) <= now:
                self._store.swap(key, found, None)

    def _base(self, scope: str) -> str:
        return f"{_PREFIX}{self._mac('scope', scope).hex()[:32]}:"

    def _check(self, base: str, number: int, known: Known) -> str:
        return check_of(self._mac(base, str(number), *known))

    def _written(self, base: str, kind: str, number: int, value: str) -> str:
        return placeholder(kind, number, self._check(base, number, Known(kind, value)))

    def _mac(self, *texts: str) -> bytes:
        return hmac.digest(self._names, json.dumps(texts).encode(), "sha256")

    def _seal(self, place: str, known: Known) -> str:
        nonce = os.urandom(12)
        box = self._cipher.encrypt(nonce, json.dumps(known).encode(), place.encode())
        return base64.b64encode(nonce + box).decode()

    def _open(self, place: str, sealed: str) -> Known | None:
        from cryptography.exceptions import InvalidTag

        raw = base64.b64decode(sealed)
        try:
            kind, value = json.loads(self._cipher.decrypt(raw[:12], raw[12:], place.encode()))
        except InvalidTag:
            return None
        return Known(kind, value)


def _relabelled(text: str, token: str) -> str:
    """An edit's text with a token in place of its label; quotation marks around it stay."""
    start, end = text.find("["), text.rfind("]")
    return f"{text[:start]}{token}{text[end + 1 :]}" if 0 <= start < end else token


def _due(row: str) -> float:
    return float(row.partition("|")[0])


def _body(row: str) -> str:
    return row.partition("|")[2]


def _with_edits(check: Check, edits: tuple[Edit, ...]) -> Check:
    if edits == check.verdict.edits:
        return check
    return replace(check, verdict=replace(check.verdict, edits=edits))
