"""Jobs: rows in SQL, which workers claim."""

from ingest.jobs.claims import LEASE_SECONDS, MOST_ATTEMPTS, RENEW_SECONDS, ClaimLost, JobClaims, Owner, this_process

__all__ = [
    "LEASE_SECONDS",
    "MOST_ATTEMPTS",
    "RENEW_SECONDS",
    "ClaimLost",
    "JobClaims",
    "Owner",
    "this_process",
]
