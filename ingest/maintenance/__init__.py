"""Operators' tasks: rebuild or renew the index, and show the state of a tenant's documents and jobs."""

from ingest.maintenance.rebuild import ReportVersion, rebuild, reindex
from ingest.maintenance.status import TenantStatus, read_status, show_status

__all__ = ["ReportVersion", "TenantStatus", "read_status", "rebuild", "reindex", "show_status"]
