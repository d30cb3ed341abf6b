"""How fast a sender may go at a mailbox provider: limits and reply rules as data, and what became of them.

``limits`` and ``rules`` are what shaping.toml says, read by ``file``; ``decide`` is pure; ``shaper`` acts.
"""
