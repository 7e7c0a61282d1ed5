"""Text from vLLM: a pool of endpoints, their breakers, streaming, failover with exact continuation, token
probabilities.
"""

from chatbot.models.breaker import Breaker, BreakerSettings, State
from chatbot.models.call import ModelCallFinished
from chatbot.models.choice_probabilities import MOSTLY, YES_OR_NO, numbers
from chatbot.models.client import (
    UNKNOWN_MODEL,
    Delta,
    ModelDone,
    Models,
    Switched,
    open_models,
)
from chatbot.models.completion import Asking, CompletionDecoder, Sampling
from chatbot.models.endpoint import Endpoint, EndpointFailed, FailureName, open_session
from chatbot.models.pool import (
    GROUPS,
    PROFILES,
    Group,
    Member,
    ModelSettings,
    ModelsFile,
    ModelsMisconfigured,
    ProfileName,
)

__all__ = [
    "GROUPS",
    "MOSTLY",
    "PROFILES",
    "UNKNOWN_MODEL",
    "YES_OR_NO",
    "Asking",
    "Breaker",
    "BreakerSettings",
    "CompletionDecoder",
    "Delta",
    "Endpoint",
    "EndpointFailed",
    "FailureName",
    "Group",
    "Member",
    "ModelCallFinished",
    "ModelDone",
    "ModelSettings",
    "Models",
    "ModelsFile",
    "ModelsMisconfigured",
    "ProfileName",
    "Sampling",
    "State",
    "Switched",
    "numbers",
    "open_models",
    "open_session",
]
