"""Named-entity models in the pii gate: models that the tests make themselves, and what is said when there is none."""

from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path

import pytest

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import Cost, Site
from guardrails_mw.gates.pii.gate import PiiConfig, PiiGate

NAMES = ["Ada", "Lovelace", "Grace"]


def gate(base: Path, **keys: object) -> PiiGate:
    return PiiGate.build(PiiConfig.model_validate({"type": "pii", **keys}), Site("pii", base, b"k" * 32))


def scrub(pii: PiiGate, text: str) -> str:
    result, end = [], 0
    for edit in sorted(pii.check(Event(Stage.INPUT, Content(text))).edits):
        result += [text[end : edit.start], edit.text]
        end = edit.end
    return "".join([*result, text[end:]])


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("connected")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def spacy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of rules, saved to disk."""
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns(
        [
            {"label": "PERSON", "pattern": "Ada Lovelace"},
            {"label": "GPE", "pattern": "Paris"},
            {"label": "ORG", "pattern": "Initech"},
            {"label": "WIDGET", "pattern": "Mark IV"},
        ]
    )
    folder = tmp_path_factory.mktemp("models") / "rules"
    pipeline.to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def token_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of one layer that says PER of some words: its classifier reads the words' embeddings."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", *NAMES, "met", "in", "the", "office"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]"
    ).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=0, num_attention_heads=1, intermediate_size=8,
        num_labels=2, id2label={0: "O", 1: "B-PER"}, label2id={"O": 0, "B-PER": 1}, max_position_embeddings=512,
    )  # fmt: skip
    model = transformers.BertForTokenClassification(config)
    with torch.no_grad():
        embeddings = model.bert.embeddings
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
        embeddings.word_embeddings.weight.zero_()
        for i, word in enumerate(words):
            embeddings.word_embeddings.weight[i, 0 if word in NAMES else 1] = 1.0
        model.classifier.weight.zero_()
        model.classifier.bias.zero_()
        model.classifier.weight[1, 0] = model.classifier.weight[0, 1] = 5.0
    model.save_pretrained(folder)
    return folder


def test_spacy_model(spacy_model: Path, no_network: None) -> None:
    """A saved pipeline finds people, places and organisations beside what patterns find; other labels are left."""
    pii = gate(spacy_model.parent, ner={"engine": "spacy", "model": spacy_model.name})
    text = "Ada Lovelace of Initech, Paris, has a Mark IV and bob@example.com"
    assert scrub(pii, text) == "[PERSON] of [ORGANIZATION], [LOCATION], has a Mark IV and [EMAIL_ADDRESS]"
    assert pii.cost is Cost.BLOCKING
    assert pii.max_span is None


def test_spacy_labels_and_entities(spacy_model: Path) -> None:
    """A policy lists the entities it wants, and says what a label of its own stands for."""
    ner = {"engine": "spacy", "model": str(spacy_model), "labels": {"WIDGET": "PRODUCT"}}
    text = "Ada Lovelace has a Mark IV in Paris"
    assert (
        scrub(gate(spacy_model, ner=ner, entities=["PERSON", "PRODUCT"]), text) == "[PERSON] has a [PRODUCT] in Paris"
    )


def test_transformers_model(token_model: Path, no_network: None) -> None:
    """A token classification model in a folder is loaded without the network, and its words become spans."""
    pii = gate(token_model.parent, entities=["PERSON"], ner={"engine": "transformers", "model": token_model.name})
    pii.warm()
    assert scrub(pii, "Ada met Grace in the office") == "[PERSON] met [PERSON] in the office"
    assert scrub(pii, "in the office") == "in the office"


def test_long_text_is_read_in_views(token_model: Path) -> None:
    """What a model finds far into a text stands at its place, once."""
    pii = gate(token_model.parent, entities=["PERSON"], ner={"engine": "transformers", "model": token_model.name})
    text = "in the office " * 300 + "Ada met " + "in the office " * 20
    findings = pii.check(Event(Stage.INPUT, Content(text))).findings
    assert [text[f.start : f.end] for f in findings] == ["Ada"]


def test_model_reads_what_literals_say(spacy_model: Path) -> None:
    """A name behind an escape in a JSON text is found whole, and the text stays JSON."""
    pii = gate(spacy_model.parent, ner={"engine": "spacy", "model": spacy_model.name})
    text = json.dumps({"note": "Dear\nAda Lovelace"})
    assert json.loads(scrub(pii, text)) == {"note": "Dear\n[PERSON]"}


@pytest.mark.parametrize(
    ("ner", "told"),
    [
        ({"engine": "spacy", "model": "en_core_web_none"}, r"no model 'en_core_web_none' here.*spacy download"),
        ({"engine": "transformers", "model": "nobody/nothing"}, r"no model 'nobody/nothing' here.*hf download"),
    ],
)
def test_absent_model(ner: dict[str, str], told: str, tmp_path: Path, no_network: None) -> None:
    """A model that is not here is a policy error that says how to get it; it is not fetched."""
    pytest.importorskip(ner["engine"])
    with pytest.raises(PolicyError, match=told):
        gate(tmp_path, ner=ner)


@pytest.mark.parametrize("engine", ["gliner", "spacy", "transformers"])
def test_absent_engine(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that is not installed is a policy error that says what to install."""
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "guardrails_mw.gates.pii.ner.find_spec", lambda name, *_: None if name == engine else find(name)
    )
    with pytest.raises(PolicyError, match=rf"ner\.engine: .*guardrails-mw\[ner-{engine}\]"):
        gate(tmp_path, ner={"engine": engine, "model": "x"})


def test_person_without_model(tmp_path: Path) -> None:
    """Asking for PERSON without a model says what to add and what to install."""
    with pytest.raises(PolicyError, match=r"'PERSON' needs a named-entity model.*guardrails-mw\[ner-spacy\]"):
        gate(tmp_path, entities=["PERSON", "EMAIL_ADDRESS"])
