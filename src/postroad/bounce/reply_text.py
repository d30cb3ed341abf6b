"""Separates the text of a reply from quoted text, and recognizes subjects and texts of automatic replies."""

from __future__ import annotations

import re
from typing import Final

from postroad.bounce.tables import signs

MAX_QUOTE_INTRO: Final = 300
"""Maximum characters of the introduction of a quoted message."""

_ORIGINAL: Final = (
    "original|ursprüngliche|message d|mensaje|messaggio|mensagem|oorspronkelijk|opprinnelig|oprindelig|ursprungligt"
    "|alkuperäinen|oryginalna|původní|исходное|пересылаемое|forwarded|weitergeleitete|reply|antwort"
)
_SEPARATOR = re.compile(
    rf"^[ \t]{{0,20}}(?:-{{2,40}}[ \t]?(?:{_ORIGINAL})[^\n]{{0,80}}|_{{10,80}}|[-=*]{{20,80}}|-- ?|>.{{0,500}})$",
    re.IGNORECASE | re.MULTILINE,
)
"""A line that ends the text of a reply: the announcement of the original, a rule, a signature or a quotation."""

_FROM: Final = "from|von|de|da|van|från|fra|lähettäjä|od|от|від|gönderen|kimden|差出人|发件人|寄件者|보낸 사람"
_SENT: Final = (
    "sent|date|gesendet|datum|envoyé|enviado|fecha|inviato|data|verzonden|skickat|sendt|lähetetty|wysłano|odesláno"
    "|отправлено|дата|gönderildi|tarih|送信日時|发送时间|寄件日期|보낸 날짜|to|an|à|para|a"
)
_FIELD = re.compile(
    rf"^[ \t*]{{0,20}}(?:{_FROM})[ \t]?\*?[:\uff1a][^\n]{{0,400}}\n(?:[^\n]{{0,400}}\n){{0,2}}?"
    rf"[ \t*]{{0,20}}(?:{_SENT})[ \t]?\*?[:\uff1a]",
    re.IGNORECASE | re.MULTILINE,
)
"""The header that Outlook inserts before quoted text."""

_WROTE_WORDS: Final = (
    r"wrote|schrieb[^\n:]{0,120}|a écrit|a ecrit|écrit|escribió|escribio|ha scritto|scrive|escreveu"
    r"|schreef[^\n:]{0,120}|skrev[^\n:]{0,120}|kirjoitti|napisał\(?a?\)?|napsala?|napísala?|írta|a scris"
    r"|написал\(?а?\)?|пишет|написала|έγραψε|yazdı|şunu yazdı|写道|寫道|のメッセージ|さんは書きました|님이 작성"
    r"|đã viết|เขียนว่า|menulis|כתב/?ה?|كتب"
)
_WROTE = re.compile(rf"(?:{_WROTE_WORDS})[ \t]{{0,20}}[:\uff1a]?[ \t]{{0,20}}$", re.IGNORECASE | re.MULTILINE)
_INTRO_BEGINS = re.compile(
    r"[ \t]{0,20}(?:(?:on|am|le|el|il|em|op|den|på|dnia|w dniu|dne|dňa|в|tarihinde|vào|pada)\b|\d{1,4}[./年-]|<|\""
    r"|\w{2,12},? \d|[^\n<]{0,80}<[^\n>]{3,200}>)",
    re.IGNORECASE,
)


def strip_quoted_text(text: str) -> str:
    """Return the text of a reply without quotations: the text before the first quoted line, signature or original.

    If a reply begins with the quotation, the result is every line that is not quoted.
    """
    cut = len(text)
    for pattern in (_FIELD, _WROTE):
        match = pattern.search(text)
        if match is not None:
            begin = text.rfind("\n", 0, match.start()) + 1
            if pattern is _WROTE:
                begin = _intro_begin(text, begin)
            cut = min(cut, begin)
    head = text[:cut]
    match = _SEPARATOR.search(head)
    top = head[: match.start()] if match is not None else head
    if top.strip():
        return top
    lines = [line for line in text.split("\n") if line.strip() and not line.lstrip().startswith(">")]
    return "\n".join(line for line in lines if not _WROTE.search(line))


def _intro_begin(text: str, line_begin: int) -> int:
    """Return the offset of the sentence that introduces a quotation. The sentence may have two lines."""
    previous = text.rfind("\n", 0, max(line_begin - 1, 0)) + 1
    if line_begin - previous <= MAX_QUOTE_INTRO and _INTRO_BEGINS.match(text[previous:line_begin]):
        return previous
    return line_begin


def is_reply_subject(subject: str) -> bool:
    """Return whether a subject is that of a reply or of a forwarded mail."""
    return _begins(subject, signs().subject["answers"])


def is_auto_reply_subject(subject: str, text: str = "") -> bool:
    """Return whether a subject is that of an automatic reply: "Automatic reply: …", in many languages.

    People also begin a subject with words such as "Vacation". These count if a colon follows, or if the text has a
    phrase of an automatic reply or of an absence.

    Args:
        subject: The decoded subject.
        text: Text of the mail, in lower case.
    """
    if is_reply_subject(subject):
        return False
    titles = signs().subject
    bare = subject.strip().lower().lstrip(" \t[(*#")
    if _begins(bare, titles["auto_reply"]) or any(words in bare[:120] for words in titles["absent_person"]):
        return True
    start = max((words for words in titles["auto_reply_words"] if bare.startswith(words)), key=len, default=None)
    if start is None:
        return False
    return _PREFIX_ENDS.match(bare, len(start)) is not None or _says_automatic(text)


_PREFIX_ENDS = re.compile(r"[^\W\d]{0,12}\s?[:\uff1a]")


def _says_automatic(text: str) -> bool:
    phrases = signs().body
    return any(phrase in text for kind in ("auto_reply", "automatic", "acknowledging") for phrase in phrases[kind])


def is_auto_reply_text(beginning: str) -> bool:
    """Return whether a text is that of an automatic reply without a header that marks it.

    One phrase that only programs write is enough. Of phrases that people also write, two are needed.

    Args:
        beginning: First characters of the text, in lower case.
    """
    phrases = signs().body
    if any(phrase in beginning for phrase in phrases["automatic"]):
        return True
    return sum(phrase in beginning for phrase in phrases["acknowledging"]) > 1


def is_receipt_subject(subject: str) -> bool:
    """Return whether a subject is that of a reply to an invitation, or of a plain-text receipt."""
    return _begins(subject, signs().subject["receipt"])


def is_receipt_text(beginning: str) -> bool:
    """Return whether a text is that of a receipt.

    It has a phrase of receipts, or it has neither a question mark nor words of a person, such as "I" and "you".

    Args:
        beginning: First characters of the text, in lower case.
    """
    if any(phrase in beginning for phrase in signs().receipt_text):
        return True
    return "?" not in beginning and signs().personal_words.isdisjoint(_WORD.findall(beginning))


_WORD = re.compile(r"\w{1,20}")


def _begins(subject: str, starts: tuple[str, ...]) -> bool:
    return subject.strip().lower().startswith(starts)
