"""Limits how fast a sender sends to a mailbox provider: limits and rules of shaping.toml, changes caused by replies.

=============  ===================================================================
config         shaping.toml: the shipped file and the operator's file
limits         limits of a receiver, and the scope they apply to
rules          which replies change limits
decide         the change that a reply causes; pure functions
shaper         stores changes and has them applied to gates
gate_source    what limits and open changes contribute to gates
describe       limits and changes as text, for commands
=============  ===================================================================
"""
