"""URIs without secrets, as they may be stored, shown and sent.

User information (`user:password@`), query and fragment are removed, because they may contain passwords, tokens and
signatures.  Only URIs that name a host are changed: `models:/…`, `runs:/…`, `sqlite:///…` and paths stay as they are.
"""

from __future__ import annotations

import re

CONTAINERS = ("wasb", "wasbs", "abfs", "abfss", "r2")  # the part before the @ names a container, not a user
PROFILES = ("models", "runs", "dbfs")  # the part before @databricks is the name of a profile
HIDDEN = "…@"  # replaces user information that is not valid, so that the rest is not taken for a host

_SCHEME = r"(?<![\w+.-])[A-Za-z][\w+.-]*://"
_PARAMETER = r"[?#][\w.~%+-]+="  # a glob pattern may contain a ? too
_IN_TEXT = re.compile(rf"({_SCHEME})((?:(?!{_SCHEME}|{_PARAMETER})[^\s'\"<>])*(?:{_PARAMETER}[^\s'\"<>]*)?)")
_PATH_WITH_QUERY = re.compile(rf"(?<![^\s'\"])(/[^\s?#'\"<>]*){_PARAMETER}[^\s'\"<>]*")  # in messages of urllib3
_ONE = re.compile(r"([A-Za-z][\w+.-]*://)([^/].*)", re.DOTALL)
_ANY_QUERY = re.compile(r"[?#].*", re.DOTALL)
_NAMED_QUERY = re.compile(rf"{_PARAMETER}.*", re.DOTALL)
_USER = re.compile(r"([\w.~!$&'()*+,;=:%-]*)@(?=[^/?#\\@]*(?:[/?#]|$))", re.ASCII)  # source: RFC 3986
_DATABASE = re.compile(r"(?:postgres|mysql|mariadb|mssql|oracle)")  # SQLAlchemy allows any character in a password


def without_secrets(uri: str) -> str:
    """`uri` without user information, query and fragment."""
    match = _ONE.fullmatch(uri)
    return uri if match is None else match[1] + _ANY_QUERY.sub("", _without_user(match[1], match[2]))


def without_user(uri: str) -> str:
    """`uri` without user information if that is valid (RFC 3986), else unchanged: the host is always the same."""
    match = _ONE.fullmatch(uri)
    if match is None or (user := _USER.match(match[2])) is None:
        return uri
    rest = match[2][user.end() :]
    return match[1] + _kept(match[1], user[1], _authority(rest)) + rest


def is_bucket(name: str) -> bool:
    """Whether `name`, the host of an `s3://` URI, can be a bucket or an access point's ARN: it has no credentials."""
    return bool(name) and "@" not in name and (":" not in name or name.startswith("arn:"))


def redacted(text: str) -> str:
    """`text` with the secrets removed from every URI in it, in linear time.

    A query is only removed if it belongs to an HTTP URL or has the form `?name=value`.
    """
    if "://" in text:
        text = _IN_TEXT.sub(lambda match: match[1] + _shown(match[1], match[2]), text)
    return _PATH_WITH_QUERY.sub(r"\1", text) if "?" in text else text


def _shown(scheme: str, rest: str) -> str:
    query = _ANY_QUERY if scheme.lower() in ("http://", "https://") else _NAMED_QUERY
    visible = _without_user(scheme, rest)
    shown = query.sub("", visible)
    return shown if shown == visible else shown + visible[len(visible.rstrip(").,;:]}")) :]


def _without_user(scheme: str, rest: str) -> str:
    """What follows `scheme` in a URI, without the user information."""
    authority = _authority(rest)
    user, at, host = authority.rpartition("@")
    if at and not user.endswith(HIDDEN[0]):
        return _kept(scheme, user, host) + rest[len(user) + 1 :]
    name, _, port = authority.partition(":")
    odd = "[" not in name and ((port and not port.isdigit()) or _DATABASE.match(scheme.lower()))
    return HIDDEN + rest.rpartition("@")[2] if odd and "@" in rest else rest


def _authority(rest: str) -> str:
    return re.split(r"[/?#\\]", rest, maxsplit=1)[0]


def _kept(scheme: str, user: str, host: str) -> str:
    """The part before the host that is a name rather than a user, with its @; else an empty string."""
    scheme = scheme.lower().removesuffix("://")
    if scheme in PROFILES and host == "databricks":
        return f"{user}@"
    return f"{user.partition(':')[0]}@" if scheme in CONTAINERS else ""
