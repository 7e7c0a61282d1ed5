"""The parts of the services that routes take: annotate a parameter, and FastAPI passes it."""

from collections.abc import Callable
from typing import Annotated, cast

from fastapi import Depends, Request

from ingest.catalogue import Catalogue
from ingest.services import PipelineSettings, Services
from knowledge.identity import Authenticator
from knowledge.index import Index

Clock = Callable[[], float]


async def services_of(request: Request) -> Services:
    """Return the services that the application was created with."""
    return cast("Services", request.app.state.services)


TheServices = Annotated[Services, Depends(services_of)]


async def _authenticator(services: TheServices) -> Authenticator | None:
    return services.authenticator


async def _catalogue(services: TheServices) -> Catalogue:
    return services.catalogue


async def _clock(services: TheServices) -> Clock:
    return services.now


async def _index(services: TheServices) -> Index:
    return services.index


async def _settings(services: TheServices) -> PipelineSettings:
    return services.settings


TheAuthenticator = Annotated[Authenticator | None, Depends(_authenticator)]
TheCatalogue = Annotated[Catalogue, Depends(_catalogue)]
TheClock = Annotated[Clock, Depends(_clock)]
TheIndex = Annotated[Index, Depends(_index)]
TheSettings = Annotated[PipelineSettings, Depends(_settings)]
