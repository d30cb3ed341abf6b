"""One SMTP session as a state machine: a line or a message goes in, a step comes out. Nothing here waits.

The one effect is that an accepted message is kept before its step is returned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar

import msgspec

from postroad.sandbox import commands
from postroad.sandbox.authentication import Authentication
from postroad.sandbox.config import Extension
from postroad.sandbox.context import Context
from postroad.sandbox.framing import LineFlaw, TooLarge, flaw_of, unstuffed
from postroad.sandbox.mailroom import Envelope
from postroad.sandbox.phrases import Phrase
from postroad.sandbox.replies import Reply
from postroad.sandbox.rulebook import Verdict
from postroad.sandbox.rules import Phase
from postroad.sandbox.steps import Answers, Step, Then

#: Longest command line with its CRLF, in octets: RFC 5321 §4.5.3.1.4, RFC 4954 §4.
MAX_COMMAND_BYTES, MAX_AUTH_BYTES = 512, 12_288
#: What extensions add to MAIL: RFC 1870 §3 (26), RFC 6152 §2 (17), RFC 6531 §3.1 (10), RFC 4954 §3 (500).
MAX_MAIL_BYTES = MAX_COMMAND_BYTES + 26 + 17 + 10 + 500
#: Nothing may be sent behind these before their reply: RFC 2920 §3.1, RFC 4954 §4. NOOP and QUIT belong to
#: that list too, but a client that sends more behind them does no harm.
_ENDS_GROUP = frozenset({"EHLO", "HELO", "DATA", "AUTH"})
_HELLO = re.compile(r"[^\s<>()@,;\\\"]{1,255}")


class Transaction(msgspec.Struct):
    """What MAIL began: RFC 5321 §3.3."""

    sender: str
    eight_bit: bool
    utf8: bool
    recipients: list[str] = []


class Dialogue:
    """The state of one session, from the greeting to QUIT. It is the scene that rules look at."""

    def __init__(self, context: Context, *, connection: int, ip: str, secure: bool) -> None:
        self.connection = connection
        self.ip = ip
        self.secure = secure
        self.transactions = 0
        self._context = context
        self._answers = Answers(context)
        self._authentication = Authentication(context)
        self._transaction: Transaction | None = None
        self._helo: str | None = None
        self._extended = False

    @property
    def sender(self) -> str | None:
        return self._transaction.sender if self._transaction else None

    @property
    def open_connections(self) -> int:
        return self._context.counters.open_connections

    def greet(self) -> Step:
        greeting = f"220 {self._context.config.hostname} ESMTP Postroad sandbox\r\n"
        return self._concluded(Phase.CONNECT, Step(greeting.encode()))

    def secured(self) -> None:
        """Begin anew inside TLS. RFC 3207 §4.2: nothing the client said before it counts."""
        self.secure = True
        self._helo, self._transaction = None, None
        self._authentication = Authentication(self._context)

    def flawed(self, flaw: LineFlaw) -> Step:
        return self._answers.error(flaw.value)

    def command(self, line: bytes, *, more: bool) -> Step:
        """Answer one line. ``more``: octets have arrived behind it already."""
        if self._authentication.under_way:
            return self._authenticated(self._authentication.respond(line))
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return self._answers.error(Phrase.BAD_UTF8)
        verb, _, arguments = text.partition(" ")
        verb = verb.upper()
        handler = self._handlers.get(verb)
        if handler is None:
            return self._answers.error(Phrase.UNKNOWN_COMMAND)
        if len(line) + 2 > _LIMITS.get(verb, MAX_COMMAND_BYTES):
            return self._answers.error(Phrase.LINE_TOO_LONG)
        if more and self._out_of_turn(verb):
            return self._answers.say(Phrase.OUT_OF_TURN, Then.CLOSE)
        return handler(self, arguments)

    def message(self, arrived: bytes | TooLarge) -> Step:
        """Answer the final dot; the message is kept before this returns, or refused."""
        transaction, config = self._transaction, self._context.config
        if transaction is None or not transaction.recipients:
            self._transaction = None
            return self._answers.refuse(Phase.DOT, Phrase.NO_VALID_RECIPIENTS)
        content = b"" if isinstance(arrived, TooLarge) else unstuffed(arrived)
        if isinstance(arrived, TooLarge) or len(content) > config.max_message_bytes:
            self._transaction = None
            return self._answers.refuse(Phase.DOT, Phrase.TOO_LARGE)
        eight_bit = transaction.eight_bit or not config.enforce_7bit
        flaw = flaw_of(content, max_line_bytes=config.max_line_bytes, eight_bit=eight_bit)
        if flaw is not None:
            self._transaction = None
            return self._answers.refuse(Phase.DOT, flaw)
        verdict = self._context.decide(Phase.DOT, self, transaction.recipients, content)
        step = self._settled(transaction, verdict, content)
        self._transaction = None
        return step

    def _settled(self, transaction: Transaction, verdict: Verdict | None, content: bytes) -> Step:
        counters = self._context.counters
        refused = verdict is not None and verdict.refuses
        ordinary = Step(b"")
        if not refused or (verdict is not None and verdict.fault.keep):
            envelope = Envelope(
                transaction.sender,
                tuple(transaction.recipients),
                self._helo or "",
                self.ip,
                self._protocol(transaction),
            )
            try:
                queue_id = self._context.mailroom.keep(envelope, content)
            except OSError:
                return self._answers.refuse(Phase.DOT, Phrase.NO_SPACE)
            code = "250 2.0.0" if self._answers.enhanced else "250"
            ordinary = Step(f"{code} Ok: queued as {queue_id}\r\n".encode())
            counters.kept_unsaid += refused
        if not refused:
            counters.accepted += 1
            counters.accepted_recipients += len(transaction.recipients)
        return self._judged(Phase.DOT, verdict, ordinary)

    # One method a command. Each answers with a step.

    def _ehlo(self, arguments: str) -> Step:
        return self._hello(arguments, extended=True)

    def _helo_only(self, arguments: str) -> Step:
        return self._hello(arguments, extended=False)

    def _hello(self, arguments: str, *, extended: bool) -> Step:
        name = arguments.strip()
        if not _HELLO.fullmatch(name):
            return self._answers.error(Phrase.EHLO_SYNTAX, Phase.EHLO)
        verdict = self._context.decide(Phase.EHLO, self)
        if verdict is None or not verdict.refuses:
            self._helo, self._extended, self._transaction = name, extended, None
        lines = [self._context.config.hostname]
        if extended:
            lines += self._keywords()
        ordinary = Reply(250, "", tuple(lines))
        return self._judged(Phase.EHLO, verdict, Step(ordinary.encode()))

    def _keywords(self) -> list[str]:
        offered, config = self._context.offered, self._context.config
        values = {
            Extension.SIZE: f"SIZE {config.max_message_bytes}",
            Extension.AUTH: f"AUTH {' '.join(config.auth_mechanisms)}",
        }
        return [
            values.get(extension, extension.value)
            for extension in Extension
            if extension in offered and not (extension is Extension.STARTTLS and self.secure)
        ]

    def _starttls(self, arguments: str) -> Step:
        if not self._offers(Extension.STARTTLS):
            return self._answers.error(Phrase.NOT_OFFERED, Phase.STARTTLS)
        if self.secure:
            return self._answers.error(Phrase.ALREADY_SECURE, Phase.STARTTLS)
        if arguments:
            return self._answers.error(Phrase.NO_PARAMETERS, Phase.STARTTLS)
        return self._concluded(Phase.STARTTLS, self._answers.say(Phrase.READY_FOR_TLS, Then.TLS))

    def _auth(self, arguments: str) -> Step:
        words = arguments.split()
        problem = Phrase.NOT_OFFERED if not self._offers(Extension.AUTH) else None
        if problem is None and self._context.config.require_tls and not self.secure:
            problem = Phrase.TLS_REQUIRED
        if problem is None and self._transaction is not None:
            problem = Phrase.AUTH_IN_TRANSACTION
        problem = problem or self._authentication.problem_with(words)
        if problem is not None:
            return self._answers.error(problem, Phase.AUTH)
        verdict = self._context.decide(Phase.AUTH, self)
        if verdict is not None and verdict.refuses:
            return self._judged(Phase.AUTH, verdict, Step(b""))
        return self._judged(Phase.AUTH, verdict, self._authenticated(self._authentication.begin(words)))

    def _authenticated(self, outcome: bytes | Phrase) -> Step:
        if isinstance(outcome, bytes):
            return Step(outcome)
        if outcome is Phrase.AUTHENTICATED:
            return self._answers.say(outcome)
        return self._answers.error(outcome, Phase.AUTH)

    def _mail(self, arguments: str) -> Step:
        problem = self._mail_problem()
        if problem is not None:
            return self._answers.error(problem, Phase.MAIL)
        parsed = commands.parse_from(arguments)
        if isinstance(parsed, Phrase):
            return self._answers.error(parsed, Phase.MAIL)
        sender, parameters = parsed
        problem = self._parameter_problem(parameters)
        if problem is None and not sender.isascii() and "SMTPUTF8" not in parameters:
            problem = Phrase.NEEDS_SMTPUTF8
        if problem is Phrase.TOO_LARGE:
            return self._answers.refuse(Phase.MAIL, problem)
        if problem is not None:
            return self._answers.error(problem, Phase.MAIL)
        self._transaction = Transaction(
            sender, eight_bit=parameters.get("BODY", "").upper() == "8BITMIME", utf8="SMTPUTF8" in parameters
        )
        verdict = self._context.decide(Phase.MAIL, self)
        step = self._judged(Phase.MAIL, verdict, self._answers.say(Phrase.SENDER_OK))
        if verdict is not None and verdict.refuses:
            self._transaction = None
        else:
            self.transactions += 1
        return step

    def _mail_problem(self) -> Phrase | None:
        config = self._context.config
        if self._helo is None:
            return Phrase.HELLO_FIRST
        if config.require_tls and not self.secure:
            return Phrase.TLS_REQUIRED
        if config.require_auth and self._authentication.user is None:
            return Phrase.AUTH_REQUIRED
        return Phrase.NESTED_MAIL if self._transaction is not None else None

    def _parameter_problem(self, parameters: dict[str, str]) -> Phrase | None:
        for keyword, value in parameters.items():
            match keyword:
                case "SIZE" if self._offers(Extension.SIZE):
                    if not (value.isascii() and value.isdigit() and len(value) <= 20):
                        return Phrase.SIZE_SYNTAX
                    if int(value) > self._context.config.max_message_bytes:
                        return Phrase.TOO_LARGE
                case "BODY" if self._offers(Extension.EIGHTBITMIME):
                    if value.upper() not in ("7BIT", "8BITMIME"):
                        return Phrase.BODY_SYNTAX
                case "SMTPUTF8" if self._offers(Extension.SMTPUTF8) and not value:
                    pass
                case "AUTH" if self._offers(Extension.AUTH) and value:
                    pass  # RFC 4954 §5: a sandbox trusts nobody more for it
                case _:
                    return Phrase.UNKNOWN_PARAMETER
        return None

    def _rcpt(self, arguments: str) -> Step:
        transaction = self._transaction
        if transaction is None:
            return self._answers.error(Phrase.NEED_MAIL, Phase.RCPT)
        parsed = commands.parse_to(arguments)
        if isinstance(parsed, Phrase):
            return self._answers.error(parsed, Phase.RCPT)
        recipient, parameters = parsed
        if parameters:
            return self._answers.error(Phrase.UNKNOWN_PARAMETER, Phase.RCPT)
        if not recipient.isascii() and not transaction.utf8:
            return self._answers.error(Phrase.NEEDS_SMTPUTF8, Phase.RCPT)
        if len(transaction.recipients) >= self._context.config.max_recipients:
            return self._answers.refuse(Phase.RCPT, Phrase.TOO_MANY_RECIPIENTS)
        verdict = self._context.decide(Phase.RCPT, self, (recipient,))
        if verdict is None or not verdict.refuses:
            transaction.recipients.append(recipient)
        return self._judged(Phase.RCPT, verdict, self._answers.say(Phrase.RECIPIENT_OK))

    def _data(self, arguments: str) -> Step:
        transaction = self._transaction
        if arguments:
            return self._answers.error(Phrase.NO_PARAMETERS, Phase.DATA)
        if transaction is None:
            return self._answers.error(Phrase.NEED_MAIL, Phase.DATA)
        if not transaction.recipients and not self._context.config.data_without_recipients:
            return self._answers.refuse(Phase.DATA, Phrase.NO_VALID_RECIPIENTS)
        verdict = self._context.decide(Phase.DATA, self, transaction.recipients)
        step = self._judged(Phase.DATA, verdict, self._answers.say(Phrase.GO_AHEAD, Then.CONTENT))
        if verdict is not None and verdict.refuses:
            self._transaction = None
        return step

    def _rset(self, arguments: str) -> Step:
        if arguments:
            return self._answers.error(Phrase.NO_PARAMETERS)
        self._transaction = None
        return self._answers.say(Phrase.OK)

    def _noop(self, _arguments: str) -> Step:
        return self._answers.say(Phrase.OK)

    def _vrfy(self, _arguments: str) -> Step:
        return self._answers.say(Phrase.NO_VRFY)

    def _quit(self, _arguments: str) -> Step:
        return self._concluded(Phase.QUIT, self._answers.say(Phrase.BYE, Then.CLOSE))

    _handlers: ClassVar[dict[str, Callable[[Dialogue, str], Step]]] = {
        "EHLO": _ehlo,
        "HELO": _helo_only,
        "STARTTLS": _starttls,
        "AUTH": _auth,
        "MAIL": _mail,
        "RCPT": _rcpt,
        "DATA": _data,
        "RSET": _rset,
        "NOOP": _noop,
        "VRFY": _vrfy,
        "EXPN": _vrfy,
        "QUIT": _quit,
    }

    def _concluded(self, phase: Phase, ordinary: Step) -> Step:
        return self._judged(phase, self._context.decide(phase, self), ordinary)

    def _judged(self, phase: Phase, verdict: Verdict | None, ordinary: Step) -> Step:
        if verdict is None:
            return ordinary
        local_part, _, domain = verdict.recipient.rpartition("@")
        sender = self.sender or ""
        fields = {
            "ip": self.ip,
            "hostname": self._context.config.hostname,
            "id": f"{self.connection:x}-{self.transactions:x}",
            "recipient": verdict.recipient,
            "local_part": local_part,
            "domain": domain,
            "sender": sender,
            "sender_domain": sender.rpartition("@")[2],
        }
        return self._answers.judged(phase, verdict, ordinary, fields)

    def _offers(self, extension: Extension) -> bool:
        return self._extended and extension in self._context.offered

    def _out_of_turn(self, verb: str) -> bool:
        if not self._context.config.enforce_sync:
            return False
        pipelining = Extension.PIPELINING in self._context.offered
        return verb in _ENDS_GROUP or (not pipelining and verb not in ("QUIT", "STARTTLS"))

    def _protocol(self, transaction: Transaction) -> str:
        """RFC 3848: S for TLS, A for AUTH; RFC 6531 §4.3: UTF8 in front."""
        if not self._extended:
            return "SMTP"
        base = "UTF8SMTP" if transaction.utf8 else "ESMTP"
        return f"{base}{'S' if self.secure else ''}{'A' if self._authentication.user is not None else ''}"


_LIMITS = {"AUTH": MAX_AUTH_BYTES, "MAIL": MAX_MAIL_BYTES}
