"""Checks a whole installation. Checks are independent: each has its own deadline, and may fail alone."""

from postroad.doctor.check import Check, Probe
from postroad.doctor.context import DoctorContext
from postroad.doctor.examine import examine

__all__ = ["Check", "DoctorContext", "Probe", "examine"]
