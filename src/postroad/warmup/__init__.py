"""Warmup: how much a new sender may send each day, and how replies and complaints change that."""
