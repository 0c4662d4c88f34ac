"""Tests of the secrets gate. Every credential here is made up by code, in the provider's shape."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string

import pytest
from pydantic import ValidationError

from guardrails_mw.errors import PolicyError
from guardrails_mw.event import Content, Event, Stage
from guardrails_mw.gate import Site
from guardrails_mw.gates.secrets import SecretsConfig, SecretsGate
from guardrails_mw.gates.secrets.rules import default_rules
from guardrails_mw.patterns import PatternSet
from guardrails_mw.verdict import Action, Operator

RNG = random.Random(7)
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
DASHES = "-" * 5


def some(count: int, alphabet: str = ALNUM) -> str:
    return "".join(RNG.choice(alphabet) for _ in range(count))


def uuid() -> str:
    return "-".join(some(count, HEX) for count in (8, 4, 4, 4, 12))


def part64(fields: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


def pem(lines: int = 8) -> str:
    body = "\n".join(some(64, ALNUM + "+/") for _ in range(lines))
    return f"{DASHES}BEGIN RSA PRIVATE KEY{DASHES}\n{body}\n{DASHES}END RSA PRIVATE KEY{DASHES}"


def credentials() -> dict[str, str]:
    return {
        "anthropic": "sk-" + "ant-api03-" + some(90),
        "langfuse": "sk-" + "lf-" + uuid(),
        "openrouter": "sk-" + "or-v1-" + some(64, HEX),
        "openai": "sk-" + "proj-" + some(80),
        "huggingface": "hf" + "_" + some(34),
        "groq": "gsk" + "_" + some(52),
        "xai": "xai" + "-" + some(80),
        "perplexity": "pplx" + "-" + some(48),
        "replicate": "r8" + "_" + some(37),
        "langsmith": "lsv2" + "_pt_" + some(32, HEX) + "_" + some(10, HEX),
        "github_pat": "ghp" + "_" + some(36),
        "github_fine": "github" + "_pat_" + some(22) + "_" + some(59),
        "gitlab_pat": "glpat" + "-" + some(20),
        "npm": "npm" + "_" + some(36),
        "pypi": "pypi" + "-AgEIcHlwaS5vcmc" + some(70),
        "rubygems": "rubygems" + "_" + some(48, HEX),
        "docker": "dckr" + "_pat_" + some(27),
        "atlassian": "ATATT3" + some(180),
        "postman": "PMAK" + "-" + some(24, HEX) + "-" + some(34, HEX),
        "aws_access_key": "AKIA" + some(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        "google_api": "AIza" + some(35),
        "google_oauth": "GOCSPX" + "-" + some(28),
        "digitalocean": "dop" + "_v1_" + some(64, HEX),
        "heroku": "HRKU" + "-" + uuid(),
        "fly": "fm2" + "_" + some(80),
        "supabase": "sbp" + "_" + some(40, HEX),
        "vault": "hvs" + "." + some(90),
        "terraform": some(14) + ".atlas" + "v1." + some(67),
        "databricks": "dapi" + some(32, HEX),
        "planetscale": "pscale" + "_tkn_" + some(43),
        "doppler": "dp" + ".pt." + some(43),
        "slack_bot": "xoxb" + "-" + some(12, string.digits) + "-" + some(12, string.digits) + "-" + some(24),
        "slack_webhook": "https://hooks.slack.com" + f"/services/T{some(8)}/B{some(10)}/{some(24)}",
        "discord_webhook": "https://discord.com" + f"/api/webhooks/{some(18, string.digits)}/{some(68)}",
        "telegram": some(10, "123456789") + ":AA" + some(33),
        "stripe": "sk" + "_live_" + some(24),
        "twilio": "SK" + some(32, HEX),
        "sendgrid": "SG" + "." + some(22) + "." + some(43),
        "mailgun": "key" + "-" + some(32, HEX),
        "mailchimp": some(32, HEX) + "-us" + "12",
        "shopify": "shpat" + "_" + some(32, HEX),
        "square": "sq0" + "atp-" + some(22),
        "notion": "ntn" + "_" + some(46),
        "linear": "lin" + "_api_" + some(40),
        "grafana": "glsa" + "_" + some(32) + "_" + some(8, HEX),
        "new_relic": "NRAK" + "-" + some(27, string.ascii_uppercase + string.digits),
        "sentry": "sntry" + "s_" + some(60),
        "age": "AGE-SECRET" + "-KEY-1" + some(58, string.ascii_uppercase + string.digits),
        "jwt": part64({"alg": "HS256", "typ": "JWT"}) + "." + part64({"sub": "1"}) + "." + some(43),
        "db_url": "postgres" + "://app:" + some(14) + "@db.internal:5432/prod",
        "private_key": pem(),
    }


CREDENTIALS = credentials()
BY_NAME = {"azure_storage", "authorization", "generic", "generic_prose"}  # known by what stands before them
TOKEN = "x8Kd" + "02mQ" * 2 + "vB7tR"
STRONG = "Zq7!" + "vK2#" + "mP9w"


def check(value: object, stage: Stage = Stage.TOOL_RESULT, secret: bytes = b"", **keys: object):
    config = SecretsConfig.model_validate({"type": "secrets", **keys})
    return SecretsGate("secrets", config, secret).check(Event(stage, Content(value)))


def cut(text: str, verdict) -> list[str]:
    return [text[finding.start : finding.end] for finding in verdict.findings]


def test_every_kind_has_a_made_up_example():
    """A new rule without an example in this file fails here."""
    assert set(CREDENTIALS) - {"private_key"} == set(default_rules().kinds) - BY_NAME


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize("wrap", ["{}", "Use {} please.", 'x = "{}"', "KEY={}\nOTHER=1", "😀 é {}\u3002", "<a>{}</a>"])
def test_every_kind_is_found_to_the_code_point(kind, wrap):
    """Whatever stands around it, the finding covers the credential, names its kind and takes nothing else."""
    text = wrap.format(CREDENTIALS[kind])
    verdict = check(text)
    assert [finding.type for finding in verdict.findings] == [f"secret.{kind}"]
    assert cut(text, verdict) == [CREDENTIALS[kind]]
    assert verdict.edits[0].text == f"[SECRET:{kind}]"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("password: " + STRONG, STRONG),
        (f'{{"client_secret": "{STRONG}"}}', STRONG),
        ("DB_PASSWORD=" + STRONG, STRONG),
        ("api_key => '" + STRONG + "'", STRONG),
        ("the password is " + STRONG, STRONG),
        ("login --password " + STRONG, STRONG),
        ("| API key | " + STRONG + " |", STRONG),
        ("<secret>" + STRONG + "</secret>", STRONG),
        ("Authorization: Bearer " + TOKEN, TOKEN),
        ("AccountKey=" + "aB3/" * 21 + "aB==;Endpoint=x", "aB3/" * 21 + "aB=="),
    ],
)
def test_a_telling_name_makes_a_value_a_secret(text, value):
    """A value without a prefix of its own is found by the name before it."""
    assert cut(text, check(text)) == [value]


def test_the_key_of_an_argument_is_such_a_name():
    """Arguments and results as trees: the key above the value counts, in any spelling, and only that key."""
    value = {"clientSecret": STRONG, "note": STRONG, "X-Api-Key": STRONG, "max_tokens": STRONG}
    content = Content(value)
    verdict = SecretsGate("secrets").check(Event(Stage.TOOL_CALL, content))
    assert [content.parts[finding.part].context for finding in verdict.findings] == ["clientSecret", "X-Api-Key"]
    kept = content.replaced({edit.part: edit.text for edit in verdict.edits}).value
    assert kept == value | {"clientSecret": "[SECRET:generic]", "X-Api-Key": "[SECRET:generic]"}


def test_a_credential_used_as_a_key_is_found():
    """The name of an argument can be the credential."""
    content = Content({CREDENTIALS["npm"]: 1})
    verdict = SecretsGate("secrets").check(Event(Stage.TOOL_CALL, content))
    assert content.parts[verdict.findings[0].part].kind == "key"


@pytest.mark.parametrize(
    "text",
    [
        "password: ${DB_PASSWORD}",
        "export OPENAI_API_KEY=sk-...  # your key here",
        "api_key = os.environ['SERVICE_API_KEY']",
        "def set_password(self, password: str) -> None: ...",
        "The token limit is 8,192 and the secret of a good prompt is brevity.",
        "max_tokens: 4096, token_count=123456789",
        "postgres://user:password@localhost/db and https://example.com:8080/a@b",
        "git checkout " + "0123456789abcdef" * 2 + "01234567",
        "integrity: sha512-" + "aB3/" * 21 + "aB==",
        "password: https://reset.internal/page-12",
        "id: 320b289b-0169-4993-ae6e-022564db1647",
        "eyJust-a-word.another-word.and-one-more-word",
        f"{DASHES}BEGIN PUBLIC KEY{DASHES}\nMIIB\n{DASHES}END PUBLIC KEY{DASHES}",
    ],
)
def test_placeholders_and_look_alikes_pass(text):
    """Names of variables, hashes, ids, examples and prose are no secrets."""
    verdict = check(text)
    assert (verdict.action, verdict.findings) == (Action.ALLOW, ())


def test_a_private_key_is_covered_to_its_end_or_as_far_as_it_goes():
    """Escaped line breaks, a missing end and two keys in a row are all covered whole."""
    key = pem()
    for text in (key, key.replace("\n", "\\n"), key[: key.index(DASHES + "END")]):
        assert cut("a " + text + " §", check("a " + text + " §"))[0].strip() == text.strip()
    assert len(check(key + "\n" + pem()).findings) == 2


def test_overlapping_rules_give_one_finding():
    """A credential under a telling name is one secret, of the more telling kind."""
    text = "token=" + CREDENTIALS["github_pat"]
    assert [finding.type for finding in check(text).findings] == ["secret.github_pat"]


@pytest.mark.parametrize(
    ("action", "expected", "edits"),
    [("edit", Action.ALLOW, 1), ("flag", Action.FLAG, 0), ("ask", Action.ASK, 1), ("block", Action.BLOCK, 1)],
)
def test_the_action_is_the_policys(action, expected, edits):
    """Each action answers as the policy says; only a flag leaves the text as it is."""
    verdict = check(CREDENTIALS["stripe"], action=action)
    assert (verdict.action, verdict.reason, len(verdict.edits)) == (expected, "secret", edits)


def test_styles():
    """Removing tells the kind, masking at most four characters, hashing the same mark for the same value only."""
    value = CREDENTIALS["npm"]
    assert check(value).edits[0].operator is Operator.REMOVE
    mask = check(value, style="mask").edits[0]
    assert (mask.text, mask.operator) == (value[:4] + "********", Operator.MASK)
    first, again = (check(value, style="hash", secret=b"k").edits[0].text for _ in range(2))
    other = check(value, style="hash", secret=b"another").edits[0].text
    assert first == again != other
    assert first.startswith("[SECRET:npm:")
    assert len(first) == len("[SECRET:npm:01234567]")


def test_known_harmless_values_pass():
    """A value on the allow list, in clear or as a digest, is left alone; others are not."""
    value, other = CREDENTIALS["npm"], CREDENTIALS["groq"]
    digest = "sha256:" + hashlib.sha256(value.encode()).hexdigest()
    for entry in (value, digest):
        assert cut(f"{value} {other}", check(f"{value} {other}", allow=[entry])) == [other]


def test_what_a_policy_gets_wrong_is_refused():
    """A malformed digest, an unknown style and hashing without a key are errors at load."""
    for keys in ({"allow": ["sha256:abc"]}, {"style": "blur"}, {"mode": "edit"}):
        with pytest.raises(ValidationError):
            SecretsConfig.model_validate({"type": "secrets", **keys})
    with pytest.raises(PolicyError, match="allowed without: remove, mask"):
        SecretsGate.build(SecretsConfig(type="secrets", style="hash"), Site("s", base=None))


def test_editing_twice_changes_nothing():
    """What the gate writes is no secret to it."""
    for style in ("remove", "mask", "hash"):
        for value in CREDENTIALS.values():
            new = check(value, style=style, secret=b"k").edits[0].text
            assert check("token: " + new).findings == ()


def test_a_secret_at_the_end_of_a_megabyte_is_found():
    """No cap hides the end of a text."""
    text = "All systems are working. " * 42_000 + CREDENTIALS["github_pat"]
    assert cut(text, check(text)) == [CREDENTIALS["github_pat"]]


@pytest.mark.parametrize("shift", range(-60, 61, 12))
def test_a_secret_across_two_windows_is_found(shift):
    """Wherever the border between windows falls, nothing is cut."""
    text = "x" * (8192 - 20 + shift) + " " + CREDENTIALS["anthropic"] + " y" * 9000
    assert cut(text, check(text)) == [CREDENTIALS["anthropic"]]


@pytest.mark.parametrize(
    "unit",
    [".", "!", "\x00", "7", "QUJD", "eyJ", "sk-ant-", "password", "a://b:c", DASHES + "BEGIN PRIVATE KEY" + DASHES],
)
def test_work_grows_linearly(unit, monkeypatch):
    """Four times the text gives the engine about four times the characters, also for hostile texts."""
    scanned = []
    matching, spans = PatternSet.matching, PatternSet.spans
    monkeypatch.setattr(PatternSet, "matching", lambda self, text: scanned.append(len(text)) or matching(self, text))
    monkeypatch.setattr(
        PatternSet, "spans", lambda self, name, text: scanned.append(len(text)) or spans(self, name, text)
    )

    def work(size: int) -> int:
        scanned.clear()
        check(unit * (size // len(unit)))
        return sum(scanned)

    small, large = work(25_000), work(100_000)
    assert large <= 5 * small + 2 * 8192
