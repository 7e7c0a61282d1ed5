"""The services as parameters of routes: one part if a route needs only that, else all services."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from chatbot.conversations import History
from chatbot.limits import Ledger
from chatbot.models import Models
from chatbot.services import Services
from chatbot.streams import Answers
from edge.sign_in import SignIn
from knowledge.identity import Authenticator
from knowledge.service_keys import ServiceKeys
from knowledge.withdrawals import Withdrawals
from telemetry.siem import Siem

T = TypeVar("T")


async def services_of(request: Request) -> Services:
    """Return the application's services."""
    return cast("Services", request.app.state.services)


TheServices = Annotated[Services, Depends(services_of)]


def part(select: Callable[[Services], T]) -> Callable[[Services], Awaitable[T]]:
    """Return the dependency that passes the selected part of the services to a route."""

    async def dependency(services: TheServices) -> T:  # async, because FastAPI runs other functions in a thread
        return select(services)

    return dependency


TheAnswers = Annotated[Answers, Depends(part(lambda services: services.answers))]
TheAuthenticator = Annotated[Authenticator, Depends(part(lambda services: services.authenticator))]
TheHistory = Annotated[History, Depends(part(lambda services: services.history))]
TheLedger = Annotated[Ledger, Depends(part(lambda services: services.ledger))]
TheModels = Annotated[Models, Depends(part(lambda services: services.models))]
ThePings = Annotated[Mapping[str, Callable[[], Awaitable[None]]], Depends(part(lambda services: services.pings))]
TheServiceKeys = Annotated[ServiceKeys, Depends(part(lambda services: services.service_keys))]
TheSiem = Annotated[Siem, Depends(part(lambda services: services.siem))]
TheSignIn = Annotated[SignIn | None, Depends(part(lambda services: services.sign_in))]
TheTime = Annotated[float, Depends(part(lambda services: services.now()))]
"""The time of the request, in Unix seconds."""
TheWithdrawals = Annotated[Withdrawals, Depends(part(lambda services: services.withdrawals))]
