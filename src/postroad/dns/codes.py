"""Every finding there is: its word, its verdict, and why it matters."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, StrEnum


class RecordVerdict(StrEnum):
    """How a finding bears on mail."""

    PASS = "pass"  # noqa: S105  (a word, and no secret)
    INFO = "info"  # something that could be had, and is not
    UNKNOWN = "unknown"  # DNS gave no answer: nothing is known, and nothing is held against the domain
    WARN = "warn"
    FAIL = "fail"


_SEVERITY = (RecordVerdict.PASS, RecordVerdict.INFO, RecordVerdict.UNKNOWN, RecordVerdict.WARN, RecordVerdict.FAIL)


def worst(verdicts: Iterable[RecordVerdict]) -> RecordVerdict:
    """Return the gravest verdict; of none, pass."""
    return max(verdicts, key=_SEVERITY.index, default=RecordVerdict.PASS)


class Standard(StrEnum):
    """What is checked, in the order in which it is shown."""

    SPF = "SPF"
    DKIM = "DKIM"
    DMARC = "DMARC"
    MX = "MX"
    PTR = "PTR"
    DNSBL = "DNSBL"
    MTA_STS = "MTA-STS"
    TLS_RPT = "TLS-RPT"
    DANE = "DANE"
    BIMI = "BIMI"
    CANARY = "CANARY"
    BULK_SENDER = "LARGE-SENDER"  # as reports that are stored have it

    @property
    def is_about_sending(self) -> bool:
        """Whether receivers judge mail *from* the domain by it. The others protect mail to it, or adorn it."""
        return self in _SENDING


_SENDING = frozenset({Standard.SPF, Standard.DKIM, Standard.DMARC, Standard.MX, Standard.PTR, Standard.DNSBL})


class Code(Enum):
    """Every finding there is: docs/reference/dns-findings.md lists them."""

    SPF_OK = "spf.ok", RecordVerdict.PASS, "Receivers can tell which hosts may use this domain in the return path."
    SPF_UNKNOWN = "spf.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    SPF_MISSING = (
        "spf.missing",
        RecordVerdict.FAIL,
        "Large receivers refuse mail without SPF or DKIM, bulk mail without both.",
    )
    SPF_SEVERAL = "spf.several", RecordVerdict.FAIL, "With two records every check ends in permerror (RFC 7208 §4.5)."
    SPF_INVALID = (
        "spf.invalid",
        RecordVerdict.FAIL,
        "A record that cannot be evaluated ends in permerror: SPF never passes.",
    )
    SPF_LOOKUPS_OVER = "spf.lookups-over", RecordVerdict.FAIL, "Past ten lookups a check ends in permerror (§4.6.4)."
    SPF_VOID_OVER = (
        "spf.void-over",
        RecordVerdict.FAIL,
        "Past two names that lead nowhere a check may end in permerror (§4.6.4).",
    )
    SPF_PLUS_ALL = (
        "spf.plus-all",
        RecordVerdict.FAIL,
        "The whole world may send in this name: receivers take it for spam.",
    )
    SPF_NOT_COVERED = "spf.not-covered", RecordVerdict.FAIL, "Mail from this address does not pass SPF."
    SPF_LOOKUPS_MANY = (
        "spf.lookups-many",
        RecordVerdict.WARN,
        "One more include of somebody else's may go past the limit of ten.",
    )
    SPF_PTR = "spf.ptr", RecordVerdict.WARN, "`ptr` is slow and unreliable, and should not be used (RFC 7208 §5.5)."
    SPF_NEUTRAL_ALL = (
        "spf.neutral-all",
        RecordVerdict.WARN,
        "?all says nothing of hosts that are not named: forgeries pass.",
    )
    SPF_AFTER_ALL = "spf.after-all", RecordVerdict.WARN, "Receivers never look at terms after `all` (RFC 7208 §5.1)."
    SPF_NO_ALL = (
        "spf.no-all",
        RecordVerdict.WARN,
        "Without `all` or `redirect` other hosts are neutral: forgeries pass.",
    )

    DKIM_OK = "dkim.ok", RecordVerdict.PASS, "Receivers can verify signatures made with this key."
    DKIM_UNKNOWN = "dkim.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    DKIM_UNASKED = "dkim.unasked", RecordVerdict.INFO, "Keys are found by their selector, and none was named."
    DKIM_MISSING = "dkim.missing", RecordVerdict.FAIL, "Signatures that name this selector cannot be verified."
    DKIM_REVOKED = "dkim.revoked", RecordVerdict.FAIL, "An empty p= says that the key is revoked (RFC 6376 §3.6.1)."
    DKIM_INVALID = "dkim.invalid", RecordVerdict.FAIL, "Signatures that name this selector cannot be verified."
    DKIM_SEVERAL = "dkim.several", RecordVerdict.FAIL, "With two records the outcome is undefined (RFC 6376 §3.6.2.2)."
    DKIM_OTHER_KEY = (
        "dkim.other-key",
        RecordVerdict.FAIL,
        "What is signed with the private key does not verify with this one.",
    )
    DKIM_WEAK = "dkim.weak", RecordVerdict.FAIL, "RSA keys below 1024 bits must not be accepted (RFC 8301 §3.2)."
    DKIM_SHORT = (
        "dkim.short",
        RecordVerdict.WARN,
        "1024 bits are the least that counts; signers should use 2048 (RFC 8301 §3.2).",
    )
    DKIM_TESTING = "dkim.testing", RecordVerdict.WARN, "t=y asks receivers to treat signed mail as if it were not."
    DKIM_FAULTS = (
        "dkim.faults",
        RecordVerdict.WARN,
        "Most receivers pass over these faults; a strict one may refuse the key (RFC 6376 §3.6.1).",
    )
    DKIM_NO_ED25519 = (
        "dkim.no-ed25519",
        RecordVerdict.INFO,
        "Small and strong; a second signature beside RSA (RFC 8463).",
    )

    DMARC_OK = "dmarc.ok", RecordVerdict.PASS, "Receivers know what to do with mail that forges this domain."
    DMARC_UNKNOWN = "dmarc.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    DMARC_MISSING = (
        "dmarc.missing",
        RecordVerdict.FAIL,
        "Google, Yahoo and Microsoft refuse bulk mail from domains without DMARC.",
    )
    DMARC_SEVERAL = "dmarc.several", RecordVerdict.FAIL, "Of several records none counts (RFC 9989 §4.10)."
    DMARC_INVALID = "dmarc.invalid", RecordVerdict.FAIL, "Receivers do not apply this record: see RFC 9989 §4.10.1."
    DMARC_UNALIGNED = (
        "dmarc.unaligned",
        RecordVerdict.FAIL,
        "Neither SPF nor DKIM speaks for the From domain: DMARC fails.",
    )
    DMARC_SPF_UNALIGNED = (
        "dmarc.spf-unaligned",
        RecordVerdict.WARN,
        "SPF passes for another domain: DMARC rests on DKIM alone.",
    )
    DMARC_NONE = (
        "dmarc.none",
        RecordVerdict.WARN,
        "p=none asks receivers to deliver forgeries; BIMI needs quarantine or reject.",
    )
    DMARC_SUBDOMAINS = (
        "dmarc.subdomains",
        RecordVerdict.WARN,
        "Forgeries of subdomains are delivered although those of the domain are not.",
    )
    DMARC_NO_REPORTS = "dmarc.no-reports", RecordVerdict.WARN, "Without rua nobody tells you who sends in your name."
    DMARC_TAGS = (
        "dmarc.tags",
        RecordVerdict.WARN,
        "Receivers pass over these tags: they have no effect, or not the one meant.",
    )
    DMARC_FAULTS = (
        "dmarc.faults",
        RecordVerdict.WARN,
        "Receivers pass over these faults, and apply the rest of the record (RFC 9989 §4.7).",
    )
    DMARC_REPORT_URI = (
        "dmarc.report-uri",
        RecordVerdict.WARN,
        "RFC 9989 has no sizes, and receivers need to report to mailto: only.",
    )
    DMARC_REPORTS_LOST = "dmarc.reports-lost", RecordVerdict.WARN, "Reports to a domain that accepts no mail are lost."
    DMARC_TESTING = (
        "dmarc.testing",
        RecordVerdict.WARN,
        "t=y asks receivers for one step less than the policy (RFC 9989 §4.7).",
    )
    DMARC_REPORTS_REFUSED = (
        "dmarc.reports-refused",
        RecordVerdict.WARN,
        ("Reports go to another domain only where that one says it wants them (RFC 9990)."),
    )

    MX_OK = "mx.ok", RecordVerdict.PASS, "Replies and bounces find their way."
    MX_UNKNOWN = "mx.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    MX_NO_DOMAIN = "mx.no-domain", RecordVerdict.FAIL, "Receivers refuse mail from a domain that does not exist."
    MX_MISSING = (
        "mx.missing",
        RecordVerdict.FAIL,
        "Receivers refuse mail from a domain that takes none; replies and bounces are lost.",
    )
    MX_NULL = "mx.null", RecordVerdict.FAIL, "A null MX says that the domain neither takes nor sends mail (RFC 7505)."
    MX_IMPLICIT = (
        "mx.implicit",
        RecordVerdict.WARN,
        "Mail goes to the domain's own address, which need not be a mail host.",
    )
    MX_NO_ADDRESS = "mx.no-address", RecordVerdict.FAIL, "None of the mail hosts can be reached."
    MX_DEAD_HOST = "mx.dead-host", RecordVerdict.WARN, "Senders waste their time on a mail host that has no address."

    MX_CNAME = (
        "mx.cname",
        RecordVerdict.WARN,
        "The name in an MX record must not be an alias (RFC 2181 §10.3); some senders refuse it.",
    )

    PTR_OK = "ptr.ok", RecordVerdict.PASS, "The address has a name that leads back to it."
    PTR_UNKNOWN = "ptr.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    PTR_UNASKED = "ptr.unasked", RecordVerdict.INFO, "Which address mail leaves from was not said."
    PTR_MISSING = "ptr.missing", RecordVerdict.FAIL, "Large receivers refuse mail from an address without a name."
    PTR_UNCONFIRMED = "ptr.unconfirmed", RecordVerdict.FAIL, "A name counts only where it leads back to the address."
    PTR_GENERIC = (
        "ptr.generic",
        RecordVerdict.WARN,
        "A name made of the address is what dial-up lines have: many receivers refuse it.",
    )
    HELO_OTHER = (
        "ptr.helo-differs",
        RecordVerdict.FAIL,
        "A host that greets with a name that is not its own looks like a bot.",
    )
    HELO_NOT_FOUND = (
        "ptr.helo-not-found",
        RecordVerdict.FAIL,
        "The name in EHLO must lead to an address (RFC 5321 §2.3.5).",
    )

    STS_OK = "mta-sts.ok", RecordVerdict.PASS, "Mail to the domain goes to its own mail hosts, over TLS."
    STS_UNKNOWN = "mta-sts.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    STS_ABSENT = "mta-sts.absent", RecordVerdict.INFO, "Mail to the domain can be read or diverted on its way."
    STS_INVALID = "mta-sts.invalid", RecordVerdict.FAIL, "A policy that cannot be had or read protects nothing."
    STS_DISAGREES = (
        "mta-sts.disagrees",
        RecordVerdict.FAIL,
        "Senders refuse to deliver to mail hosts that the policy does not name.",
    )
    STS_TESTING = "mta-sts.testing", RecordVerdict.WARN, "In testing, mail goes out unprotected and is only reported."

    TLS_RPT_OK = "tls-rpt.ok", RecordVerdict.PASS, "Senders report when TLS to the domain's mail hosts fails."
    TLS_RPT_UNKNOWN = "tls-rpt.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    TLS_RPT_ABSENT = "tls-rpt.absent", RecordVerdict.INFO, "Nobody tells you when TLS to your mail hosts fails."
    TLS_RPT_INVALID = "tls-rpt.invalid", RecordVerdict.FAIL, "A record that cannot be read is none."
    TLS_RPT_FAULTS = "tls-rpt.faults", RecordVerdict.WARN, "Senders that are strict may not report (RFC 8460 §3)."

    DANE_OK = "dane.ok", RecordVerdict.PASS, "The certificates of the mail hosts are vouched for by DNSSEC."
    DANE_UNKNOWN = "dane.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    DANE_ABSENT = "dane.absent", RecordVerdict.INFO, "The certificates of the mail hosts are not vouched for by DNS."
    DANE_UNSIGNED = (
        "dane.unsigned",
        RecordVerdict.INFO,
        "TLSA records count only where DNSSEC vouches for them (RFC 7672 §2.2).",
    )
    DANE_UNUSABLE = (
        "dane.unusable",
        RecordVerdict.FAIL,
        "Records that no sender can use make TLS needed and its proof impossible.",
    )
    DANE_SOME = "dane.some", RecordVerdict.WARN, "An attacker picks the mail host that is not protected."

    BIMI_OK = "bimi.ok", RecordVerdict.PASS, "Receivers that show logos find yours."
    BIMI_UNKNOWN = "bimi.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    BIMI_ABSENT = "bimi.absent", RecordVerdict.INFO, "Receivers that show logos have none to show."
    BIMI_INVALID = "bimi.invalid", RecordVerdict.INFO, "A record that cannot be read is none."
    BIMI_NEEDS_DMARC = (
        "bimi.needs-dmarc",
        RecordVerdict.INFO,
        "Logos are shown only where DMARC is quarantine or reject.",
    )

    DNSBL_OK = "dnsbl.ok", RecordVerdict.PASS, "The list does not know it."
    DNSBL_UNKNOWN = "dnsbl.unknown", RecordVerdict.UNKNOWN, "Without an answer nothing can be said."
    DNSBL_REFUSED = (
        "dnsbl.refused",
        RecordVerdict.UNKNOWN,
        "127.255.255.x means that the list did not answer, and never that it lists.",
    )
    DNSBL_LISTED = "dnsbl.listed", RecordVerdict.FAIL, "Receivers that use this list refuse the mail."
    DNSBL_POLICY = (
        "dnsbl.policy",
        RecordVerdict.WARN,
        "The network's owner says that no mail should come from here directly.",
    )

    CANARY_OK = "canary.ok", RecordVerdict.PASS, "A receiver sees what DNS promises."
    CANARY_TEMPORARY = "canary.temporary", RecordVerdict.UNKNOWN, "The receiver had no answer from DNS just then."
    CANARY_UNSAID = "canary.unsaid", RecordVerdict.WARN, "A receiver that says nothing of it may not have looked."
    CANARY_UNPROMISED = (
        "canary.unpromised",
        RecordVerdict.WARN,
        "It passes by what the receiver still remembers, and will not for long.",
    )
    CANARY_NO_RESULTS = (
        "canary.no-results",
        RecordVerdict.WARN,
        "Without a word of the host that is named nothing can be compared.",
    )
    CANARY_DIFFERS = (
        "canary.differs",
        RecordVerdict.FAIL,
        "The mail that leaves is not the mail that DNS speaks of: another address, key or domain.",
    )
    CANARY_FAILS = "canary.fails", RecordVerdict.FAIL, "Receivers see what DNS lacks."
    CANARY_REFUSED = (
        "canary.refused",
        RecordVerdict.FAIL,
        "What happens to a canary happens to other mail by this route.",
    )
    CANARY_LOST = "canary.lost", RecordVerdict.FAIL, "It was filed as spam, dropped, or is on its way for very long."

    BULK_SMALL = "large-sender.small", RecordVerdict.PASS, "The rules for bulk senders do not hold for it yet."
    BULK_NEAR = (
        "large-sender.near",
        RecordVerdict.WARN,
        "From 5,000 a day on mail without SPF, DKIM and DMARC, aligned, is refused; at Google for good.",
    )
    BULK_MET = "large-sender.met", RecordVerdict.PASS, "The rules for bulk senders hold for it, and its DNS keeps them."
    BULK_OPEN = (
        "large-sender.open",
        RecordVerdict.INFO,
        "The rules for bulk senders hold for it; whether it keeps them was not to be seen.",
    )
    BULK_UNMET = (
        "large-sender.unmet",
        RecordVerdict.FAIL,
        "Receivers refuse mail of bulk senders that break their rules.",
    )

    def __init__(self, word: str, verdict: RecordVerdict, why: str) -> None:
        self.word = word
        self.verdict = verdict
        self.why = why

    @property
    def standard(self) -> Standard:
        return Standard(self.word.partition(".")[0].upper())
