"""Keep keys and passwords out of printed and written text.

`hide` learns a secret; `redacted` takes it out of a text. The console redacts every line, the model
client what a server says, and the runner the config that a run folder stores.
"""

import base64
import re
from typing import Any
from urllib.parse import quote, unquote

HIDDEN = "***"
SHORTEST = 4  # characters; hiding a shorter secret would also hide parts of ordinary words
# "Authorization: Bearer abc", also in JSON or Python's notation, and "Basic dXNlcjpwYXNz"
HEADER = re.compile(
    r"((?:authorization|api[-_ ]?key)[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic|token)\s+)?"
    r"|\b(?:bearer|basic)\s+(?=[\w.~+/=-]{8})(?=[\w.~+/=-]*(?-i:[A-Z\d=])))[\w.~+/=-]+",
    re.IGNORECASE,
)
LOGIN = re.compile(r"(?<=://)[^\s/?#\"']*@")
# in a message: also a password with a slash, which should have been percent-encoded
ANY_LOGIN = re.compile(r"(?<=://)(?:[^\s/@:\"']*:[^\s\"']*|[^\s/?#\"']*)@")
_secrets: set[str] = set()


def hide(secret: str | None) -> None:
    """Hide this secret in every text from now on: as it is, in URLs and in Base64."""
    if not secret or len(secret) < SHORTEST:
        return
    encoded = base64.b64encode(secret.encode()).decode()
    _secrets.update({secret, quote(secret, safe=""), unquote(secret), encoded})


def hide_login(url: str) -> None:
    """Hide the user's password of a URL such as https://user:password@host/v1."""
    match = LOGIN.search(url)
    login = match.group()[:-1] if match else ""
    hide(login)
    hide(unquote(login))
    hide(login.partition(":")[2])


def redacted(text: str) -> str:
    """Return the text with stars in place of keys, passwords and authorization headers."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = ANY_LOGIN.sub(f"{HIDDEN}@", text)
    return HEADER.sub(rf"\g<1>{HIDDEN}", text)


def without_logins(value: Any) -> Any:
    """Return JSON data whose URLs have no user and no password, for a run folder."""
    if isinstance(value, dict):
        return {
            key: ANY_LOGIN.sub("", part)
            if key == "base_url" and isinstance(part, str)
            else without_logins(part)
            for key, part in value.items()
        }
    if isinstance(value, list):
        return [without_logins(part) for part in value]
    return LOGIN.sub("", value) if isinstance(value, str) else value
