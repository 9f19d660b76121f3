"""What the ``format`` of a text means, as patterns that are safely within it.

The engine's grammar is held to these, so they leave out what one validator takes and another does
not (the 29th of February, leap seconds, quoted mailboxes, addresses with a zone).
"""

from __future__ import annotations

_YEAR = "(?:19|20)[0-9]{2}"
_DATE = (
    f"{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,3})?"
_ZONE = r"(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])"
_LABEL = "[a-z0-9](?:[a-z0-9]{0,20}[a-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL}){{0,3}}\.[a-z]{{2,6}}"
_MAIL = rf"[A-Za-z0-9_]{{1,24}}(?:[.+-][A-Za-z0-9_]{{1,16}}){{0,2}}@{_HOST}"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}"
_IPV6 = "(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}"
_PATH = "(?:/[A-Za-z0-9_.~-]{1,32}){0,6}/?"
_QUERY = r"(?:\?[A-Za-z0-9_=&.-]{1,48})?"
_URI = f"https?://{_HOST}(?::[1-9][0-9]{{1,3}})?{_PATH}{_QUERY}"
_HEX = "[0-9a-f]"
_UUID = f"{_HEX}{{8}}-{_HEX}{{4}}-[1-5]{_HEX}{{3}}-[89ab]{_HEX}{{3}}-{_HEX}{{12}}"
_NUMBER = "[1-9][0-9]{0,2}"
_TIMES = f"T{_NUMBER}(?:H(?:{_NUMBER}M)?|M(?:{_NUMBER}S)?|S)"
_POINTER = "(?:/[A-Za-z0-9_-]{1,32}){0,6}"

PATTERNS = {
    "date": _DATE,
    "time": f"{_CLOCK}{_ZONE}",
    "date-time": f"{_DATE}T{_CLOCK}{_ZONE}",
    "duration": f"P(?:{_NUMBER}W|{_NUMBER}[YMD](?:{_TIMES})?|{_TIMES})",
    "email": _MAIL,
    "idn-email": _MAIL,
    "hostname": _HOST,
    "idn-hostname": _HOST,
    "ipv4": _IPV4,
    "ipv6": _IPV6,
    "uri": _URI,
    "iri": _URI,
    "uri-reference": f"(?:{_URI}|{_PATH})",
    "iri-reference": f"(?:{_URI}|{_PATH})",
    "uri-template": f"{_URI}(?:/\\{{[a-z_]{{1,24}}\\}})?",
    "uuid": _UUID,
    "json-pointer": _POINTER,
    "relative-json-pointer": f"[0-9]{_POINTER}",
    "regex": r"\^?[A-Za-z0-9_ -]{1,48}\$?",
}
"""What a validator may check. Every other ``format`` is a remark, as the standard has it."""

NATIVE = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"]
)
"""The formats that llguidance knows in every version since 1.0."""
