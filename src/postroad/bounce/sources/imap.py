"""A mailbox on an IMAP server as a source (RFC 3501): found by UID, and put aside on the server itself.

What is taken in gets a keyword, moves to another mailbox, or is deleted, as the settings say. The server remembers, so
there is no place here to get lost, whatever happens to this machine. Blocking: it is used from a thread.
"""

from __future__ import annotations

import imaplib
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from postroad.bounce.kept import MAX_PAGE_BYTES, kept_bytes
from postroad.bounce.mime import MAX_MESSAGE_BYTES
from postroad.bounce.sources.fetched import Fetched
from postroad.errors import ConfigError, UnavailableError
from postroad.settings import SourceSettings, TlsMode

TAKEN = "$PostroadTaken"
"""Keyword (RFC 3501 §2.3.2) of what was taken in."""

_WINDOW = 5_000
"""Messages that one search looks at: imaplib reads no line of more than a million octets."""

IDLE_S = 600.0
"""RFC 2177: no longer than 29 minutes, or the server may log out whoever is idle. Routers forget sooner."""
_SLICE_S = 1.0
"""How long one is told to stop and does not hear it."""
_IDLE_TAG = b"IDLE1"
_MAX_IDLE_BYTES = 65_536

_UID = re.compile(rb"\bUID (\d+)")
# RFC 5530: these pass by themselves. Anything else that a login is refused with is somebody's to mend.
_PASSES = re.compile(r"\[(UNAVAILABLE|INUSE|LIMIT|SERVERBUG|OVERQUOTA)\]", re.IGNORECASE)
_EXISTS = re.compile(rb"^\* \d+ EXISTS\r?$", re.MULTILINE | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ImapMailbox:
    """One mailbox, selected. Its keys are UIDs, which hold for as long as it is."""

    def __init__(self, settings: SourceSettings) -> None:
        """Connect, log in, and look for what is waiting. Raises ConfigError, UnavailableError."""
        self._settings = settings
        self._where = settings.where
        with self._failing():
            self._imap = _connect(settings)
        try:
            with self._failing():
                self._log_in()
                self._capabilities = self._ask_capabilities()
                exists = self._select()
                self._waiting = self._search(exists)
        except BaseException:
            self.close()
            raise

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def fetch(self, limit: int) -> list[Fetched]:
        """As `Source.fetch`; a message is read as far as it is ever looked at, and does not become *seen* by it."""
        uids = [self._waiting.pop() for _ in range(min(limit, len(self._waiting)))]
        if not uids:
            return []
        with self._failing():
            data = self._uid("FETCH", _set(uids), f"(UID BODY.PEEK[]<0.{MAX_MESSAGE_BYTES}>)")
            beginnings = dict(_bodies(data))
            found: list[Fetched] = []
            left = MAX_PAGE_BYTES
            while uids and left > 0:
                uid = uids.pop(0)
                raw = self._whole(uid, beginnings.pop(uid, None))
                found.append(Fetched(str(uid), raw, "" if raw is not None else "the server gave no text"))
                left -= len(raw or b"")
        self._waiting.extend(reversed(uids))
        return found

    def _whole(self, uid: int, beginning: bytes | None) -> bytes | None:
        """What is kept of a message, of which this is the beginning."""
        more = kept_bytes(beginning or b"") - MAX_MESSAGE_BYTES
        if beginning is None or more == 0:
            return beginning
        data = self._uid("FETCH", str(uid), f"(UID BODY.PEEK[]<{MAX_MESSAGE_BYTES}.{more}>)")
        return beginning + dict(_bodies(data)).get(uid, b"")

    def acknowledge(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        uids, settings = _set(int(key) for key in keys), self._settings
        with self._failing():
            if settings.move_to is not None and "MOVE" in self._capabilities:
                self._uid("MOVE", uids, _quoted(settings.move_to))
                return
            if settings.move_to is None and not settings.delete:
                self._uid("STORE", uids, "+FLAGS.SILENT", f"({TAKEN})")
                return
            if settings.move_to is not None:
                self._uid("COPY", uids, _quoted(settings.move_to))
            self._uid("STORE", uids, "+FLAGS.SILENT", "(\\Deleted)")
            # Without UIDPLUS (RFC 4315) an EXPUNGE would take what others deleted: it stays, deleted, and is not found.
            if "UIDPLUS" in self._capabilities:
                self._uid("EXPUNGE", uids)

    @property
    def idles(self) -> bool:
        """Whether the server says by itself when mail arrives (RFC 2177)."""
        return "IDLE" in self._capabilities

    def idle(self, told: threading.Event, *, idle_s: float = IDLE_S) -> bool:
        """Wait until the server has news, for so long at the most, or until told to stop. Returns whether it has.

        Of several commands it is the only one: what arrives is looked at by `look_again`. Raises UnavailableError.
        """
        if self._imap.response("EXISTS")[1] != [None]:
            return True  # It was said with an answer since the last look, and is not said again.
        with self._failing():
            # Read past imaplib, whose buffer hides from a wait what came in one packet with the answer before.
            self._imap.send(_IDLE_TAG + b" IDLE\r\n")
            said = self._read_until(b"", lambda lines: any(line.startswith((b"+", _IDLE_TAG)) for line in lines))
            if _line(said, _IDLE_TAG):
                raise UnavailableError(f"{self._where}: the server refused IDLE")
            said, news = self._listen(said, told, idle_s)
            self._imap.send(b"DONE\r\n")
            self._read_until(said, lambda lines: any(line.startswith(_IDLE_TAG) for line in lines))
        return news

    def look_again(self) -> None:
        """Look for what is waiting now; `fetch` hands it out. Raises UnavailableError."""
        with self._failing():
            self._waiting = self._search(self._select())

    def _listen(self, said: bytes, told: threading.Event, idle_s: float) -> tuple[bytes, bool]:
        until_s = time.monotonic() + idle_s
        while not (news := _EXISTS.search(said) is not None) and not told.is_set() and time.monotonic() < until_s:
            try:
                said = (said + self._receive(_SLICE_S))[-_MAX_IDLE_BYTES:]
            except TimeoutError:
                continue
        return said, news

    def _read_until(self, said: bytes, done: Callable[[list[bytes]], bool]) -> bytes:
        until_s = time.monotonic() + self._settings.timeout_ms / 1000
        while not done(said.split(b"\r\n")[:-1]):
            left_s = until_s - time.monotonic()
            if left_s <= 0 or len(said) > _MAX_IDLE_BYTES:
                raise TimeoutError("no answer to IDLE")
            said += self._receive(left_s)
        return said

    def _receive(self, within_s: float) -> bytes:
        connection = self._imap.socket()
        before_s = connection.gettimeout()
        connection.settimeout(within_s)
        try:
            received: bytes = connection.recv(4096)
        finally:
            connection.settimeout(before_s)
        if not received:
            raise ConnectionResetError("the server closed the connection")
        return received

    def close(self) -> None:
        with suppress(OSError, imaplib.IMAP4.error):
            self._imap.logout()
        with suppress(OSError):
            self._imap.shutdown()  # Where it could not log out, the socket is still open.

    def _log_in(self) -> None:
        user, password = self._settings.username or "", self._settings.password
        if password is None:
            raise ConfigError(
                "there is no password",
                where=self._where,
                remedy="Set it by the environment: POSTROAD_BOUNCE__SOURCES__NAME__PASSWORD of a source, "
                "POSTROAD_CANARY__MAILBOX__PASSWORD of the mailbox for canaries.",
            )
        secret = password.get_secret_value()
        try:
            if "AUTH=PLAIN" in self._ask_capabilities():
                # RFC 4616: any character but NUL, in UTF-8.
                self._imap.authenticate("PLAIN", lambda _: f"\0{user}\0{secret}".encode())
            elif _CONTROL.search(user + secret) or not (user + secret).isascii():
                raise ConfigError("this server's LOGIN takes ASCII only, and the password is not", where=self._where)
            else:
                self._imap.login(user, secret)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            said = _said(error)
            if _PASSES.search(said):
                raise UnavailableError(f"{self._where}: no login just now: {said}") from None
            raise ConfigError(
                f"the login was refused: {said}", where=self._where, remedy="Mend username or password."
            ) from None

    def _ask_capabilities(self) -> frozenset[str]:
        # Others may hold after a login (RFC 3501 §6.1.1).
        _, data = self._imap.capability()
        return frozenset(b" ".join(line for line in data if isinstance(line, bytes)).decode("ascii", "replace").split())

    def _select(self) -> int:
        status, data = self._imap.select(_quoted(self._settings.mailbox))
        if status != "OK":
            raise ConfigError(f"the mailbox cannot be opened: {_text(data)}", where=self._where)
        self._imap.response("EXISTS")  # Forgotten, so that `idle` sees a later one.
        flags = _text(self._imap.response("PERMANENTFLAGS")[1])
        needs_keyword = self._settings.move_to is None and not self._settings.delete
        if needs_keyword and "\\*" not in flags and TAKEN.lower() not in flags.lower():
            raise ConfigError(
                "this mailbox takes no keywords, so that what was taken in cannot be marked",
                where=self._where,
                remedy="Set move_to, or delete.",
            )
        return int(data[0] or b"0")

    def _search(self, exists: int) -> list[int]:
        """UIDs that are waiting, the last first."""
        found: list[int] = []
        for first in range(1, exists + 1, _WINDOW):
            window = f"{first}:{min(first + _WINDOW - 1, exists)}"
            data = self._uid("SEARCH", window, "UNDELETED", "UNKEYWORD", TAKEN)
            found.extend(int(uid) for line in data if isinstance(line, bytes) for uid in line.split())
        return sorted(set(found), reverse=True)

    def _uid(self, command: str, *arguments: str) -> list[Any]:
        status, data = self._imap.uid(command, *arguments)
        if status != "OK":
            raise UnavailableError(f"{self._where}: the server refused {command}: {_text(data)}")
        return data

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """Say what failed: a server that is away, hangs or speaks wrongly may be tried again."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(
                f"its certificate is not to be trusted: {error.verify_message}",
                where=self._where,
                remedy="Mend host, or name the authority with ca_file.",
            ) from None
        except (OSError, imaplib.IMAP4.error) as error:
            raise UnavailableError(f"{self._where}: {_said(error)}") from None


def _connect(settings: SourceSettings) -> imaplib.IMAP4:
    host, timeout_s = settings.host or "", settings.timeout_ms / 1000
    if settings.tls is TlsMode.IMPLICIT:
        return imaplib.IMAP4_SSL(host, settings.port or 993, ssl_context=_tls_context(settings), timeout=timeout_s)
    imap = imaplib.IMAP4(host, settings.port or 143, timeout=timeout_s)
    if settings.tls is TlsMode.STARTTLS:
        try:
            imap.starttls(_tls_context(settings))
        except BaseException:
            imap.shutdown()
            raise
    return imap


def _tls_context(settings: SourceSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file cannot be read: {error}", where=str(settings.ca_file)) from None


def _line(said: bytes, start: bytes) -> bool:
    return any(line.startswith(start) for line in said.split(b"\r\n"))


def _bodies(data: Sequence[Any]) -> Iterator[tuple[int, bytes]]:
    """UIDs and texts of a FETCH. The UID is before the text or behind it; other messages' flags may be between."""
    for number, part in enumerate(data):
        if not isinstance(part, tuple) or b"BODY[" not in part[0]:
            continue
        behind = data[number + 1] if number + 1 < len(data) and isinstance(data[number + 1], bytes) else b""
        found = _UID.search(part[0]) or _UID.search(behind)
        if found is not None:
            yield int(found[1]), part[1]


def _set(uids: Sequence[int] | Iterator[int]) -> str:
    return ",".join(str(uid) for uid in uids)


def _quoted(mailbox: str) -> str:
    escaped = mailbox.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(data: Sequence[Any]) -> str:
    return " ".join(part.decode("utf-8", "replace") for part in data if isinstance(part, bytes))


def _said(error: BaseException) -> str:
    argument = error.args[-1] if error.args else ""
    return argument.decode("utf-8", "replace") if isinstance(argument, bytes) else str(argument) or type(error).__name__
