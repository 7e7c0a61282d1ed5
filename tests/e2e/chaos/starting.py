"""Starts a replica on a machine that has little time for it."""

import contextlib
import time

import httpx2

from tests.e2e.cluster import Server

START_SECONDS = 300.0


def start_again(replica: Server) -> None:
    """Start a replica and wait until it listens; one that ends meanwhile, for a store is away, is started anew.

    Raises:
        TimeoutError: it never listens.
    """
    deadline = time.monotonic() + START_SECONDS
    with httpx2.Client() as http:
        while time.monotonic() < deadline:
            if replica.process is None or replica.process.poll() is not None:
                replica.start()
            with contextlib.suppress(httpx2.TransportError):
                http.get(f"{replica.url}/livez")
                return
            time.sleep(0.2)
    raise TimeoutError(f"{replica.log} says why it never started")
