"""What operators ask for: an index rebuilt or renewed, and the state of everything in one view."""

from ingest.maintenance.rebuild import Told, rebuild, reindex, restore
from ingest.maintenance.status import read_status, show_status

__all__ = ["Told", "read_status", "rebuild", "reindex", "restore", "show_status"]
