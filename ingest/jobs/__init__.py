"""Jobs: who has claimed which (SQL is the truth), and the broker that brings their ids to workers (Redis)."""

from ingest.jobs.broker import Delivery, DeliverySettings, Later, deliver
from ingest.jobs.claims import LEASE_SECONDS, MOST_ATTEMPTS, RENEW_SECONDS, ClaimLost, Owner, Queue, this_process

__all__ = [
    "LEASE_SECONDS",
    "MOST_ATTEMPTS",
    "RENEW_SECONDS",
    "ClaimLost",
    "Delivery",
    "DeliverySettings",
    "Later",
    "Owner",
    "Queue",
    "deliver",
    "this_process",
]
