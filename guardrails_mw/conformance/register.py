"""The register: compare-and-set, names by their beginning, times at which something is due."""

from __future__ import annotations

from guardrails_mw.conformance.support import Conformance, Opener, opened, race, refuses

__all__ = ["RegisterConformance"]


class RegisterConformance(Conformance):
    """`get`, `swap`, `keys`, `due`, `close`."""

    def test_swap(self, opener: Opener) -> None:
        """A swap happens only from what is expected; None is absent on both sides, an empty text is not."""
        with opened(opener) as store:
            assert store.get("k") is None
            assert store.swap("k", None, None) is True
            assert store.swap("k", "x", "y") is False
            assert store.swap("k", "x", None) is False
            assert store.swap("k", "", "y") is False
            assert store.swap("k", None, "1") is True
            assert store.swap("k", None, "2") is False
            assert store.swap("k", None, None) is False
            assert store.swap("k", "1", "") is True
            assert store.get("k") == ""
            assert store.swap("k", None, "3") is False
            assert store.swap("k", "", "é\x00\x1b0") is True
            assert store.get("k") == "é\x00\x1b0"
            assert store.swap("k", "1", None) is False
            assert store.swap("k", "é\x00\x1b0", None) is True
            assert store.get("k") is None

    def test_no_text(self, opener: Opener) -> None:
        """Half a surrogate pair is either kept as it is or refused with a code, and then leaves nothing behind."""
        with opened(opener) as store:
            if store.blocking:  # what leaves the process is UTF-8
                with refuses("store.value"):
                    store.swap("\ud800", None, "1")
                with refuses("store.value"):
                    store.append("\ud800", "k", 0.0, "kind", "{}")
                assert list(store.keys("")) == []

    def test_keys_by_prefix(self, opener: Opener) -> None:
        """A prefix is taken literally, wildcards and the ends of Unicode included; oldest first."""
        keys = ["a%b", "a_b", "axb", "a", "A", "a\U0010ffff", "a\U0010ffffz", "b", "a\ud7ff", "", "a*", "a\\b", "[a"]
        prefixes = ("", "a", "a%", "a_", "ax", "A", "a\U0010ffff", "\U0010ffff", "a\ud7ff", "a*", "a\\", "[", "nothing")
        with opened(opener) as store:
            for key in keys:
                assert store.swap(key, None, "1")
            for prefix in prefixes:
                assert list(store.keys(prefix)) == [key for key in keys if key.startswith(prefix)], prefix
            store.swap("a", "1", "2")  # a change leaves the age
            store.swap("A", "1", None)
            store.swap("A", None, "1")  # a new key is the youngest
            keys.remove("A")
            assert list(store.keys("")) == [*keys, "A"]

    def test_due(self, opener: Opener) -> None:
        """Keys are due from their time on, earliest first, then oldest; a swap sets or clears the time."""
        with opened(opener) as store:
            store.swap("p:late", None, "1", due=30.0)
            store.swap("p:soon", None, "1", due=10.0)
            store.swap("p:never", None, "1")
            store.swap("q:soon", None, "1", due=10.0)
            store.swap("p:a", None, "1", due=10.0)
            assert list(store.due("p:", 9.9)) == []
            assert list(store.due("p:", 10.0)) == ["p:soon", "p:a"]
            assert list(store.due("p:", 99.0)) == ["p:soon", "p:a", "p:late"]
            store.swap("p:soon", "1", "2", due=40.0)
            store.swap("p:late", "1", "2")
            store.swap("p:a", "1", None)
            assert list(store.due("p:", 99.0)) == ["p:soon"]

    def test_swap_race(self, opener: Opener) -> None:
        """Of many that swap from the same value, exactly one wins, from absent and from present."""
        with opened(opener) as store:
            assert race(32, lambda i: store.swap("k", None, f"a{i}")).count(True) == 1
            current = store.get("k")
            assert race(32, lambda i: store.swap("k", current, f"b{i}")).count(True) == 1
            last = store.get("k")
            assert race(32, lambda _: store.swap("k", last, None)).count(True) == 1
            assert store.get("k") is None

    def test_close_twice(self, opener: Opener) -> None:
        """Closing twice is harmless."""
        store = opener()
        store.close()
        store.close()
