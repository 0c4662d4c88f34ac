"""What others offer for the same work, each in the configuration that the report prints."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

__all__ = ["CONFIGURED", "INJECTION", "has_injection", "langchain_finds", "presidio", "regexes_find"]

CONFIGURED = (
    "10 regexes: ten `re` patterns of common injection phrases, tried one after the other, ignoring case.",
    "3 regexes: `re` patterns for mailbox, telephone and card number, all matches.",
    (
        "LangChain: `detect_email`, `detect_credit_card`, `detect_ip`, `detect_mac_address` and `detect_url` of "
        "`langchain.agents.middleware`, all five, as `PIIMiddleware` runs them; it has none for telephone numbers."
    ),
    (
        "Presidio: `AnalyzerEngine` with its predefined English recognizers over `spacy.blank('en')`, asked for the "
        "entities of our profile `agent`, public suffixes from its snapshot (no network), log level ERROR."
    ),
)

INJECTION = (
    r"ignore (?:all |any |the )*(?:previous|prior|above|earlier) (?:instructions|prompts|rules)",
    r"disregard (?:all |any |the )*(?:previous|prior|above|earlier)",
    r"forget (?:everything|all|your) (?:instructions|rules|above|before)?",
    r"you are now (?:a|an|in) ",
    r"(?:reveal|show|print|repeat) (?:me )?(?:your|the) (?:system )?(?:prompt|instructions)",
    r"pretend (?:to be|you are)",
    r"\bdo anything now\b|\bDAN mode\b",
    r"(?:developer|debug|god) mode",
    r"new instructions?:",
    r"</?(?:system|assistant|im_start|im_end)\|?>",
)
_INJECTION = [re.compile(pattern, re.IGNORECASE) for pattern in INJECTION]
_PERSONAL = [
    re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"),
    re.compile(r"(?<!\w)(?:\+?\d{1,3}[ .-]?)?(?:\(\d{3}\)|\d{3})[ .-]?\d{3}[ .-]?\d{4}\b"),
    re.compile(r"\b(?:\d[ -]?){12,18}\d\b"),
]


def has_injection(text: str) -> bool:
    """The ten regexes."""
    return any([pattern.search(text) is not None for pattern in _INJECTION])  # noqa: C419 - all ten, always


def regexes_find(text: str) -> list[str]:
    """The three regexes."""
    return [match.group() for pattern in _PERSONAL for match in pattern.finditer(text)]


def langchain_finds(text: str) -> list[str]:
    """LangChain's five detectors."""
    return [match["value"] for detect in _langchain() for match in detect(text)]


def _langchain() -> Sequence[Callable[[str], list[dict[str, str]]]]:
    from langchain.agents.middleware import pii

    return (pii.detect_email, pii.detect_credit_card, pii.detect_ip, pii.detect_mac_address, pii.detect_url)  # type: ignore[return-value]


def presidio(entities: Sequence[str]) -> Callable[[str], list[str]]:
    """A plain Presidio analyzer, asked for these entities."""
    import spacy
    import tldextract.tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
            self.nlp = {"en": spacy.blank("en", config={"nlp": {}})}
            self.nlp["en"].max_length = 10_000_000

    logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
    tldextract.tldextract.TLD_EXTRACTOR.suffix_list_urls = ()
    registry = RecognizerRegistry(supported_languages=["en"])
    registry.load_predefined_recognizers(languages=["en"])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])
    known = [entity for entity in entities if entity in analyzer.get_supported_entities("en")]
    return lambda text: [text[r.start : r.end] for r in analyzer.analyze(text, "en", entities=known)]
