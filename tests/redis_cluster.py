"""A Redis Cluster of three nodes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

from redis import Redis as BlockingRedis

from tests.conftest import NOT_DURABLE, START_SECONDS, free_port, redis_server

SLOTS = 16384
NODES = 3


@contextmanager
def redis_cluster(folder: Path) -> Iterator[list[int]]:
    """Run three nodes with a third of the slots each; yield their ports."""
    ports, buses = ([free_port() for _ in range(NODES)] for _ in range(2))
    bounds = [SLOTS * n // NODES for n in range(NODES + 1)]
    with ExitStack() as stack:
        for port, bus in zip(ports, buses, strict=True):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), *NOT_DURABLE)
            stack.enter_context(redis_server(folder / str(port), *options, port=port))
        nodes = [stack.enter_context(BlockingRedis(port=port)) for port in ports]
        for epoch, (client, (first, end)) in enumerate(zip(nodes, pairwise(bounds), strict=True), 1):
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", epoch)
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, end - 1)
        for port, bus in zip(ports[1:], buses[1:], strict=True):
            nodes[0].execute_command("CLUSTER MEET", "127.0.0.1", port, bus)
        deadline = time.monotonic() + START_SECONDS
        while not all(is_whole(client) for client in nodes):
            assert time.monotonic() < deadline, "the nodes never became a cluster"
            time.sleep(0.05)
        yield ports


def is_whole(client: BlockingRedis) -> bool:
    info = client.execute_command("CLUSTER INFO")  # type: ignore[no-untyped-call]  # has no types
    return str(info["cluster_state"]) == "ok" and int(info["cluster_known_nodes"]) == NODES


def keys_by_node(ports: list[int], tenant: str) -> dict[int, list[bytes]]:
    """Return a tenant's keys by the port of their node."""
    keys_at = {}
    for port in ports:
        with BlockingRedis(port=port) as client:
            keys_at[port] = list(client.scan_iter(match=f"*{tenant}*", count=1000))
    return {port: keys for port, keys in keys_at.items() if keys}
