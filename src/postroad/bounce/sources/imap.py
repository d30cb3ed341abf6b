"""Reads an IMAP mailbox as a source (RFC 3501): finds mails by UID, and acknowledges them on the server.

An acknowledged mail gets a keyword, moves to another mailbox, or is deleted, according to the settings. The state is on
the server only, so it does not depend on this machine. Blocking: use it from a thread.
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

from postroad.bounce.mime import MAX_MESSAGE_BYTES
from postroad.bounce.sources.source import FetchedMail
from postroad.bounce.truncation import MAX_PAGE_BYTES, truncated_length
from postroad.errors import ConfigError, UnavailableError
from postroad.settings import SourceSettings, TlsMode

TAKEN = "$PostroadTaken"
"""Keyword (RFC 3501 §2.3.2) of acknowledged mails."""

_WINDOW = 5_000
"""Messages of one search: imaplib rejects lines longer than a million octets."""

IDLE_S = 600.0
"""Duration of one IDLE. RFC 2177: at most 29 minutes, because the server may log out an idle client.

Routers drop idle connections sooner."""
_SLICE_S = 1.0
"""Maximum delay before a request to stop takes effect."""
_IDLE_TAG = b"IDLE1"
_MAX_IDLE_BYTES = 65_536

_UID = re.compile(rb"\bUID (\d+)")
# Response codes of temporary failures (RFC 5530). Any other login failure needs an operator.
_TEMPORARY = re.compile(r"\[(UNAVAILABLE|INUSE|LIMIT|SERVERBUG|OVERQUOTA)\]", re.IGNORECASE)
_EXISTS = re.compile(rb"^\* \d+ EXISTS\r?$", re.MULTILINE | re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ImapMailbox:
    """One selected mailbox. Its keys are UIDs, which are valid while it is open."""

    def __init__(self, settings: SourceSettings) -> None:
        """Connect, log in, and search for waiting mails. Raises ConfigError, UnavailableError."""
        self._settings = settings
        self._where = settings.where
        with self._translated_errors():
            self._imap = _connect(settings)
        try:
            with self._translated_errors():
                self._log_in()
                self._capabilities = self._ask_capabilities()
                exists = self._select()
                self._waiting = self._search(exists)
        except BaseException:
            self.close()
            raise

    @property
    def waiting(self) -> int:
        """Number of mails that were not returned yet."""
        return len(self._waiting)

    def fetch(self, limit: int) -> list[FetchedMail]:
        """Return the next mails, truncated, at most ``limit`` and about MAX_PAGE_BYTES. Does not set *seen*."""
        uids = [self._waiting.pop() for _ in range(min(limit, len(self._waiting)))]
        if not uids:
            return []
        with self._translated_errors():
            data = self._uid("FETCH", _set(uids), f"(UID BODY.PEEK[]<0.{MAX_MESSAGE_BYTES}>)")
            beginnings = dict(_bodies(data))
            page: list[FetchedMail] = []
            left_bytes = MAX_PAGE_BYTES
            while uids and left_bytes > 0:
                uid = uids.pop(0)
                raw = self._complete(uid, beginnings.pop(uid, None))
                page.append(FetchedMail(str(uid), raw, "" if raw is not None else "the server returned no text"))
                left_bytes -= len(raw or b"")
        self._waiting.extend(reversed(uids))
        return page

    def _complete(self, uid: int, beginning: bytes | None) -> bytes | None:
        """Fetch the rest of a message, up to the truncated length."""
        rest_bytes = truncated_length(beginning or b"") - MAX_MESSAGE_BYTES
        if beginning is None or rest_bytes == 0:
            return beginning
        data = self._uid("FETCH", str(uid), f"(UID BODY.PEEK[]<{MAX_MESSAGE_BYTES}.{rest_bytes}>)")
        return beginning + dict(_bodies(data)).get(uid, b"")

    def acknowledge(self, keys: Sequence[str]) -> None:
        """Mark, move or delete mails. Idempotent. Raises UnavailableError."""
        if not keys:
            return
        uids, settings = _set(int(key) for key in keys), self._settings
        with self._translated_errors():
            if settings.move_to is not None and "MOVE" in self._capabilities:
                self._uid("MOVE", uids, _quoted(settings.move_to))
                return
            if settings.move_to is None and not settings.delete:
                self._uid("STORE", uids, "+FLAGS.SILENT", f"({TAKEN})")
                return
            if settings.move_to is not None:
                self._uid("COPY", uids, _quoted(settings.move_to))
            self._uid("STORE", uids, "+FLAGS.SILENT", "(\\Deleted)")
            # Without UIDPLUS (RFC 4315), EXPUNGE would also remove mails that other clients deleted. The mails keep the
            # flag \Deleted, and searches skip them.
            if "UIDPLUS" in self._capabilities:
                self._uid("EXPUNGE", uids)

    @property
    def idles(self) -> bool:
        """Whether the server supports IDLE (RFC 2177)."""
        return "IDLE" in self._capabilities

    def idle(self, stop: threading.Event, *, idle_s: float = IDLE_S) -> bool:
        """Wait until new mail arrives. `search_again` then finds it.

        Args:
            stop: Ends the wait.
            idle_s: Maximum duration, in seconds.

        Returns:
            Whether new mail arrived.

        Raises:
            UnavailableError: The server is unreachable, or rejected IDLE.
        """
        if self._imap.response("EXISTS")[1] != [None]:
            return True  # An earlier response announced the mail, and the server does not announce it again.
        with self._translated_errors():
            # Read the socket directly: data in the buffer of imaplib would not end a wait.
            self._imap.send(_IDLE_TAG + b" IDLE\r\n")
            received = self._read_until(b"", lambda lines: any(line.startswith((b"+", _IDLE_TAG)) for line in lines))
            if any(line.startswith(_IDLE_TAG) for line in received.split(b"\r\n")):
                raise UnavailableError(f"{self._where}: the server refused IDLE")
            received, has_mail = self._listen(received, stop, idle_s)
            self._imap.send(b"DONE\r\n")
            self._read_until(received, lambda lines: any(line.startswith(_IDLE_TAG) for line in lines))
        return has_mail

    def search_again(self) -> None:
        """Search for waiting mails again, for `fetch` to return. Raises UnavailableError."""
        with self._translated_errors():
            self._waiting = self._search(self._select())

    def _listen(self, received: bytes, stop: threading.Event, idle_s: float) -> tuple[bytes, bool]:
        until_s = time.monotonic() + idle_s
        while not (has_mail := _EXISTS.search(received) is not None):
            if stop.is_set() or time.monotonic() >= until_s:
                break
            try:
                received = (received + self._receive(_SLICE_S))[-_MAX_IDLE_BYTES:]
            except TimeoutError:
                continue
        return received, has_mail

    def _read_until(self, received: bytes, done: Callable[[list[bytes]], bool]) -> bytes:
        until_s = time.monotonic() + self._settings.timeout_ms / 1000
        while not done(received.split(b"\r\n")[:-1]):
            left_s = until_s - time.monotonic()
            if left_s <= 0 or len(received) > _MAX_IDLE_BYTES:
                raise TimeoutError("no answer to IDLE")
            received += self._receive(left_s)
        return received

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
        """Log out and close the connection."""
        with suppress(OSError, imaplib.IMAP4.error):
            self._imap.logout()
        with suppress(OSError):
            self._imap.shutdown()  # The socket is still open if the logout failed.

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
            message = _message_of(error)
            if _TEMPORARY.search(message):
                raise UnavailableError(f"{self._where}: the login failed temporarily: {message}") from None
            raise ConfigError(
                f"the login was refused: {message}", where=self._where, remedy="Correct username or password."
            ) from None

    def _ask_capabilities(self) -> frozenset[str]:
        # The capabilities may change after a login (RFC 3501 §6.1.1).
        _, data = self._imap.capability()
        return frozenset(b" ".join(line for line in data if isinstance(line, bytes)).decode("ascii", "replace").split())

    def _select(self) -> int:
        status, data = self._imap.select(_quoted(self._settings.mailbox))
        if status != "OK":
            raise ConfigError(f"the mailbox cannot be opened: {_text(data)}", where=self._where)
        self._imap.response("EXISTS")  # Clears the response, so that `idle` sees a later one only.
        flags = _text(self._imap.response("PERMANENTFLAGS")[1])
        needs_keyword = self._settings.move_to is None and not self._settings.delete
        if needs_keyword and "\\*" not in flags and TAKEN.lower() not in flags.lower():
            raise ConfigError(
                "this mailbox takes no keywords, so mails cannot be marked",
                where=self._where,
                remedy="Set move_to, or delete.",
            )
        return int(data[0] or b"0")

    def _search(self, exists: int) -> list[int]:
        """Return the UIDs of waiting mails, in descending order."""
        uids: set[int] = set()
        for first in range(1, exists + 1, _WINDOW):
            window = f"{first}:{min(first + _WINDOW - 1, exists)}"
            data = self._uid("SEARCH", window, "UNDELETED", "UNKEYWORD", TAKEN)
            uids.update(int(uid) for line in data if isinstance(line, bytes) for uid in line.split())
        return sorted(uids, reverse=True)

    def _uid(self, command: str, *arguments: str) -> list[Any]:
        status, data = self._imap.uid(command, *arguments)
        if status != "OK":
            raise UnavailableError(f"{self._where}: the server refused {command}: {_text(data)}")
        return data

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """Translate errors: an untrusted certificate is a ConfigError, any other failure an UnavailableError."""
        try:
            yield
        except ssl.SSLCertVerificationError as error:
            raise ConfigError(
                f"its certificate is not trusted: {error.verify_message}",
                where=self._where,
                remedy="Correct host, or set ca_file to the certificate authority.",
            ) from None
        except (OSError, imaplib.IMAP4.error) as error:
            raise UnavailableError(f"{self._where}: {_message_of(error)}") from None


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


def _bodies(data: Sequence[Any]) -> Iterator[tuple[int, bytes]]:
    """Yield UIDs and texts of a FETCH response. The UID is before or after the text.

    Flags of other messages may be between the responses.
    """
    for number, part in enumerate(data):
        if not isinstance(part, tuple) or b"BODY[" not in part[0]:
            continue
        after = data[number + 1] if number + 1 < len(data) and isinstance(data[number + 1], bytes) else b""
        uid = _UID.search(part[0]) or _UID.search(after)
        if uid is not None:
            yield int(uid[1]), part[1]


def _set(uids: Sequence[int] | Iterator[int]) -> str:
    return ",".join(str(uid) for uid in uids)


def _quoted(mailbox: str) -> str:
    escaped = mailbox.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _text(data: Sequence[Any]) -> str:
    return " ".join(part.decode("utf-8", "replace") for part in data if isinstance(part, bytes))


def _message_of(error: BaseException) -> str:
    argument = error.args[-1] if error.args else ""
    return argument.decode("utf-8", "replace") if isinstance(argument, bytes) else str(argument) or type(error).__name__
