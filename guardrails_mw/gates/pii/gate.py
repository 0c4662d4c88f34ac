"""The gate ``pii``: personal data in anything that goes in, comes out, or passes through a tool."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Event, Part, Stage
from guardrails_mw.gate import Cost, Gate, GateConfig, Site
from guardrails_mw.gates.cutting import LAG, apart, between_words, words_back
from guardrails_mw.gates.disguise import before_end, plainly
from guardrails_mw.gates.pii.config import PiiConfig
from guardrails_mw.gates.pii.context import split_name
from guardrails_mw.gates.pii.disguise import read
from guardrails_mw.gates.pii.replacement import Replacer, hidden
from guardrails_mw.verdict import Edit, Finding, Operator, Verdict

if TYPE_CHECKING:
    from guardrails_mw.gates.pii.engine import Engine

__all__ = ["PiiConfig", "PiiGate"]

_WORDS = 12
"""Words that are read again with what follows them: more than the five that count, for those that do not."""
_OPERATORS = {"remove": Operator.REMOVE, "mask": Operator.MASK, "hash": Operator.HASH, "token": Operator.TOKEN}


class PiiGate(Gate):
    """Finds personal data and hides it.

    What is found further than `max_span` before a text's end stays as it is, whatever is appended; words up to
    `look_back` before a value have a say. No finding is longer than `max_span`: a web address or an IPv6 zone
    that goes on is several from its beginning on, and of anything else the end is hidden. So a stream is cut between
    words, outside of what may be a number and of a line with escapes, and what has spaces in it is waited for. A text
    that as a whole may be JSON is held until its end: it is known for JSON there, and numbers in it are hidden with
    quotes.
    """

    stages: ClassVar[frozenset[Stage]] = frozenset({Stage.INPUT, Stage.OUTPUT, Stage.TOOL_CALL, Stage.TOOL_RESULT})
    config_type = PiiConfig
    look_back: int | None = 400
    max_span: int | None = 1024

    def __init__(
        self,
        name: str,
        engine: Engine,
        replacer: Replacer,
        action: str = "edit",
        cost: Cost = Cost.LINEAR,
        *,
        reach: int = 0,
    ) -> None:
        super().__init__(name)
        self.engine, self._replace, self._action = engine, replacer, action
        self.cost = cost if engine.exact and engine.model is None else Cost.BLOCKING
        self.max_span = engine.longest
        if not engine.local:  # what it says of a word depends on the whole text
            self.look_back = self.max_span = None
        self._lag = max(LAG, reach + 2)

    @classmethod
    def build(cls, config: GateConfig, site: Site) -> PiiGate:
        """Raises `PolicyError` for what cannot be found, a recognizer or model that cannot be used, or no Presidio."""
        assert isinstance(config, PiiConfig)
        try:
            from guardrails_mw.gates.pii.assembly import assembled
        except ModuleNotFoundError as error:  # what Presidio brings along; the keys can be checked without it
            raise PolicyError(f"gate 'pii' needs {error.name}: pip install 'guardrails-mw[pii]'") from None
        engine, cost = assembled(config, site)
        reach = max((each.reach for each in config.recognizers), default=0)
        return cls(site.name, engine, Replacer(config.style, site.secret), config.action, cost, reach=reach)

    def settled(self, text: str, limit: int) -> int:
        """Between words, outside of numbers, and not behind an escape in a line with quotes."""
        if text.lstrip()[:1] in ("", "{", "["):  # read as JSON, if it is that in the end
            return 0
        plain = read(text)
        limit = min(limit, before_end(text, plain, self._lag))
        while limit > 0:
            limit = apart(text, limit)
            if plain is not None and (place := plain.place(limit)) != (cut := apart(plain.text, place)):
                limit = min(limit - 1, plain.origin(cut))  # digits may be written as something else
                continue
            line = text.rfind("\n", 0, limit) + 1
            if "\\" not in text[line:limit] or '"' not in text[line:limit]:
                return limit
            limit = line if line < limit else line - 1
        return 0

    def context(self, text: str, position: int) -> int:
        """As many words back as count, and no literal cut in two."""
        plain, reach = read(text), self.look_back or 0
        begin = min(position - reach, words_back(text, position, _WORDS))
        if plain is not None:
            place = plain.place(position)
            begin = min(begin, plain.origin(max(0, min(place - reach, words_back(plain.text, place, _WORDS)))))
        while begin > 0:
            begin = between_words(text, begin)
            line = text.rfind("\n", 0, begin) + 1
            if '"' in text[line:begin]:
                begin = line if line < begin else line - 1
            elif text[begin:].lstrip()[:1] in ("", "{", "["):
                begin -= 1
            else:
                return begin
        return 0

    def may(self, stage: Stage) -> frozenset[str]:  # noqa: ARG002 - the same at every stage
        """It edits under every action."""
        return frozenset({"edit", self._action} - {"flag"})

    def check(self, event: Event) -> Verdict:
        """Edits and findings for every readable part."""
        edits: list[Edit] = []
        findings: list[Finding] = []
        for index, part in event.texts():
            hints = _hints(part)
            with self.engine.remembering():
                found = hidden(part.text, partial(self.engine.find, hints=hints), self._replace)
            for match, text in found:
                start, end, entity, score = match
                edits.append(Edit(start, end, text, index, _OPERATORS[self._replace.style]))
                findings.append(Finding(entity, start, end, score, index))
        if not findings:
            return Verdict.allow()
        say = {"edit": Verdict.allow, "flag": Verdict.flag, "ask": Verdict.ask, "block": Verdict.block}[self._action]
        return say("pii", edits=edits, findings=findings)

    def warm(self) -> None:
        """Load patterns, number plans, suffixes and the model."""
        self.engine.load()


def _hints(part: Part) -> list[str]:
    return split_name(plainly(part.context)) if part.path and part.kind != "key" else []
