"""Audit a store before garbage collection: find referenced, orphaned and missing objects."""

from .check import audit_store
from .report import AuditReport, RowProblem

__all__ = ["AuditReport", "RowProblem", "audit_store"]
