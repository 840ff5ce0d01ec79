"""Migrate the movies of old columns to photon columns: plan, copy, verify, and only then forget the originals."""

from .forget import Forgotten
from .ledger import Status
from .migrate import Migration
from .plan import Plan

__all__ = ["Forgotten", "Migration", "Plan", "Status"]
