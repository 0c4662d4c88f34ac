"""Tests of the secrets gate. Every credential here is made up by code, in the provider's shape."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
from urllib.parse import quote

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
        "airtable": "pat" + some(14) + "." + some(64, HEX),
        "figma": "figd" + "_" + some(40),
        "pulumi": "pul" + "-" + some(40, HEX),
        "sonar": "sqp" + "_" + some(40, HEX),
        "circleci": "CCIPAT" + "_" + some(22) + "_" + some(40, HEX),
        "netlify": "nfp" + "_" + some(36),
        "hubspot": "pat" + "-na1-" + uuid(),
        "nvidia": "nvapi" + "-" + some(64),
        "azure_ad": some(3) + "8Q" + "~" + some(34),
        "age": "AGE-SECRET" + "-KEY-1" + some(58, string.ascii_uppercase + string.digits),
        "jwt": part64({"alg": "HS256", "typ": "JWT"}) + "." + part64({"sub": "1"}) + "." + some(43),
        "db_url": "postgres" + "://app:" + some(14) + "@db.internal:5432/prod",
        "private_key": pem(),
    }


CREDENTIALS = credentials()
BY_NAME = {
    "azure_storage",
    "azure_sas",
    "authorization",
    "generic",
    "generic_prose",
}  # known by what stands before them
TOKEN = "x8Kd" + "02mQ" * 2 + "vB7tR"
STRONG = "Zq7!" + "vK2#" + "mP9w"
LONG = base64.b64encode(RNG.randbytes(64)).decode()
SAS = quote(base64.b64encode(RNG.randbytes(32)).decode(), safe="")


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
        ("AccountKey=" + LONG + ";Endpoint=x", LONG),
        ("https://a.blob.core.windows.net/c/b?sv=2024&sig=" + SAS, SAS),
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


@pytest.mark.parametrize(
    "value",
    [
        [{"name": "DB_PASSWORD", "value": "hK8-vw2_Tz9!"}],
        [{"Value": "hK8-vw2_Tz9!", "Key": "api_key"}],
        {"db_password": {"value": "hK8-vw2_Tz9!", "type": "string"}},
    ],
)
def test_a_name_beside_a_value_or_two_keys_up_is_such_a_name(value):
    """Settings often stand in mappings of a name and a value; they tell what the value is."""
    assert [edit.text for edit in check(value).edits] == ["[SECRET:generic]"]
    assert not check({"name": "DB_HOST", "value": "hK8-vw2_Tz9!", "inner": {"name": "password"}}).edits


@pytest.mark.parametrize("between", [" == ", " === ", " -> ", "=>", " \u2192 ", ":"])
def test_signs_between_a_name_and_its_value(between):
    """A comparison or an arrow tells as much as an equals sign."""
    text = f'password{between}"hK8-vw2_Tz9!"'
    assert cut(text, check(text)) == ["hK8-vw2_Tz9!"]


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


def names() -> list[str]:
    """Names that people give to secrets, by what they open and how they are written."""
    stems = ["password", "passwd", "secret", "api_key", "access_token", "client_secret", "auth_token", "signing_key"]
    owners = ["", "db", "redis", "stripe", "aws", "admin", "smtp"]
    made = [f"{owner}_{stem}".strip("_") for owner in owners for stem in stems]
    return [*made, *(name.upper() for name in made), *(name.replace("_", "-") for name in made), *map(camel, made)]


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def drawn() -> list[str]:
    """Values as generators of passwords, keys and tokens draw them."""
    return [
        some(16, ALNUM + "!@#^*") + "7a",
        some(24) + "4K",
        some(40, ALNUM + "+/") + "9Z",
        base64.b64encode(RNG.randbytes(32)).decode(),
        base64.urlsafe_b64encode(RNG.randbytes(32)).decode().rstrip("="),
        some(32, HEX),
        some(40, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"),
        uuid(),
    ]


FORMS = [
    "{name}={value}",
    "export {name}='{value}'",
    "{name}: {value}",
    '  {name}: "{value}"  # production',
    '{{"retries": 3, "{name}": "{value}"}}',
    '{{"body": "{{\\"{name}\\": \\"{value}\\"}}"}}',
    'client = Client({name}="{value}")',
    "config['{name}'] = '{value}'",
    "const {name} = `{value}`;",
    "'{name}' => '{value}',",
    "<{name}>{value}</{name}>",
    '<add key="{name}" value="{value}" />',
    '- name: {name}\n  value: "{value}"',
    'variable "{name}" {{ default = "{value}" }}',
    "[auth]\n{name} = '{value}'",
    "curl -H 'X-{name}: {value}' https://api.example.com",
    "docker run -e {name}={value} app",
    "| {name} | {value} |",
    "- **{name}**: `{value}`",
    "The {name} is {value}",
    "https://api.example.com/v1?{name}={value}",
]


@pytest.mark.parametrize("form", FORMS)
def test_a_drawn_value_under_a_telling_name_is_found_in_every_form(form):
    """Whatever the file format, at least 95 % of drawn values are covered whole, here with over 1,700 tries."""
    tries = [(name, value) for name in names() for value in drawn()]
    texts = [(form.format(name=name, value=value), value) for name, value in tries]
    covered = [any(value in found for found in cut(text, check(text))) for text, value in texts]
    assert sum(covered) >= 0.95 * len(covered), [texts[i][0] for i, ok in enumerate(covered) if not ok][:5]


@pytest.mark.parametrize(
    "text",
    [
        "curl -u admin:" + STRONG + " https://api.example.com",
        "machine api.example.com login bob password " + STRONG,
        "ENV STRIPE_SECRET_KEY " + TOKEN,
        "tool --db-password " + STRONG + " --verbose",
        'tool --api-key "' + TOKEN + '"',
        "I set the password to " + TOKEN + " yesterday.",
        "Password for staging: " + TOKEN,
        "The credentials are " + TOKEN + ".",
        "Your temporary password is: " + TOKEN,
        "Passwort: " + TOKEN,
        "//registry.example.com/:_authToken=" + TOKEN,
        "Server=db;User Id=sa;Password=" + STRONG + ";",
    ],
)
def test_secrets_in_commands_and_files_of_programs(text):
    """Forms that need more than a name and a colon."""
    assert [value in (STRONG, TOKEN) for value in cut(text, check(text))] == [True]


def digest(count: int) -> str:
    return base64.b64encode(RNG.randbytes(count)).decode()


ORDINARY = {
    "ids and digests": [
        "commit={hex40}",
        "etag: {hex32}",
        'ETag: W/"{token}"',
        "integrity: sha512-{b64}",
        "request_id={uuid}",
        "image: registry.example.com:5000/app:v1@sha256:{hex64}",
        "docker://alpine:3.18@sha256:{hex64}",
        "<img src='data:image/png;base64,{b64}'>",
        "ssh-rsa {b64} bob@host",
        '"public_key": "{b64}"',
        "signature: {b64}",
        "cache key: {hex40}",
        "key {uuid} was deleted",
        '"_key": "{token}"',
        "https://cdn.example.com/{token}/app.js",
        "primary_key: {hex32}",
        "idempotency_key: {uuid}",
        "x-amz-id-2: {b64}",
    ],
    "names about secrets": [
        '"token_id": "{uuid}"',
        "api_key_id: {hex32}",
        '"access_key_hash": "{hex40}"',
        "nextPageToken: {token}",
        "page_token={token}",
        '"LockToken": "{uuid}"',
        "csrf_token: {token}",
        "tool list --next-token {token}",
        "secret_arn: arn:aws:secretsmanager:us-east-1:123456789012:secret:Db-a1b2c3",
        "password_updated_at: 2024-05-12T10:11",
        "private_key_path=/etc/ssl/private/server-2024.key",
        "secret_version: projects/1/secrets/my-secret/versions/5",
    ],
    "stand-ins": [
        "password: <your-password>",
        "password=changeme123",
        "secret: replace-with-a-long-random-string-32",
        "token = YOUR_TOKEN_HERE_1",
        "api_key: '{{{{ vault_key_1 }}}}'",
        "password=%DB_PASSWORD_1%",
        "password=@DB_PASS_1@",
        "access_token: ${{{{ secrets.GITHUB_TOKEN }}}}",
        "api_key='demo-api-key-12345'",
        "password: P@ssw0rd",
        "https://{{user}}:{{password}}@example.com",
        "mongodb://<username>:<password>@cluster0.mongodb.net/test",
        "ghp_" + "x" * 36,
        "AKIAIOSFODNN7" + "EXAMPLE",
        "sk-proj-" + "your-key-here-" + "0" * 20,
        "AIzaSy" + "X" * 33,
        "https://hooks.slack.com/services/T00000000/B00000000/" + "X" * 24,
        "Authorization: Bearer $ACCESS_TOKEN_1",
        "ftp://anonymous:anonymous@ftp.example.com",
    ],
    "code": [
        "token = module.set(value)",
        "token = tracing_v2_callback_var.set(cb)",
        'password = os.environ["DB_PASS_1"]',
        "const password = req.body.password1;",
        'secret = hashlib.sha256(b"x").hexdigest()',
        "key: NDArray[uint32]",
        "private_key: ed25519.Ed25519PrivateKey, x",
        "account_key: AuthAzureSandboxMountAccountKeyConfigAccountKey2",
        "def login(user, password=DEFAULT_PASSWORD_1): ...",
        "password = random_password.db1.result",
        "return b.token=c.set(d1),e?f.secret=g.h2:i.password=j.k1,l",
        "Signing key: ECDSA_P256_SHA256",
        "encryption key: aes-256-cbc-hmac-sha1",
        "pass_name = 'b2b_gemm_pass'",
        "r'(token|name|variable|body|case-body)',",
        f"if '{DASHES}BEGIN PRIVATE KEY{DASHES}' in text: raise ValueError",
    ],
    "prose": [
        "The key MySuperClassName2 maps to an object.",
        "S3 key uploads/2024/05/IMG_20240512_101112.jpg not found",
        "error: unexpected token: `StringLiteral42`",
        '{{"errors": {{"password": "PasswordTooShort8"}}}}',
        "reset it at www.example.com/auth/password-reset/token=?asfbuy3y2cdaqhvei",
        "Password1 and Password2 must match",
        f"It must start with {DASHES}BEGIN RSA PRIVATE KEY{DASHES} and end with {DASHES}END RSA PRIVATE KEY{DASHES}.",
    ],
}


@pytest.mark.parametrize("group", ORDINARY)
def test_ordinary_text_passes(group):
    """What stands in code, documents, logs and lock files is no secret, with whatever ids and digests are drawn."""
    for form in ORDINARY[group]:
        for _ in range(30):
            values = {
                "hex32": some(32, HEX), "hex40": some(40, HEX), "hex64": some(64, HEX), "uuid": uuid(),
                "token": some(22), "b64": digest(64),
            }  # fmt: skip
            text = form.format(**values)
            assert cut(text, check(text)) == [], text


def test_a_mention_of_a_private_key_does_not_hide_one():
    """Armour without a key in it is passed over, and the key behind it is still found."""
    text = f"Look for {DASHES}BEGIN PRIVATE KEY{DASHES} in files. " + "x " * 300 + pem()
    assert cut(text, check(text)) == [pem_of(text)]


def pem_of(text: str) -> str:
    return text[text.rindex(DASHES + "BEGIN") :]


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


@pytest.mark.parametrize("times", [1, 2, 3, 4, 79, 80])
def test_a_row_of_names_hides_no_value(times):
    """A name that could be the value of the name before it is a name still."""
    text = "password: " * times + "hunter2-Xy9!"
    assert cut(text, check(text)) == ["hunter2-Xy9!"]


def test_a_key_needs_its_armour_before_its_end():
    """What stands behind the end of a key that holds nothing does not make it one."""
    text = "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY----- then " + "abcd" * 8
    assert not check(text).findings
