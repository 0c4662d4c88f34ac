"""The token vault: the same token for the same value, values for nobody else, nothing in the clear, an end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chat import decisions, make_guard

from guardrails_mw.document import Document
from guardrails_mw.errors import PolicyError, StoreError
from guardrails_mw.event import Actor, Content, Event, Stage, Where
from guardrails_mw.explain import explain
from guardrails_mw.gate import Site
from guardrails_mw.gates.pii.gate import PiiConfig, PiiGate
from guardrails_mw.gates.secrets import SecretsGate
from guardrails_mw.placeholder import placeholder
from guardrails_mw.policy import Policy
from guardrails_mw.store import Store
from guardrails_mw.stores.memory import MemoryStore
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.vault import Vault, scope_of
from guardrails_mw.verdict import Action, Check, Edit, Operator, Verdict

KEY = b"k" * 32
MAIL, CARD = "ann.jones@example.org", "4111 1111 1111 1111"
POLICY = """
gates: {pii: {type: pii, style: token}, secrets: {type: secrets, style: token}}
stages: {input: [pii, secrets], tool_result: [pii, secrets]}
record: {redact: [pii, secrets]}
"""


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "vault.db")
    yield made
    made.close()


class Clock:
    """Time that a test moves."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def text(vault: Vault, scope: str, what: str) -> object:
    return vault.restore(scope, Content(what)).content.value


def rows(store: Store) -> int:
    """How many values are kept."""
    return sum(key.rpartition(":")[2].isdigit() for key in store.keys("vault:"))


def input_event(content: object, thread: str = "t1", tenant: str = "", stage: Stage = Stage.INPUT) -> Event:
    return Event(stage, Content(content), where=Where(thread=thread), actor=Actor("u", tenant=tenant))


def hides(event: Event) -> Verdict:
    """A gate of a user: the word swordfish is wanted back."""
    start = event.content.text.find("swordfish")
    return (
        Verdict.allow("word", edits=[Edit(start, start + 9, "[WORD]", 0, Operator.TOKEN)])
        if start >= 0
        else Verdict.allow()
    )


# the vault alone


def test_one_value_has_one_token_in_a_scope_and_another_in_the_next(store: Store) -> None:
    """The same value gives the same token; kinds, values, threads, tenants and keys give others."""
    vault = Vault(store, KEY)
    first = vault.token("a", "EMAIL", MAIL)
    assert vault.token("a", "EMAIL", MAIL) == first == Vault(store, KEY).token("a", "EMAIL", MAIL)
    others = [vault.token("a", "EMAIL", "x@y.org"), vault.token("a", "NAME", MAIL), vault.token("b", "EMAIL", MAIL)]
    assert [int(token.split("_")[1]) for token in others] == [2, 3, 1]
    assert len({first, *others, Vault(store, b"other key of 32 characters......").token("b", "EMAIL", MAIL)}) == 5


def test_a_value_comes_back_in_its_scope_only(store: Store) -> None:
    """Exactly the value in its own scope; the token itself in another, under another key, after a swap of rows."""
    vault = Vault(store, KEY)
    token = vault.token("a", "EMAIL", MAIL)
    vault.token("b", "EMAIL", "other@example.org")
    assert text(vault, "a", f"to {token}.") == f"to {MAIL}."
    assert text(vault, "b", token) == token
    assert text(Vault(store, b"x" * 32), "a", token) == token
    kept = {key: store.get(key) for key in store.keys("vault:") if key.endswith(":1")}
    (one, first), (two, second) = kept.items()
    assert store.swap(one, first, second)
    assert store.swap(two, second, first)
    assert text(vault, "a", token) == token


def test_trees_are_restored_in_texts_and_keys(store: Store) -> None:
    """Every text and key of a JSON value is restored, the rest is left as it is, and the counts are right."""
    vault = Vault(store, KEY)
    token = vault.token("a", "EMAIL", MAIL)
    tree = {"to": [token, 3], token: {"deep": f"[[EMAIL_7_bcdfgh]] {token}"}, "n": None}
    found = vault.restore("a", Content(tree))
    assert found.content.value == {"to": [MAIL, 3], MAIL: {"deep": f"[[EMAIL_7_bcdfgh]] {MAIL}"}, "n": None}
    assert (found.restored, found.unresolved) == (3, 1)


def test_nothing_lies_in_the_clear(tmp_path: Path) -> None:
    """Neither the value nor the thread's name is in any byte of the database."""
    store = SqliteStore(tmp_path / "vault.db")
    Vault(store, KEY).token("thread-of-ann", "EMAIL", MAIL)
    store.close()
    raw = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"vault:" in raw
    for piece in (MAIL.encode(), b"ann.jones", b"thread-of-ann"):
        assert piece not in raw


def test_a_value_has_a_lifetime_from_its_last_use(store: Store) -> None:
    """Its time over, a value is gone; used again in time, it lives on; an old token never means a new value."""
    clock = Clock()
    vault = Vault(store, KEY, lifetime=100, clock=clock)
    kept, lost = vault.token("a", "EMAIL", MAIL), vault.token("a", "EMAIL", "lost@x.org")
    clock.now += 60
    assert vault.token("a", "EMAIL", MAIL) == kept
    clock.now += 60
    assert text(vault, "a", f"{kept} {lost}") == f"{MAIL} {lost}"
    clock.now += 60
    assert text(vault, "a", kept) == kept
    new = [vault.token("a", "EMAIL", f"{n}@x.org") for n in range(5)]
    assert not {kept, lost} & set(new)
    assert text(vault, "a", f"{kept} {lost}") == f"{kept} {lost}"
    assert text(vault, "a", " ".join(new)) == "0@x.org 1@x.org 2@x.org 3@x.org 4@x.org"


def test_what_is_overdue_is_deleted(store: Store) -> None:
    """Making tokens clears away what is overdue, in every scope."""
    clock = Clock()
    Vault(store, KEY, lifetime=10, clock=clock).token("old", "EMAIL", MAIL)
    clock.now += 11
    Vault(store, KEY, lifetime=10, clock=clock).token("new", "EMAIL", MAIL)
    assert len(store.keys("vault:")) == 3  # count, index and row of the new scope


def test_a_scope_can_be_forgotten(store: Store) -> None:
    """Forgetting deletes the values of one scope and of no other."""
    vault = Vault(store, KEY)
    gone, stays = [vault.token("a", "EMAIL", f"{n}@x.org") for n in range(3)], vault.token("b", "EMAIL", MAIL)
    assert vault.forget("a") == 3
    assert text(vault, "a", gone[0]) == gone[0]
    assert text(vault, "b", stays) == MAIL


def test_a_full_scope_says_so(store: Store) -> None:
    """After 99,999 values a scope takes no more, because a longer number could hide a telephone number."""
    vault = Vault(store, KEY)
    vault.token("a", "EMAIL", MAIL)
    count = next(key for key in store.keys("vault:") if key.endswith("count"))
    store.swap(count, store.get(count), "9999999999|99999")
    with pytest.raises(StoreError, match=r"vault\.full"):
        vault.token("a", "EMAIL", "one@more.org")
    assert vault.token("a", "EMAIL", MAIL).startswith("[[EMAIL_1_")


def test_parallel_branches_agree(store: Store) -> None:
    """Eight threads that hide the same forty values at once get one token for each, and no two share a number."""
    vault, seen, start = Vault(store, KEY), [], threading.Barrier(8)

    def work() -> None:
        start.wait()
        seen.append([vault.token("a", "EMAIL", f"{n}@x.org") for n in range(40)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(seen) == 8
    assert all(tokens == seen[0] for tokens in seen)
    assert len({token.split("_")[1] for token in seen[0]}) == 40
    assert [text(vault, "a", token) for token in seen[0]] == [f"{n}@x.org" for n in range(40)]
    assert rows(store) == 40


_CHILD = """
import sys
from pathlib import Path
from guardrails_mw.stores.sqlite import SqliteStore
from guardrails_mw.vault import Vault
vault = Vault(SqliteStore(Path(sys.argv[1])), b"k" * 32)
sys.stdin.readline()
print(*(vault.token("a", "EMAIL", f"{n}@x.org") for n in range(60)))
"""


def test_processes_that_share_a_store_agree(tmp_path: Path) -> None:
    """Two processes that hide the same values at once write the same tokens and keep each once; a third restores."""
    path = tmp_path / "vault.db"
    SqliteStore(path).close()
    command = [sys.executable, "-c", _CHILD, str(path)]
    children = [subprocess.Popen(command, stdin=-1, stdout=-1, text=True) for _ in range(2)]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    first, second = (child.communicate(timeout=120)[0].split() for child in children)
    assert first == second
    assert len(set(first)) == 60
    store = SqliteStore(path)
    assert rows(store) == 60
    assert text(Vault(store, KEY), "a", " ".join(first)) == " ".join(f"{n}@x.org" for n in range(60))
    store.close()


def test_scopes_are_apart() -> None:
    """Threads, runs and tenants with the same name are different scopes; without any there is none."""
    made = [
        scope_of(Where(thread="x"), Actor("u")),
        scope_of(Where(run="x"), Actor("u")),
        scope_of(Where(thread="x"), Actor("u", tenant="t")),
    ]
    assert len(set(made)) == 3
    assert scope_of(Where(run="r2", thread="x"), Actor("v")) == made[0]
    assert scope_of(Where(), Actor("u")) == ""


def test_gates_find_nothing_in_tokens() -> None:
    """The pii gate (strict) and the secrets gate leave 2,000 tokens of all kinds alone, also under telling names."""
    vault, kinds = Vault(MemoryStore(), KEY), ("EMAIL_ADDRESS", "PHONE_NUMBER", "US_SSN", "SECRET_AWS_ACCESS_KEY")
    pii = PiiGate.build(PiiConfig(type="pii", profile="strict"), Site("pii", Path()))
    for number in range(500):
        tokens = [vault.token("a", kind, f"{number}") for kind in kinds]
        event = input_event(
            {"password": tokens[3], "phone": tokens[1], "text": f"my ssn {tokens[2]} key={tokens[3]}, mail {tokens[0]}"}
        )
        for gate in (pii, SecretsGate("secrets")):
            assert not gate.check(event).findings, tokens


# the vault in a guard


def test_edits_become_tokens_and_the_ledger_shows_them(tmp_path: Path) -> None:
    """A decision carries the token in place of each value, again the same on the next message; so does the ledger."""
    with make_guard(tmp_path, POLICY) as guard:
        first = guard.decide(input_event(f"I am {MAIL}, password: hK8-vw2_Tz99"))
        second = guard.decide(input_event({"mail": MAIL}))
        token = second.content.value["mail"]
        assert str(first.content.value).startswith(f"I am {token}, password: [[SECRET_GENERIC_2_")
        assert guard.restore(first.content.value, thread="t1") == f"I am {MAIL}, password: hK8-vw2_Tz99"
        assert decisions(guard)[0]["content"] == first.content.value
        assert token not in str(guard.decide(input_event(MAIL, thread="t2")).content.value)
        assert token not in str(guard.decide(input_event(MAIL, tenant="acme")).content.value)


def test_overlapping_edits_become_one_token(tmp_path: Path) -> None:
    """Where two token edits overlap, one token stands for all that they cover; a stronger operator wins over both."""
    source = POLICY.replace("gates: {", 'gates: {word: {type: python, call: "test_vault_gates:wide", cost: linear}, ')
    source = source.replace("input: [pii", "input: [word, pii")
    (tmp_path / "test_vault_gates.py").write_text(
        "from guardrails_mw.verdict import Edit, Operator, Verdict\n"
        "def wide(event):\n"
        "    return Verdict.allow('w', edits=[Edit(2, 9, '[WORD]', 0, Operator.TOKEN)])\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        with make_guard(tmp_path, source) as guard:
            decision = guard.decide(input_event(f"I am {MAIL} and more"))
            assert guard.restore(decision.content.value, thread="t1") == f"I am {MAIL} and more"
            assert str(decision.content.value).count("[[") == 1
    finally:
        sys.path.remove(str(tmp_path))


def test_a_gate_of_a_user_writes_tokens(tmp_path: Path) -> None:
    """With `vault` in the policy, edits of any gate with the operator `TOKEN` come back; without, its label stands."""
    source = 'gates: {word: {type: python, call: "test_vault:hides", cost: linear}}\nstages: {input: [word]}\n'
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        for more, wanted in (("", "the swordfish?"), ("vault: {lifetime: 1h}\n", "the swordfish?")):
            folder = tmp_path / (more[:5] or "none")
            folder.mkdir()
            with make_guard(folder, source + more) as guard:
                hidden = guard.decide(input_event("the swordfish?")).content.value
                assert ("[[WORD_1_" in str(hidden)) == bool(more)
                assert (guard.restore(hidden, thread="t1") == wanted) == bool(more)
                assert "swordfish" not in str(hidden)
    finally:
        sys.path.remove(str(Path(__file__).parent))


def test_without_a_thread_the_label_stands(tmp_path: Path) -> None:
    """Where a token could hold within nothing, the value is hidden for good and the vault stays empty."""
    with make_guard(tmp_path, POLICY) as guard:
        assert guard.check(f"I am {MAIL}").content.value == "I am [EMAIL_ADDRESS]"
        assert guard.store.keys("vault:") == []


def test_shadow_makes_no_tokens(tmp_path: Path) -> None:
    """In shadow mode nothing is put in place, nothing is kept, and what enforcement would leave is shown by labels."""
    with make_guard(tmp_path, "mode: shadow\n" + POLICY) as guard:
        decision = guard.decide(input_event(f"I am {MAIL}"))
        assert decision.content.value == f"I am {MAIL}"
        assert decision.would.value == "I am [EMAIL_ADDRESS]"
        assert guard.store.keys("vault:") == []
        assert MAIL not in str([row["content"] for row in decisions(guard)])


def test_a_blocked_event_makes_no_tokens(tmp_path: Path) -> None:
    """What is blocked does not go on, so nothing of it is kept."""
    source = POLICY.replace("style: token}", "style: token, action: block}", 1)
    with make_guard(tmp_path, source) as guard:
        assert guard.decide(input_event(f"I am {MAIL}")).blocked
        assert guard.store.keys("vault:") == []


class Unwritable(SqliteStore):
    """A real store whose register takes no values of the vault."""

    def swap(self, key: str, expected: str | None, new: str | None, due: float | None = None) -> bool:
        if key.startswith("vault:"):
            raise StoreError("store.disk_full")
        return super().swap(key, expected, new, due)


def test_a_vault_that_fails_hides_all_the_same(tmp_path: Path) -> None:
    """When the store cannot keep a value, its label stands in its place and the decision is flagged."""
    with make_guard(tmp_path, POLICY, store=Unwritable(tmp_path / "u.db")) as guard:
        decision = guard.decide(input_event(f"I am {MAIL}"))
        assert (decision.content.value, decision.action) == ("I am [EMAIL_ADDRESS]", Action.FLAG)
        assert decision.verdict.reason == "error.store.disk_full"
        assert decision.gate == "vault"


def test_a_store_that_waits_gives_the_same(tmp_path: Path) -> None:
    """With a store that waits for the disk, tokens are made and restored in a worker, with the same result."""
    with make_guard(tmp_path, POLICY.replace("record: {", "record: {durability: power, ")) as guard:
        assert guard.store.blocking
        hidden = guard.decide(input_event(f"I am {MAIL}")).content.value
        assert "[[EMAIL_ADDRESS_1_" in str(hidden)
        assert guard.restore(hidden, thread="t1") == f"I am {MAIL}"


def test_restoring_is_recorded_without_values(tmp_path: Path) -> None:
    """The ledger says how many values went to whom and how many look-alikes stayed, and holds none of them."""
    with make_guard(tmp_path, POLICY) as guard:
        hidden = guard.decide(input_event(f"I am {MAIL}")).content.value
        guard.restore(f"{hidden} {placeholder('EMAIL', 1, 'bcdfgh')}", thread="t1", actor=Actor("ann"))
        rows = [row for run in guard.ledger.runs() for row in guard.ledger.read(run.run) if row["kind"] == "restored"]
        body = rows[0]["body"]
        assert (body["restored"], body["unresolved"], body["actor"], body["thread"]) == (1, 1, "ann", "t1")
        assert MAIL not in str(rows)


def test_a_thread_is_forgotten(tmp_path: Path) -> None:
    """`Guard.forget` makes the tokens of a thread meaningless."""
    with make_guard(tmp_path, POLICY) as guard:
        hidden = guard.decide(input_event(f"I am {MAIL}, card {CARD}")).content.value
        assert guard.forget(thread="t1") == 2
        assert guard.restore(hidden, thread="t1") == hidden


def test_quotation_marks_of_a_label_stay(store: Store) -> None:
    """A label in quotation marks, as it replaces a number in a JSON text, becomes a token in quotation marks."""
    event = input_event('{"card": 4111111111111111}')
    edit = Edit(9, 25, '"[CREDIT_CARD]"', 0, Operator.TOKEN)
    checks = Vault(store, KEY).tokenised(event, [Check("pii", Verdict.allow("pii", edits=[edit]))])
    new = checks[0].verdict.edits[0].text
    assert new.startswith('"[[CREDIT_CARD_1_')
    assert new.endswith(']]"')


# the policy


def load(source: str, env: dict[str, str] | None = None) -> Policy:
    return Policy.load(Document("version: 1\n" + source, "p.yaml", env=env or {}))


def test_a_key_of_ones_own(tmp_path: Path) -> None:
    """With a key from the environment, a store alone gives no values; the policy's hash does not cover the key."""
    more = "vault: {key: '${K}'}\n"
    policies = [load(f"store: sqlite:///{tmp_path}/a.db\n{more}{POLICY}", {"K": letter * 32}) for letter in "ab"]
    assert policies[0].hash == policies[1].hash
    from guardrails_mw import Guard

    with Guard(policies[0]) as guard:
        hidden = guard.decide(input_event(MAIL)).content.value
        assert guard.restore(hidden, thread="t1") == MAIL
    with Guard(policies[1]) as guard:
        assert guard.restore(hidden, thread="t1") == hidden


def test_a_short_key_is_an_error_that_does_not_show_it() -> None:
    """A key under 32 characters is refused, by line and without its text."""
    with pytest.raises(PolicyError) as caught:
        load("vault:\n  key: '${K}'\n" + POLICY, {"K": "hunter2"})
    assert "p.yaml:3: vault.key" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_missing_package_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens without the package that encrypts are refused when the guard is built."""
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(PolicyError, match=r"guardrails-mw\[vault\]"):
        make_guard(tmp_path, POLICY)


def test_explain_shows_the_vault() -> None:
    """`explain` names the gates, the lifetime and the key's place, and warns where values are weakly kept or shown."""
    told = explain(load("store: sqlite:///x.db\ntools: {mail: {sees: raw}}\n" + POLICY))
    assert told.vault == {"gates": ["pii", "secrets"], "lifetime": 604800.0, "key": "store"}
    assert told.tools[0].checks == ("sees: raw",)
    assert "vault.key" in [notice.code for notice in told.warnings]
    bare = "tools: {mail: {sees: raw}}\ngates: {pii: {type: pii%s}}\nstages: {input: [pii]}"
    for style, words in (("", "nothing writes tokens"), (", style: token", "looks at what it gives back")):
        notices = [notice.text for notice in explain(load(bare % style)).warnings if notice.code == "tools.raw"]
        assert len(notices) == 1
        assert words in notices[0]
    assert explain(load(POLICY.replace("token", "mask"))).vault == {}
