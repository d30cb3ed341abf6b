"""Asks an rspamd server for the score of a message: https://docs.rspamd.com/developers/protocol.

The message is that for one recipient, unsigned and without a client address. It is submitted as mail of a user, so that
rspamd does not check the client. So the score is of the content.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec

from postroad.campaign.finding import PreflightCode, PreflightFinding, step_finding
from postroad.fetch import BoundedClient, FetchError, fetch
from postroad.mail.message import Message

WITHIN_S: Final = 20.0
"""Deadline of one message, in seconds. Lookups of rspamd take up to eight."""
MAX_ANSWER_BYTES: Final = 1 << 20
_NO_ACTION: Final = "no action"
_MAX_SYMBOLS: Final = 6


class _Symbol(msgspec.Struct, frozen=True):
    score: float = 0.0
    description: str = ""


class SpamScore(msgspec.Struct, frozen=True):
    """A reply of rspamd: the score, the score from which mail is rejected, and the action."""

    score: float
    required_score: float
    action: str
    symbols: dict[str, _Symbol] = {}


async def spam_finding(url: str, where: str, message: Message) -> PreflightFinding:
    """Return the finding about the score of a message.

    Args:
        url: URL of an rspamd worker.
        where: The campaign and the step.
        message: The message.

    Returns:
        The finding. There is one, too, if the server does not reply.
    """
    try:
        score = await _ask(url, message)
    except (FetchError, msgspec.DecodeError) as error:
        remedy = "Check preflight.rspamd and the server, or remove the setting. The launch does not wait for a score."
        what = f"rspamd at {url} gives no score: {str(error)[:200]}"
        return step_finding(PreflightCode.SPAM_UNCHECKED, where, what, remedy)
    return _finding(where, score)


async def _ask(url: str, message: Message) -> SpamScore:
    safe = "@+-_.=!#$&'*/?^`{|}~"  # RFC 5322 §3.2.3; headers are ASCII
    headers = {
        "From": quote(message.return_path, safe=safe),
        "Rcpt": quote(message.recipient, safe=safe),
        "User": "postroad",
    }
    async with BoundedClient(within_s=WITHIN_S, trust_env=False) as client:
        answer = await fetch(
            client,
            f"{url.rstrip('/')}/checkv2",
            method="POST",
            within_s=WITHIN_S,
            max_bytes=MAX_ANSWER_BYTES,
            headers=headers,
            content=message.content,
        )
    if answer.status != 200:
        raise FetchError(f"status {answer.status}")
    return msgspec.json.decode(answer.body, type=SpamScore)


def _finding(where: str, score: SpamScore) -> PreflightFinding:
    against = sorted(((symbol.score, name) for name, symbol in score.symbols.items() if symbol.score > 0), reverse=True)
    named = ", ".join(f"{name[:60]} ({points:g})" for points, name in against[:_MAX_SYMBOLS])
    what = f"rspamd gives {score.score:.1f} of {score.required_score:.1f} points, {score.action[:60]}"
    what += f": {named}" if named else ""
    if score.action == _NO_ACTION:
        return step_finding(PreflightCode.SPAM_OK, where, what, "No action is required.")
    remedy = "Remove the causes with the most points: https://rspamd.com/doc/ explains each symbol."
    return step_finding(PreflightCode.SPAM_SCORE, where, what, remedy)
