"""What a tool does, by its name, and what came of a call, by the beginning of its result.

Where the policy does not say what a tool does, these are the only witnesses. Verbs and answers are closed classes, so
they are told by lists; what is open, such as ids, clocks and the words of a question, is told by its shape elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import re2

from guardrails_mw.event import Json
from guardrails_mw.loops.gist import encodable
from guardrails_mw.loops.wording import asks

__all__ = ["HEAD", "Trait", "absent", "does", "said"]

HEAD = 200
"""Characters of a result that are read for what they say."""


class Trait:
    """What is known of a step besides what it is equal to: bits of an integer, much faster than flags."""

    NONE: Final = 0
    FAILED: Final = 1
    """The call failed."""
    EMPTY: Final = 2
    """It found nothing, or was turned away."""
    ACTED: Final = 4
    """It did something: made again with other arguments it is progress, whatever it answers."""
    EFFECT: Final = 8
    """The policy says that it has an effect; repeating it counts harder."""
    WAITING: Final = 16
    """It waits for something that others do, or met a fault that passes."""
    TALK: Final = 32
    """It only writes something down; new words are no progress."""
    HANDOVER: Final = 64
    """It hands over to another agent."""
    READS: Final = 128
    """It looks something up: an answer without content is then an empty one, and not silent success."""
    BLANK: Final = 256
    """Its answer has no content."""
    REFUSED: Final = 512
    """It was turned away, and would be with any arguments."""
    JUDGES: Final = 1024
    """It says whether something holds: of another thing the same answer is another answer."""
    SEARCHES: Final = 2048
    """It looks for what a question in the call describes."""
    STOPPED: Final = 4096
    """It never ran: it would only have gone on with a loop."""
    MAKES: Final = 16384
    """It makes something, or sends it: what it answers is a receipt, and its number is no news."""
    RAISED: Final = 8192
    """The call itself failed, whatever its tool would have said."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _any(*patterns: str) -> re2._Regexp[str]:
    return re2.compile("|".join(patterns))


# All of these read texts as `gist` leaves them: lower case, no quotes or commas, single blanks, brackets apart.
_BLANK = _any(r"^(?:none|null|nil|undefined)?[ .!]*$")
_NEGATIVE = (
    r"(?:no|zero|nothing|none|not|never|couldn't|could not|can't|cannot|don't|did not|didn't|does not|doesn't|unable|"
    r"couldn t|can t|don t|didn t|doesn t|unknown|invalid|missing)"
)
_ABSENT = r"(?:not found|nothing found|no such [a-z]+|(?:not|n't|n t) exist|\b404\b|unknown path|enoent)"
_MISSED = r"(?:no match(?:es)?|(?:does|did) not match|returned nothing|came up empty|is empty)"
_FIELD = r"^[\[{ ]*(?:(?:ok|error|status|success|message|ack|result|results|detail) ?: )?"
_NO_HITS = _any(
    r"\b(?:total|count|hits|matches|size|(?:total|num)_?(?:count|results|hits)) : 0\b",
    r"\b(?:results|items|issues|data|hits|rows|records|entries|documents|matches|users|files|values) : \[ \]",
)
_EMPTY = _any(
    r"^[\[\]{} ]*(?:n/a|nan|empty|nothing|not found|404|null|none|nil)?[\[\]{} .!]*$",
    r"^\{(?: (?:[a-z_]+ :(?: (?:\[ \]|\{ \}|0|null|none|false|true|#))?|#))+ \}$",  # every field is
    _FIELD + r"(?:sorry[.]? )?(?:i |we |you |there (?:is|are|was|were) )?(?:have )?" + _NEGATIVE + r"\b.{0,80}$",
    r"\b(?:0|no) (?:[a-z]+ )?(?:results?|rows?|hits?|match(?:es)?|records?|items?|entries|documents?|files?)\b.{0,40}$",
    r"^.{0,80}\b(?:" + _ABSENT + "|" + _MISSED + r").{0,40}$",
    r"^empty set\b",
)
_ABSENCE = _any(_ABSENT)
_FAILED = _any(
    r"^[\[{# ]*(?:[a-z_]*error|[a-z]*exception|traceback|failed|failure|fatal|panic)\b",
    r"^(?:[a-z]+ ){1,2}(?:error|exception)\b",
    r"^\{ (?:ok|success) : false\b",
    r"^\{ status : (?:error|failed|failure)\b",
)
_FINE = _any(r"^(?:no|zero|without|any) |^[\[{ ]*[a-z_]*(?:errors?|failed|failures?) ?:? (?:\[ \]|null|none|0|false)")
_CODE = r"(?:^[\[{ ]*|\b(?:http(?:/[0-9.]+)?|status(?:_?code)?|code|error|returned|got):? (?:: )?)"
_PASSING = _any(
    r"\btimed?[ _-]?out(?:$|[.!]| [^:]| : t)",
    r"\b(?:too many requests|try again|connection (?:refused|reset|closed|failed|error|aborted))\b",
    r"\brate.?limit(?:ed|ing)\b|\brate.?limit.{0,20}\b(?:exceeded|reached|hit|wait|retry)\b|\bhit .{0,12}rate.?limit\b",
    r"\bquota.{0,9} (?:exceeded|reached|exhausted)\b|\b(?:exceeded|over|out of) .{0,12}quota\b",
    r"\b(?:service|server|currently|temporarily) unavailable\b",
    _CODE + r"(?:429|502|503|504)\b",
)
_DENIED = _any(
    r"\b(?:access|permission|authori[sz]ation) (?:is |was )?denied\b",
    r"\b(?:unauthori[sz]ed|forbidden|not (?:authori[sz]ed|allowed|permitted))\b",
    r"\b(?:please |must |to )(?:log|sign) ?in\b|\b(?:login|log-in|authentication|sign-in) (?:is )?required\b",
    r"\b(?:session|token|license|licence|credentials?) (?:has |have |is |are )?(?:expired|invalid|revoked)\b",
    r"\b(?:no|not have|insufficient|lacks?) permissions?\b|\b(?:log|sign) ?in[.!]?$|\bsubscribe to (?:continue|read)\b",
    r"\b(?:captcha|enable (?:javascript|cookies)|just a moment|(?:are you|you are|verify) (?:a )?(?:human|robot))\b",
    _CODE + r"(?:401|403|407)\b",
)
_WAITING = _any(
    r"\b(?:pending|running|in[ _-]progress|in[ _-]flight|queued|not (?:ready|yet|done|finished|complete)|incomplete|"
    r"busy|still|scheduled|ongoing|wait)\b|# (?:left|remaining|to go)|eta #",
    r"\b(?:processing|waiting|working|starting|building|provisioning|preparing|initiali[sz]ing|deploying|loading)\b",
    r"\b(?:status|state|phase) : [a-z_]{3,16}ing\b|^[a-z]{3,16}ing ?[.…]*$",
    r"^(?:\{ )?(?:(?:status|state|phase) ?: )?(?:accepted|active|created|draft|new|open|received|submitted)[ .}]*$",
)
_NO_PARTICIPLES = ("nothing", "missing", "warning")
_RECEIPT = _any(
    _FIELD + r"(?:ok(?:ay)?|done|success(?:ful(?:ly)?)?|true|20[0-4]|ack|yes|[a-z]{3,12}ed|sent|written|set|put|paid)\b"
    r".{0,60}$"
)
_TURNED_AWAY = _any(_DENIED.pattern, _PASSING.pattern)
_SAYING = _any(*(each.pattern for each in (_WAITING, _FAILED, _NO_HITS, _RECEIPT, _BLANK, _EMPTY)))
_ACTS = _words(
    "add append apply approve archive assign book cancel charge chmod click close comment commit copy cp create delete "
    "deploy disable drop edit email enable enqueue execute export fill fix forward grant handle import insert install "
    "invite invoice label mark merge message mkdir modify move mv notify order patch pay post press process publish "
    "purchase push put refund register reject remove rename reply report reserve reset restart revoke rm save "
    "schedule send set share ship sign store submit subscribe sync tag touch transfer translate unsubscribe update "
    "upload upsert work write"
)
_JUDGES = _words(
    "analyse analyze annotate assert assess audit available calculate can categorize check classify compare compute "
    "contains convert detect evaluate exist exists extract grade has head inspect is lint match moderate parse ping "
    "predict probe rate recognize review scan score screen summarise summarize test transcribe valid validate verify"
)
_READS = _words(
    "browse cat count describe download fetch get list load ls open peek query read select show stat tail view"
)
_SEARCHES = _words("discover find google grep locate look lookup retrieve rg scout search seek")
_MAKES = _words(
    "book buy charge create email forward invite message notify order pay post publish purchase refund reply reserve "
    "send ship submit transfer"
)
_THINKING = _any(r"think|thought|ponder|brainstorm|scratchpad|reflect|(?:^|_)reason(?:ing)?(?:_|$)|^consider")
_NOTING = _any(r"(?:make_|take_|write_)?(?:a_)?(?:notes?|plans?)")
_WAITS = _words("await poll progress sleep status wait")
_HANDS_OVER = _any(r"^(?:handoff|hand_off|hand_over|transfer_to_|delegate|route_to|switch_to|escalate)")
_TO = "to_"  # somebody, if all that is said is why; `to_pdf` of a file is no hand-over
_REASONS = _words("why reason note notes message task request context instructions summary topic query input")
_NO_SEARCH = Trait.ACTED | Trait.JUDGES | Trait.TALK | Trait.HANDOVER
_COMMANDS = ("command", "cmd", "script")
_PIECES = _any(r"[A-Z]?[a-z]+|[A-Z]+")
_DOES = {
    **dict.fromkeys(_ACTS, Trait.ACTED),
    **dict.fromkeys(_READS, Trait.READS),
    **dict.fromkeys(_SEARCHES, Trait.READS | Trait.SEARCHES),
    **dict.fromkeys(_JUDGES, Trait.READS | Trait.JUDGES),
}


def does(tool: str, args: Mapping[str, Json]) -> int:
    """What a call does, by its tool's name, and what a shell is told to."""
    traits = _named(tool[:HEAD], tool.startswith(_TO) and _REASONS.issuperset(args))
    if traits == Trait.NONE:
        command = next((args[name] for name in _COMMANDS if name in args), None)
        if isinstance(command, str):
            first, *_ = command[:HEAD].split(maxsplit=1) or [""]
            traits = _DOES.get(first, Trait.NONE) & ~Trait.JUDGES
    if not traits & (Trait.ACTED | Trait.JUDGES | Trait.TALK | Trait.HANDOVER) and asks(
        args, traits & Trait.SEARCHES > 0
    ):
        return traits | Trait.SEARCHES | Trait.READS
    return traits & ~Trait.SEARCHES


@lru_cache(maxsize=1024)
def _named(tool: str, to_somebody: bool) -> int:
    """What a tool's name tells; the first word that says anything decides."""
    name = encodable(tool)
    words = [word.lower() for word in _PIECES.findall(name)]
    name = name.lower()
    if to_somebody or _HANDS_OVER.search(name):
        return Trait.HANDOVER
    traits = next((_DOES[word] for word in words if word in _DOES), Trait.NONE)
    if _THINKING.search(name) or _NOTING.fullmatch(name):
        return Trait.TALK
    if not _MAKES.isdisjoint(words) and traits & Trait.ACTED:
        traits |= Trait.MAKES
    return traits if _WAITS.isdisjoint(words) else traits | Trait.WAITING


@lru_cache(maxsize=1024)
def said(head: str) -> int:
    """What the beginning of a result tells."""
    if _TURNED_AWAY.search(head):
        if _DENIED.search(head):
            return Trait.REFUSED | Trait.EMPTY
        if _PASSING.search(head):
            return Trait.REFUSED | Trait.WAITING | Trait.EMPTY
    if not _SAYING.search(head):
        return Trait.NONE  # most results are what was asked for
    waits = Trait.WAITING if _WAITING.search(head) and not head.startswith(_NO_PARTICIPLES) else Trait.NONE
    if _FAILED.search(head) and not _FINE.search(head):
        return waits | Trait.FAILED
    if _NO_HITS.search(head):
        return waits | Trait.EMPTY
    kinds = ((_RECEIPT, Trait.ACTED), (_BLANK, Trait.BLANK), (_EMPTY, Trait.EMPTY))
    return waits | next((trait for pattern, trait in kinds if pattern.search(head)), Trait.NONE)


@lru_cache(maxsize=1024)
def absent(head: str) -> bool:
    """Whether a result says that there is no such thing as was asked for."""
    return _ABSENCE.search(head) is not None
