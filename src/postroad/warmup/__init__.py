"""Warmup: how much a new sender may send each day, and what its replies change about it."""
