"""Jobs: who has claimed which (SQL is the truth), and the broker that brings their ids to workers (Redis)."""

from ingest.jobs.broker import JobBroker, JobBrokerSettings, RetryLater, deliver
from ingest.jobs.claims import LEASE_SECONDS, MOST_ATTEMPTS, RENEW_SECONDS, ClaimLost, JobClaims, Owner, this_process

__all__ = [
    "LEASE_SECONDS",
    "MOST_ATTEMPTS",
    "RENEW_SECONDS",
    "ClaimLost",
    "JobBroker",
    "JobBrokerSettings",
    "JobClaims",
    "Owner",
    "RetryLater",
    "deliver",
    "this_process",
]
