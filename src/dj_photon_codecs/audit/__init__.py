"""A look at a store before garbage is collected: what rows refer to, what they do not, and what is missing."""

from .check import audit_store
from .report import AuditReport, RowProblem

__all__ = ["AuditReport", "RowProblem", "audit_store"]
