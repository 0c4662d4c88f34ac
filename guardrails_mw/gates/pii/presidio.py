"""Presidio's recognizers, loaded without its language models.

Importing ``presidio_analyzer`` imports spaCy and, where they are installed, PyTorch and Transformers:
seconds and hundreds of megabytes that recognizers made of patterns do not use. This module executes the
few source files that define them in a namespace of their own, so that neither the import system nor
other users of Presidio notice. When those files are not the ones this package knows, `load` imports
Presidio the ordinary way, and says so (`Library.known`).
"""

from __future__ import annotations

import builtins
import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from guardrails_mw.errors import PolicyError
from guardrails_mw.gates.pii.countries import COUNTRIES

__all__ = ["Library", "Pattern", "Recognizer", "Result", "load", "national"]

_ROOT = "presidio_analyzer"
_CORE = {
    "analysis_explanation": "AnalysisExplanation",
    "recognizer_result": "RecognizerResult",
    "entity_recognizer": "EntityRecognizer",
    "local_recognizer": "LocalRecognizer",
    "pattern": "Pattern",
    "pattern_recognizer": "PatternRecognizer",
}
_GENERIC, _US, _UK = (f"predefined_recognizers.{p}." for p in ("generic", "country_specific.us", "country_specific.uk"))
_RECOGNIZERS = {
    "CREDIT_CARD": (f"{_GENERIC}credit_card_recognizer", "CreditCardRecognizer"),
    "CRYPTO": (f"{_GENERIC}crypto_recognizer", "CryptoRecognizer"),
    "DATE_TIME": (f"{_GENERIC}date_recognizer", "DateRecognizer"),
    "EMAIL_ADDRESS": (f"{_GENERIC}email_recognizer", "EmailRecognizer"),
    "IBAN_CODE": (f"{_GENERIC}iban_recognizer", "IbanRecognizer"),
    "IP_ADDRESS": (f"{_GENERIC}ip_recognizer", "IpRecognizer"),
    "MAC_ADDRESS": (f"{_GENERIC}mac_recognizer", "MacAddressRecognizer"),
    "MEDICAL_LICENSE": (f"{_US}medical_license_recognizer", "MedicalLicenseRecognizer"),
    "PHONE_NUMBER": (f"{_GENERIC}phone_recognizer", "PhoneRecognizer"),
    "UK_NHS": (f"{_UK}uk_nhs_recognizer", "NhsRecognizer"),
    "URL": (f"{_GENERIC}url_recognizer", "UrlRecognizer"),
    "US_BANK_NUMBER": (f"{_US}us_bank_recognizer", "UsBankRecognizer"),
    "US_DRIVER_LICENSE": (f"{_US}us_driver_license_recognizer", "UsLicenseRecognizer"),
    "US_ITIN": (f"{_US}us_itin_recognizer", "UsItinRecognizer"),
    "US_PASSPORT": (f"{_US}us_passport_recognizer", "UsPassportRecognizer"),
    "US_SSN": (f"{_US}us_ssn_recognizer", "UsSsnRecognizer"),
    "UUID": (f"{_GENERIC}uuid_recognizer", "UuidRecognizer"),
}
_KNOWN = "f3abe0da455a3aea938187ae1daf19e8d19bd77d704e003c79f751feaa30206a"
"""SHA-256 over those source files of Presidio 2.2.366, and over phonenumbers' matching and parsing (not its tables)."""


_MASTERCARD_2 = r"\b2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)[- ]?\d{4}[- ]?\d{4}[- ]?\d{4}\b"
"""Numbers 2221 to 2720, in use since 2017, which Presidio's patterns leave out. Checked by Luhn like all."""


_SPECIAL_SUFFIXES = ("example", "test", "invalid", "localhost", "local", "internal", "lan", "corp", "home", "intranet")
"""Names outside the public list under which people have addresses: RFC 6761, RFC 6762, ICANN's ``.internal``."""


class _Domain(Protocol):
    fqdn: str
    suffix: str


class Pattern(Protocol):
    """A named regular expression with the score of a match."""

    name: str
    regex: str
    score: float


class Result(Protocol):
    """A finding as Presidio reports it."""

    start: int
    end: int
    score: float


class Recognizer(Protocol):
    """What this package uses of a Presidio recognizer."""

    supported_entities: Sequence[str]
    context: Sequence[str] | None
    supported_regions: Sequence[str]
    leniency: int
    patterns: Sequence[Pattern]
    global_regex_flags: int

    def analyze(self, text: str, entities: Sequence[str]) -> Sequence[Result]:
        """Presidio's own way of searching."""

    def validate_result(self, pattern_text: str) -> bool | None:
        """Check digits and the like: True is certain, False is none, None is undecided."""

    def invalidate_result(self, pattern_text: str) -> bool | None:
        """Whether a match is certainly none."""


@dataclass(frozen=True, slots=True)
class Library:
    """The recognizers by entity, and whether they are the ones that this package knows exactly."""

    recognizers: Mapping[str, Recognizer]
    known: bool


@cache
def load() -> Library:
    """Presidio's pattern recognizers for English texts. Raises `PolicyError` if it is not installed."""
    made = {entity: _made(module, name) for entity, (module, name) in _RECOGNIZERS.items()}
    cards = made["CREDIT_CARD"]
    cards.patterns = [*cards.patterns, _pattern()("Mastercard 2-series", _MASTERCARD_2, 0.3)]
    return Library(made, _package().known)


@cache
def national(country: str) -> Library:
    """Presidio's recognizers of one country of `COUNTRIES`, whatever language they are bound to."""
    recognizers = [_made(module, name) for name, module in COUNTRIES[country].items()]
    return Library({each.supported_entities[0]: each for each in recognizers}, _package().known)


def _made(module: str, name: str) -> Recognizer:
    kind: type = getattr(_package().get(f"{_ROOT}.{module}"), name)
    if name == "EmailRecognizer":  # Presidio's own asks the network for the list of public suffixes
        kind = type(name, (kind,), {"validate_result": _domain_exists})
    return cast("Recognizer", kind())


def _pattern() -> Callable[..., Pattern]:
    return cast("Callable[..., Pattern]", _package().get(f"{_ROOT}.pattern").Pattern)


@dataclass(frozen=True, slots=True)
class _Package:
    """Presidio as it is installed: how to get a module of it, and whether its sources are the known ones."""

    get: Callable[[str], ModuleType]
    known: bool


@cache
def _package() -> _Package:
    spec = find_spec(_ROOT)
    if spec is None or not spec.origin:
        raise PolicyError("gate 'pii' needs presidio-analyzer: pip install 'guardrails-mw[pii]'")
    namespace = _Namespace(Path(spec.origin).parent)
    known = namespace.digest() == _KNOWN
    return _Package(namespace.module if known else importlib.import_module, known)


def _domain_exists(_: Recognizer, address: str) -> bool:
    found = _suffixes()(address)
    return bool(found.fqdn) or "." in found.suffix  # there is mail to ``gov.pl``


@cache
def _suffixes() -> Callable[[str], _Domain]:
    import tldextract

    extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, extra_suffixes=_SPECIAL_SUFFIXES)
    return cast("Callable[[str], _Domain]", extract)


class _Namespace:
    """Modules of a package that see each other, but not the package's own ``__init__``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: dict[str, ModuleType] = {}

    def digest(self) -> str:
        """SHA-256 over every file that would be executed; empty when one is missing."""
        total = hashlib.sha256()
        names = [*_CORE, "score_thresholds", f"{_GENERIC}iban_patterns", *(m for m, _ in _RECOGNIZERS.values())]
        names += sorted({module for each in COUNTRIES.values() for module in each.values()})
        spec = find_spec("phonenumbers")
        phones = Path(spec.origin).parent if spec and spec.origin else self._folder
        files = [*map(self._path, names), phones / "phonenumbermatcher.py", phones / "phonenumberutil.py"]
        for file in files:
            try:
                total.update(file.read_bytes())
            except OSError:
                return ""
        return total.hexdigest()

    def module(self, name: str) -> ModuleType:
        """A module by its full name, executed the first time."""
        if name not in self._modules:
            if not self._modules:
                self._prepare()
            short = name.removeprefix(f"{_ROOT}.")
            module = self._modules[name] = ModuleType(name)
            module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
            source = compile(self._path(short).read_bytes(), str(self._path(short)), "exec")
            exec(source, module.__dict__)  # noqa: S102 - Presidio's own files, of known digest
        return self._modules[name]

    def _prepare(self) -> None:
        root = self._modules[_ROOT] = ModuleType(_ROOT)
        engine = self._modules[f"{_ROOT}.nlp_engine"] = ModuleType(f"{_ROOT}.nlp_engine")
        engine.__dict__["NlpArtifacts"] = object  # named in annotations only
        for name, export in _CORE.items():
            setattr(root, export, getattr(self.module(f"{_ROOT}.{name}"), export))

    def _path(self, name: str) -> Path:
        return self._folder.joinpath(*name.split(".")).with_suffix(".py")

    def _import(
        self,
        name: str,
        scope: Mapping[str, object] | None = None,
        local: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0 and (name == _ROOT or name.startswith(f"{_ROOT}.")):
            return self.module(name)
        if level == 1 and scope is not None and name:  # a neighbour in the same folder
            return self.module(f"{str(scope['__name__']).rpartition('.')[0]}.{name}")
        return builtins.__import__(name, scope, local, fromlist or (), level)
