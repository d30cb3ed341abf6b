"""A mail provider on loopback that misbehaves on request: for the demo, the tests and rehearsals.

    async with Sandbox(SandboxConfig(directory="sandbox"), rng=Random(7)) as sandbox:
        ...  # deliver to sandbox.host, sandbox.port
        sandbox.use([Rule(phase=Phase.RCPT, domain="gmail.test", fault=Fault(reply="gmail-no-such-user"))])
        sandbox.accepted()

It only receives: it opens, clicks and answers nothing. Faults come from rules
(:mod:`postroad.sandbox.rules`) or from the addresses themselves (:mod:`postroad.sandbox.addresses`); what
providers say stands in ``replies.toml``.
"""

from postroad.sandbox.config import Extension, Keep, Mechanism, SandboxConfig, load_config
from postroad.sandbox.context import Counters
from postroad.sandbox.ledger import Accepted, accepted
from postroad.sandbox.replies import ProviderReply, provider_replies
from postroad.sandbox.rules import Ending, Fault, Phase, Rate, Rule, Scope
from postroad.sandbox.server import Sandbox, serve

__all__ = [
    "Accepted",
    "Counters",
    "Ending",
    "Extension",
    "Fault",
    "Keep",
    "Mechanism",
    "Phase",
    "ProviderReply",
    "Rate",
    "Rule",
    "Sandbox",
    "SandboxConfig",
    "Scope",
    "accepted",
    "load_config",
    "provider_replies",
    "serve",
]
