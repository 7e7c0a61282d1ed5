"""What a route takes from the application that serves it."""

from typing import Annotated, cast

from fastapi import Depends, Request

from ingest.services import Services


def services_of(request: Request) -> Services:
    """Return the services that the application was started with."""
    return cast("Services", request.app.state.services)


TheServices = Annotated[Services, Depends(services_of)]
