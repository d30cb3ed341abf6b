"""Checks of a whole installation: each one independent, with its own deadline and its own failure."""

from postroad.doctor.check import Check, Probe
from postroad.doctor.context import DoctorContext
from postroad.doctor.examine import examine

__all__ = ["Check", "DoctorContext", "Probe", "examine"]
