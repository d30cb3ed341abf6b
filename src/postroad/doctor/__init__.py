"""Checks of a whole installation: each one independent, with its own deadline and its own failure."""

from postroad.doctor.check import Check, Probe
from postroad.doctor.context import Context
from postroad.doctor.examine import examine

__all__ = ["Check", "Context", "Probe", "examine"]
