"""Jobs: SQL rows that each index one version, and the claims by which workers take them."""

from ingest.jobs.claims import LEASE_SECONDS, MOST_ATTEMPTS, RENEW_SECONDS, ClaimLost, JobClaims

__all__ = ["LEASE_SECONDS", "MOST_ATTEMPTS", "RENEW_SECONDS", "ClaimLost", "JobClaims"]
