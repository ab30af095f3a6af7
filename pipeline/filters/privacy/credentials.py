"""Find keys, tokens and passwords in a text, by the formats of their issuers.

A value with an issuer's prefix, such as hf_, is a match. A value without one must follow a word
such as `password`, and be as irregular as random characters are (Shannon entropy, bits/character).
Placeholders and examples from documentation are not matches.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

Found = tuple[str, str]  # kind, the text

PLACEHOLDER = re.compile(
    r"^(?:[<{$%\[(]|your|my[_-]|the[_-]|some|enter|insert|change|replace|redacted|removed|hidden"
    r"|placeholder|dummy|null|none|true|false)"
    r"|^(?:password|passwd|pass|pwd|secret|token|key)$"
    r"|example|x{4}|\*{3}|\.{3}|1234567|abcdef|[(){}\[\]]|^(?:os|env|process|self|config|settings"
    r"|args|request)\.",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Secret:
    """One kind of credential."""

    name: str
    # the pattern is tried only on texts that contain one of these in any case, to save time
    hints: tuple[str, ...]
    pattern: str  # its first group is the secret, or the whole match if it has no group
    entropy: float = 0.0  # smallest entropy of a secret, bits/character


SECRETS = (
    Secret(
        "private_key", ("private key",), r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
    ),
    Secret("aws_access_key", ("akia", "asia"), r"\b((?:AKIA|ASIA)[A-Z2-7]{16})\b"),
    Secret(
        "aws_secret_key",
        ("aws", "secret"),
        r"(?i:aws|secret)\w{0,20}[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
        r"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        4.0,
    ),
    Secret(
        "github_token",
        ("gh", "github_pat_"),
        r"\b(gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{22,255})\b",
    ),
    Secret("gitlab_token", ("glpat-",), r"\b(glpat-[\w-]{20,})"),
    Secret("slack_token", ("xox",), r"\b(xox[abeoprs]-[\w-]{10,})"),
    Secret(
        "slack_webhook",
        ("hooks.slack.com",),
        r"hooks\.slack\.com/services/(T\w{6,}/B\w{6,}/\w{16,})",
    ),
    Secret("stripe_key", ("_live_", "_test_"), r"\b([sr]k_(?:live|test)_[A-Za-z0-9]{16,})\b"),
    Secret("google_api_key", ("aiza",), r"\b(AIza[\w-]{35})(?![\w-])"),
    Secret("google_oauth", ("ya29.",), r"\b(ya29\.[\w-]{20,})"),
    Secret("anthropic_key", ("sk-ant-",), r"\b(sk-ant-[\w-]{20,})"),
    Secret(
        "openai_key",
        ("sk-",),
        r"(?<![\w-])(sk-(?!ant-)(?:(?:proj|svcacct|admin|None)-)?[\w-]{20,})",
        3.5,
    ),
    Secret("huggingface_token", ("hf_",), r"\b(hf_[A-Za-z0-9]{30,})\b", 3.5),
    Secret("npm_token", ("npm_",), r"\b(npm_[A-Za-z0-9]{36})\b"),
    Secret("pypi_token", ("pypi-",), r"\b(pypi-AgE[\w-]{50,})"),
    Secret("sendgrid_key", ("sg.",), r"\b(SG\.[\w-]{16,32}\.[\w-]{16,64})"),
    Secret("twilio_key", ("sk",), r"\b(SK[0-9a-f]{32})\b", 3.0),
    Secret("mailgun_key", ("key-",), r"\b(key-[0-9a-f]{32})\b", 3.0),
    Secret("telegram_token", (":aa",), r"(?<!\w)(\d{8,10}:AA[\w-]{33})(?![\w-])"),
    Secret("azure_storage_key", ("accountkey",), r"AccountKey=([A-Za-z0-9+/]{86}==)"),
    Secret("jwt", ("eyj",), r"(?<![\w-])(eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"),
    Secret(
        "password_in_url",
        ("://",),
        r"(?<![\w+.-])[a-zA-Z][\w+.-]{1,20}://[^\s/:@]{1,64}:([^\s/@]{3,64})@",
        2.0,
    ),
    Secret(
        "assigned_key",
        ("key", "secret", "token", "auth"),
        r"(?i:(?:api|access|client|auth|private|signing|encryption)?[_ -]?(?:key|secret|token"
        r"|authorization))[\"']?"
        r"\s{0,3}(?:[:=]|is|bearer)\s{0,3}(?i:bearer\s)?[\"'`]?"
        r"([\w+/.~-]{20,128}={0,2})(?![\w+/.~(-])",
        3.7,
    ),
    Secret(
        "password",
        ("passw", "pwd", "passphrase"),
        r"(?i:\b\w{0,20}(?:password|passwd|pwd|passphrase))[\"']?\s{0,3}(?:[:=]"
        r"|is:?)\s{0,3}[\"'`]?([^\s\"'`,;<>]{8,64})",
        2.5,
    ),
)
PATTERNS = [(secret, re.compile(secret.pattern)) for secret in SECRETS]
# ordinary words may match these patterns, so a secret must contain both letters and digits
MIXED = {"assigned_key", "password", "openai_key"}


def find(text: str) -> Iterator[Found]:
    """Yield the credentials in a text."""
    lower = text.lower()
    for secret, pattern in PATTERNS:
        if not any(hint in lower for hint in secret.hints):
            continue
        for match in pattern.finditer(text):
            value = match.group(1) if pattern.groups else match.group()
            if _is_secret(secret, value):
                yield secret.name, value


def entropy(text: str) -> float:
    """Return the Shannon entropy of the characters in bits/character.

    It is 0 for "aaaa", and about 4.5 for 32 random characters of base64.
    """
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)


def _is_secret(secret: Secret, value: str) -> bool:
    if PLACEHOLDER.search(value) or (secret.entropy and entropy(value) < secret.entropy):
        return False
    if secret.name not in MIXED:
        return True
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value))
