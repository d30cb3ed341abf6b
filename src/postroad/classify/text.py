"""Cleans the text of a server before it is matched: leaves the words that carry meaning."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

MAX_CHARACTERS: Final = 2_000
SENTENCE_END: Final = "|"

# Every pattern begins with a bounded start and has bounded repetitions, so that matching takes linear time.
_URL = re.compile(r"(?:https?|ftp|mailto):[^\s<>\"'()]{1,500}|www\.[^\s<>\"'()]{1,300}", re.IGNORECASE)
_BRACKETED = re.compile(r"<[^<>\s]{0,320}>|\[[^\[\]\s]{1,200}\]|\{[^{}\s]{1,200}\}")
_ADDRESS = re.compile(
    r"[^\s<>()\[\]:;,\"]{1,64}@(?:(?!\.\.)[^\s<>()\[\]:;,\"]){1,255}|\"[^\"\n]{1,62}\"@[^\s<>()\[\],;\"]{1,255}"
)
_QUOTED_WORD = re.compile(
    r"(?<!\w)(['\"`\u2018\u201c\u201e])[^\s'\"`\u2018\u2019\u201c\u201d]{1,64}['\"`\u2019\u201d\u201c](?!\w)"
)
"""A single word in quotation marks is a name: a local part, a mailbox, a command."""
_SENDMAIL = re.compile(r"(?:^|\s)[^\s.]{1,64}\.{3}(?=\s|$)")
"""A local part alone, as sendmail writes it: ``ada... User unknown``."""
_MICROSOFT = re.compile(
    r"\b(?:resolver|transport|storedrv|submission|cat|smtpsend|routing)(?:\.\w{1,60}){1,5}", re.IGNORECASE
)
_HOST = re.compile(
    r"(?<![\w.-])(?:[a-z0-9_-]{1,63}\.){1,8}(?:[a-z]{2,24}|xn--[a-z0-9-]{1,59})(?![\w-])\.?", re.IGNORECASE
)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w])")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE)
_STATUS = re.compile(r"(?<![\w.])#?[245]\.\d{1,3}\.\d{1,3}(?![\w.])")
_CODE = re.compile(r"(?:^|(?<=\s))[245]\d\d(?=[ \-]|$)")
_PHASE_NOTE = re.compile(
    r"\(?in reply to (?:end of )?(?:[a-z]{2,8}(?: from| to)?)(?: command)?\)?"
    r"|(?:smtp )?error from remote (?:mail )?server after [a-z]{2,12}(?: (?:from|to))?(?: command)?"
    r"|after (?:rcpt to|mail from|end of data|data)\b|>>> ?(?:rcpt to|mail from|data)\b:? ?",
    re.IGNORECASE,
)
_FIXED = re.compile(
    r"recipient address(?:es)? rejected ?:(?=\s*\w)|(?:undeliverable|unverified) address ?:(?=\s*\w)"
    r"|requested (?:mail )?action (?:not taken|aborted) ?:(?=\s*\w)"
    r"|host \S{1,255} (?:said|says) ?:|remote (?:host|server) (?:said|says) ?:|(?:smtp|lmtp);",
    re.IGNORECASE,
)
_FOOTER = re.compile(
    r"(?:for (?:more|further|additional) (?:information|info|details|help)"
    r"|for (?:assistance|help|an? explanation|explanation)"
    r"|if you (?:believe|feel|think) (?:that )?this"
    r"|learn more|more information (?:is|can|at)|weitere informationen|pour plus d|para más información)"
    r"[^.;|\n]{0,300}",
    re.IGNORECASE,
)
_ADVICE = re.compile(
    r"(?:please )?(?:check|verify|correct|double.?check)\b[^.;|\n]{0,100}"
    r"\btry (?:again|sending|resending|to resend)[^.;|\n]{0,60}",
    re.IGNORECASE,
)
"""Advice for a wrong address. "Try again" does not mean a temporary failure there."""
_BOILERPLATE = re.compile(
    r"\bdelivery status notification\b"
    r"|this (?:message|mail|e-?mail) was (?:created|generated) automatically[^.\n]{0,80}\.?|message headers follow\.?"
    r"|\breturn(?:ed|ing)?(?: (?:mail|message))? to (?:the )?sender\b"
    r"|a message that you (?:have )?sent could not be delivered to [^.\n]{0,80}\.?"
    r"|the following address(?:\(es\)|es)? failed:?"
    r"|the attachment contains the original mail headers\.?|this is the [^\n]{0,60}? at (?:host )?[\w.-]{1,255}",
    re.IGNORECASE,
)
_VERIFICATION_OF: Final = r"\bverification failed for <?"
_VERIFICATION = re.compile(_VERIFICATION_OF, re.IGNORECASE)
_VERIFIED_RECIPIENT = re.compile(r"\brecipient verify failed\b", re.IGNORECASE)
"""Exim reports the address that it could not verify, and then whether it is the sender or the recipient."""
_POSSESSIVE = re.compile(r"(?<=\w)['\u2019]s(?!\w)", re.IGNORECASE)
_APOSTROPHE = re.compile(r"(?<=\w)['\u2018\u2019\u02bc`\u00b4](?=\w)")
_ELISION = re.compile(r"(?<!\w)(?:[cdjlmnst]|qu|all|dall|dell|nell|sull|un)['\u2018\u2019](?=\w)", re.IGNORECASE)
"""An elided article or particle before its noun in French, Italian and Catalan: `l'adresse`."""
_E_MAIL = re.compile(r"\be[- \u2010\u2011]mail", re.IGNORECASE)
_EMPTY_BRACKETS = re.compile(r"\(\s*\)|<\s*>|\[\s*\]")
_END = re.compile(r"[.;:!?()\n\u2026\u3002\uff1b\uff1a\uff01\uff1f/|]+")
_OTHER = re.compile(r"[^\w|]+|_+")


def clean(text: str, recipient: str = "") -> str:
    """Return the words of a reply in lower case, with one space between words and ``|`` between sentences.

    Addresses, host names, URLs, IP addresses, identifiers in brackets, codes, notes about the SMTP phase, fixed
    prefixes and references to help pages are removed, because their words are not about the message.

    Args:
        text: Text of the server; characters after the first `MAX_CHARACTERS` are ignored.
        recipient: Recipient of the message. Its local part is removed if it is quoted alone.

    Returns:
        The cleaned text.
    """
    return _clean(text[:MAX_CHARACTERS], recipient)


@lru_cache(maxsize=8)  # One statement is cleaned several times in a row.
def _clean(text: str, recipient: str) -> str:
    text = unicodedata.normalize("NFKC", text)
    local = recipient.rpartition("@")[0]
    if _VERIFIED_RECIPIENT.search(text):
        text = _VERIFICATION.sub("", text)
    if local:
        text = re.sub(rf"{_VERIFICATION_OF}{re.escape(recipient)}(?![\w.])", "", text, flags=re.IGNORECASE)
        text = re.sub(rf"(['\"(]){re.escape(local)}(?=['\")])", r"\1 ", text, flags=re.IGNORECASE)
    text = _PHASE_NOTE.sub(" | ", text)
    text = _URL.sub(" | ", text)  # Before the footers, which would leave the end of a URL as words.
    text = _FIXED.sub(" | ", text)
    text = _BOILERPLATE.sub(" | ", text)
    text = _FOOTER.sub(" | ", text)
    text = _ADVICE.sub(" | ", text)
    text = _BRACKETED.sub(" ", text)
    text = _ADDRESS.sub(" ", text)
    text = _QUOTED_WORD.sub(" ", text)
    text = _SENDMAIL.sub(" ", text)
    text = _STATUS.sub(" ", text)
    text = _MICROSOFT.sub(lambda match: match[0].replace(".", " "), text)
    text = _IPV4.sub(" ", text)
    text = _IPV6.sub(" ", text)
    text = _HOST.sub(" ", text)
    text = _CODE.sub(" ", text)
    text = _E_MAIL.sub("email", text)
    text = _EMPTY_BRACKETS.sub(" ", text)
    text = _ELISION.sub(lambda match: match[0][:-1] + " ", text)
    text = _POSSESSIVE.sub("", text)
    text = _APOSTROPHE.sub("", text)
    text = _END.sub(" | ", text.casefold().replace("i\u0307", "i"))  # The Turkish capital I with a dot.
    return " ".join(_OTHER.sub(" ", text).split())


def words_for_all(text: str, recipient: str, status: str | None = None) -> str:
    """Return the words of a reply without the parts that differ between recipients and messages, for comparison.

    Args:
        text: Text of the server.
        recipient: Recipient of the message, whose parts are removed.
        status: Enhanced code, used if no words are left.

    Returns:
        The words, separated by spaces.
    """
    own = set(_OTHER.sub(" ", recipient.casefold()).split())
    words = [word for word in clean(text, recipient).split() if word.isalpha() and word not in own]
    return " ".join(words) or status or "no words"


def names_any(text: str, addresses: Sequence[str], *, but_not: str = "") -> bool:
    """Return whether a text contains one of the addresses, or the domain of one outside other addresses.

    Args:
        text: Text of the server.
        addresses: Addresses to search for.
        but_not: An address whose domain does not count.

    Returns:
        Whether the text contains one.
    """
    if not addresses:
        return False
    wanted = {address.casefold() for address in addresses}
    domains = {address.rpartition("@")[2] for address in wanted} - {but_not.rpartition("@")[2].casefold(), ""}
    rest = _BOILERPLATE.sub(" ", text[:MAX_CHARACTERS]).casefold()
    others = (match[0] for match in _ADDRESS.finditer(rest))
    if any(other.strip("'`=") in wanted for other in others):
        return True
    named = {match[0].rstrip(".") for match in _HOST.finditer(_ADDRESS.sub(" ", rest))}
    return not domains.isdisjoint(named)
