"""Text from vLLM: a pool of endpoints, their breakers, streaming, failover with exact continuation, token
probabilities.
"""

from chatbot.models.breaker import Breaker, BreakerSettings, BreakerState
from chatbot.models.call import ModelCallFinished
from chatbot.models.choice_probabilities import LEAST_CHOICE_MASS, YES_OR_NO, number_choices
from chatbot.models.client import (
    UNKNOWN_MODEL,
    Delta,
    ModelDone,
    Models,
    Switched,
    open_models,
)
from chatbot.models.completion import CompletionDecoder, CompletionRequest, Sampling
from chatbot.models.endpoint import Endpoint, EndpointFailed, FailureName, open_session
from chatbot.models.pool import (
    PROFILES,
    SERVING_GROUPS,
    Group,
    Member,
    ModelSettings,
    ModelsFile,
    ModelsMisconfigured,
    ProfileName,
)

__all__ = [
    "LEAST_CHOICE_MASS",
    "PROFILES",
    "SERVING_GROUPS",
    "UNKNOWN_MODEL",
    "YES_OR_NO",
    "Breaker",
    "BreakerSettings",
    "BreakerState",
    "CompletionDecoder",
    "CompletionRequest",
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
    "Switched",
    "number_choices",
    "open_models",
    "open_session",
]
