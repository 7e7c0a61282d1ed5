"""A collector of OTLP logs on loopback."""

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest


@dataclass
class Collector:
    """A collector of logs that a test can make fail or redirect."""

    status: int = 200
    url: str = ""
    leads_to: str | None = None
    services: set[str] = field(default_factory=set)
    lines: list[str] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.leads_to is not None:
            return web.Response(status=307, headers={"location": self.leads_to})
        if self.status == 200:
            for of_resource in ExportLogsServiceRequest.FromString(body).resource_logs:
                attributes = {one.key: one.value.string_value for one in of_resource.resource.attributes}
                self.services.add(attributes["service.name"])
                for of_scope in of_resource.scope_logs:
                    self.lines += [record.body.string_value for record in of_scope.log_records]
        return web.Response(status=self.status)


@asynccontextmanager
async def collecting(tls: ssl.SSLContext | None = None) -> AsyncGenerator[Collector]:
    collector, app = Collector(), web.Application()
    app.router.add_post("/v1/logs", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    collector.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    yield collector
    await runner.cleanup()
