"""Dependencies of the routes: the services, and limits of values for PostgreSQL."""

from typing import Annotated, cast

from fastapi import Depends, Request

from ingest.services import Services

NO_NUL = r"^[^\x00]*$"
"""Matches text without NUL, which PostgreSQL cannot store."""
LARGEST_VERSION = 2**31 - 1
"""The largest value of a PostgreSQL integer column."""


async def services_of(request: Request) -> Services:
    """Return the services that the application was created with."""
    return cast("Services", request.app.state.services)


TheServices = Annotated[Services, Depends(services_of)]
