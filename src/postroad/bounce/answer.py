"""Tells what a person wrote from what is quoted, and how a program begins the subject of its answer."""

from __future__ import annotations

import re
from typing import Final

from postroad.bounce.tables import signs

MAX_QUOTE_INTRO: Final = 300
"""Characters of the line, or the lines, that introduce a quoted message."""

_ORIGINAL: Final = (
    "original|ursprüngliche|message d|mensaje|messaggio|mensagem|oorspronkelijk|opprinnelig|oprindelig|ursprungligt"
    "|alkuperäinen|oryginalna|původní|исходное|пересылаемое|forwarded|weitergeleitete|reply|antwort"
)
_SEPARATOR = re.compile(
    rf"^[ \t]{{0,20}}(?:-{{2,40}}[ \t]?(?:{_ORIGINAL})[^\n]{{0,80}}|_{{10,80}}|[-=*]{{20,80}}|-- ?|>.{{0,500}})$",
    re.IGNORECASE | re.MULTILINE,
)
"""A line that ends what the person wrote: the announcement of the original, a rule, a signature, a quotation."""

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
"""The header that Outlook puts above what it quotes."""

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


def own_words(text: str) -> str:
    """Return what the writer of an answer wrote: what comes before the first quoted line, signature or original.

    An answer below the quotation is kept: lines that are not quoted count wherever they are.
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
    """Return where the sentence that introduces a quotation begins: it may run over two lines."""
    previous = text.rfind("\n", 0, max(line_begin - 1, 0)) + 1
    if line_begin - previous <= MAX_QUOTE_INTRO and _INTRO_BEGINS.match(text[previous:line_begin]):
        return previous
    return line_begin


def is_answer(subject: str) -> bool:
    """Whether a subject is that of an answer or of a forwarded mail: what follows the prefix is somebody else's."""
    return _begins(subject, signs().subject["answers"])


def is_automatic(subject: str, text: str = "") -> bool:
    """Whether a subject begins as a program begins it: "Automatic reply: …", in the languages of the large systems.

    Words that people begin a subject with too, such as "Vacation", count if a colon follows, or if the text says that
    it is automatic or that its writer is away.

    Args:
        subject: The subject as it was given.
        text: What the writer wrote, in lower case.
    """
    if is_answer(subject):
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
    told = signs().body
    return any(phrase in text for kind in ("auto_reply", "automatic", "acknowledging") for phrase in told[kind])


def is_automatic_text(begins: str) -> bool:
    """Whether a text begins as programs write that say so in no header: one phrase of theirs, or two of anybody's."""
    told = signs().body
    if any(phrase in begins for phrase in told["automatic"]):
        return True
    return sum(phrase in begins for phrase in told["acknowledging"]) > 1


def is_receipt(subject: str) -> bool:
    """Whether a subject is that of an answer to an invitation, or of a receipt in plain text."""
    return _begins(subject, signs().subject["receipt"])


def is_receipt_text(begins: str) -> bool:
    """Return whether a text is that of a receipt: it says so, or it neither speaks for a person nor asks.

    Args:
        begins: What the writer wrote first, in lower case.
    """
    if any(phrase in begins for phrase in signs().receipt_text):
        return True
    return "?" not in begins and signs().personal_words.isdisjoint(_WORD.findall(begins))


_WORD = re.compile(r"\w{1,20}")


def _begins(subject: str, starts: tuple[str, ...]) -> bool:
    return subject.strip().lower().startswith(starts)
