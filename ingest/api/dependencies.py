"""Dependencies of routes: all services, or a single one for a route that needs only one or two."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from edge.sign_in import SignIn
from ingest.catalogue import Catalogue
from ingest.services import PipelineSettings, Services
from knowledge.identity import Authenticator
from knowledge.index import Index
from telemetry.siem import Siem

T = TypeVar("T")

Clock = Callable[[], float]
NO_NUL = r"^[^\x00]*$"
"""Matches text without NUL, which PostgreSQL cannot store."""
LARGEST_VERSION = 2**31 - 1
"""The largest value of a PostgreSQL integer column."""


async def services_of(request: Request) -> Services:
    """Return the services that the application was created with."""
    return cast("Services", request.app.state.services)


TheServices = Annotated[Services, Depends(services_of)]


def part(of: Callable[[Services], T]) -> Callable[[Services], Awaitable[T]]:
    """Return a dependency that provides one of the services."""

    async def dependency(services: TheServices) -> T:  # async because FastAPI runs other dependencies in a thread
        return of(services)

    return dependency


TheAuthenticator = Annotated[Authenticator | None, Depends(part(lambda services: services.authenticator))]
TheCatalogue = Annotated[Catalogue, Depends(part(lambda services: services.catalogue))]
TheClock = Annotated[Clock, Depends(part(lambda services: services.now))]
TheIndex = Annotated[Index, Depends(part(lambda services: services.index))]
TheSiem = Annotated[Siem, Depends(part(lambda services: services.siem))]
TheSignIn = Annotated[SignIn | None, Depends(part(lambda services: services.sign_in))]
TheSettings = Annotated[PipelineSettings, Depends(part(lambda services: services.settings))]
