"""What a result says, and what of it changes by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrails_mw.loops.gist import gist_of

HEX = "0123456789abcdef"
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def letters(rng: Random, size: int, of: str = HEX) -> str:
    return "".join(rng.choices(of, k=size))


CLOCKS: dict[str, Callable[[datetime], str]] = {
    "iso": lambda t: t.isoformat(),
    "apache": lambda t: t.strftime("[%d/%b/%Y:%H:%M:%S +0000]"),
    "ctime": lambda t: t.strftime("%a %b %d %H:%M:%S %Y"),
    "american": lambda t: t.strftime("%b %d, %Y %I:%M %p"),
    "compact": lambda t: t.strftime("%Y%m%dT%H%M%SZ"),
    "slashes": lambda t: t.strftime("%Y/%m/%d %H:%M:%S"),
    "month first": lambda t: t.strftime("%m/%d/%Y %I:%M:%S %p"),
    "dots": lambda t: t.strftime("%d.%m.%Y, %H:%M:%S Uhr"),
    "http": lambda t: t.strftime("%a, %d %b %Y %H:%M:%S GMT"),
    "long": lambda t: t.strftime("%A, %d %B %Y at %I:%M:%S %p"),
    "spanish": lambda t: t.strftime("%d de noviembre de %Y, %H:%M h"),
    "chinese": lambda t: t.strftime("%Y年%m月%d日 %H时%M分%S秒"),
    "syslog": lambda t: t.strftime("%b %d %H:%M:%S"),
    "iso week": lambda t: t.strftime("%G-W%V-%u"),
    "seconds": lambda t: f"{t.timestamp():.3f}",
    "milliseconds": lambda t: f"{int(t.timestamp() * 1e3)}",
    "microseconds": lambda t: f"{int(t.timestamp() * 1e6)}",
    "nanoseconds": lambda t: f"{int(t.timestamp() * 1e6)}000",
    "digits": lambda t: t.strftime("%Y%m%d%H%M%S"),
}
RANDOM: dict[str, Callable[[Random], str]] = {
    "24 hex digits": lambda r: letters(r, 24),
    "ulid": lambda r: "01J" + letters(r, 23, "0123456789ABCDEFGHJKMNPQRSTVWXYZ"),
    "uuid": lambda r: "-".join(letters(r, n) for n in (8, 4, 4, 4, 12)),
    "sha256": lambda r: letters(r, 64),
    "address": lambda r: "0x55" + letters(r, 10),  # no mask, whose bits are set from one end
    "pod": lambda r: f"web-{letters(r, 9, 'bcdf2456789')}2x9-{letters(r, 5, 'bcdf24567')}",
    "temporary file": lambda r: f"/tmp/tmp{letters(r, 8, 'abcdefghijklmnop_')}/out.log",
    "mac's": lambda r: f"/var/folders/x1/{letters(r, 12)}0000gn/T/{letters(r, 6)}",
    "pytest's": lambda r: f"/tmp/pytest-of-ann/pytest-{r.randrange(999)}/a0",
    "process": lambda r: f"pid {r.randrange(10**5)}",
    "port": lambda r: f"port: {r.randrange(10**5)}",
    "snowflake": lambda r: f"{r.randrange(10**17, 10**18)}",
    "milliseconds": lambda r: f"{r.randrange(1, 999)}ms",
    "seconds": lambda r: f"{r.uniform(0, 9):.3f} sec",
    "minutes and seconds": lambda r: f"{r.randrange(1, 9)}m {r.randrange(1, 59)}s",
    "iso span": lambda r: f"PT{r.uniform(0, 9):.2f}S",
    "microseconds": lambda r: f"{r.randrange(1, 999)}µs",
    "German seconds": lambda r: f"{r.randrange(2, 99)} Sekunden",
    "ago": lambda r: r.choice(["just now", "a minute ago", f"{r.randrange(2, 59)} minutes ago"]),
    "request": lambda r: f"request_id={letters(r, 4)}7",
    "log of a day": lambda r: (
        f"/logs/2026-11-{r.randrange(10, 29)}T10_0{r.randrange(9)}_11_{r.randrange(100, 999)}Z-debug.log"
    ),
}
AROUND = (
    "nothing is new: {}",
    '{{"state": "open", "seen": "{}"}}',
    "<p>Order 7 is open<!-- {} --></p>",
    "[{}] idle, no work",
)


@pytest.mark.parametrize("form", CLOCKS)
@given(st.integers(1_514_764_800, 1_956_528_000), st.integers(1_514_764_800, 1_956_528_000))
def test_clocks_in_any_form_say_nothing(form: str, one: int, other: int) -> None:
    """A date and a time of day, from 2018 to 2031 and however they are written, make no other result."""
    write = CLOCKS[form]
    first, second = (write(datetime.fromtimestamp(seconds, UTC)) for seconds in (one, other))
    for around in AROUND:
        assert gist_of(around.format(first)).text == gist_of(around.format(second)).text


@pytest.mark.parametrize("form", RANDOM)
@given(st.randoms(use_true_random=False))
def test_ids_and_durations_in_any_form_say_nothing(form: str, rng: Random) -> None:
    """What only a machine writes is told by its shape, and durations by their unit."""
    write = RANDOM[form]
    samples = [write(Random(rng.random())) for _ in range(2)]
    for around in AROUND:
        first, second = (gist_of(around.format(sample)).text for sample in samples)
        assert first == second


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("7 failed", "6 failed"),
        ("temperature 21.34 degrees now", "temperature 21.35 degrees now"),
        ("the value is 0.5834029119400199", "the value is 0.8525678795162678"),
        ("python3.11 is installed here", "python3.12 is installed here"),
        ("page 3 of 10", "page 4 of 10"),
        ("you are number 5 in the queue", "you are number 4 in the queue"),
        ("it costs $1,204 in total", "it costs $1,205 in total"),
        ("host 10.0.0.7 is up", "host 10.0.0.8 is up"),
        ("sha256: 3f2a9bc1d0e4 of the file", "sha256: 00c1ffee12ab of the file"),
        ("data:image/png;base64,iVBORw0KGgo5a", "data:image/png;base64,iVBORw0KGgo7b"),
        ("3f2a9bc1d0e4", "00c1ffee12ab"),
        ("img_3f2a9bc1d0e4.png", "img_00c1ffee12ab.png"),
        ("45%", "46%"),
        ('["a1b2c3", "d4e5f6", "a7b8c9", "d1e2f3"]', '["f1b2c3", "d4e5f6", "a7b8c9", "d1e2f3"]'),
        ("5 monkeys", "6 monkeys"),
        ("row 1", "row 2"),
    ],
)
def test_content_stays(one: str, two: str) -> None:
    """Numbers are news, and so are versions, hashes of content, and ids where they are all that is said."""
    assert gist_of(one).text != gist_of(two).text


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("12 seconds left", ("-12",)),
        ("ETA 40s", ("-40",)),
        ("1m 23s remaining", ("-83",)),
        ("1h 5min to go", ("-3900",)),
        ("timer at 00:45", ("-2700",)),
        ("noch 3 Minuten", ("-180",)),
        ("剩余26秒", ("-26",)),
        ("remaining PT28S", ("-28",)),
        ("retry 2 of 5 is on", ("~3",)),
        ("attempt 3/10 is on", ("~7",)),
        ("memory in use: 40%", ("+40",)),
        ("downloaded 2 KB so far", ("+2048",)),
        ("downloaded 1,204 bytes so far", ("+1204",)),
        ("cpu is at 37.5% after 0.5 s 5 s", ("+37.5", "-5")),
        ("took 51ms", ()),
        ("took 0.4 seconds", ()),
        ("40%", ()),
        ("attempt 3", ()),
    ],
)
def test_figures(text: str, figures: tuple[str, ...]) -> None:
    """What may count down or move one way is kept apart; what nobody waits for is not."""
    assert gist_of(text).figures == figures


def test_few_figures_are_kept() -> None:
    """A text of many figures keeps a handful, and all other shares are content."""
    assert len(gist_of(" ".join(f"part {n} is at {n}%" for n in range(99))).figures) == 6


def test_escapes_and_spinners_say_nothing() -> None:
    """A terminal's colours and turning bars are no content."""
    assert len({gist_of(f"\x1b[2K{turn} the host is down").text for turn in "|/-⠋⠙"}) == 1


@given(st.text(st.characters(codec=None), max_size=200))
def test_any_text_has_a_gist(text: str) -> None:
    """Hostile text, lone surrogates included, is read without an error, twice the same."""
    assert gist_of(text) == gist_of(text)
    gist_of(text).text.encode()


UNITS = [
    "1,",
    "a1b2c3 ",
    "10:00:01 ",
    "1",
    "年1",
    "5% x ",
    "attempt 3 of 9 ",
    "21 nov 2026 10:00 ",
    "1m 2s ",
    "/tmp/1 ",
    "[",
]


@pytest.mark.parametrize("unit", UNITS)
def test_long_texts_take_linear_time(unit: str) -> None:
    """Only the beginning of a text is read, in time linear in it, whatever it is made of; the rest is kept as it is."""
    began = time.process_time()
    text = gist_of(unit * (1_000_000 // len(unit))).text
    assert time.process_time() - began < 2
    assert text.endswith(unit)


def test_an_id_before_a_clock() -> None:
    """An id is no date that a clock belongs to: the words before it stay, and it can be put back."""
    id_ = "0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
    assert gist_of(f"5 nov {id_} 10:00:01").text == "5 nov #"
    assert gist_of(f"{id_} 10:00:01").text == id_
