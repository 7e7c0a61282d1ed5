"""Text and token probabilities from vLLM: a pool of endpoints with circuit breakers, streams, exact failover."""

from chatbot.models.call import ModelCallFinished
from chatbot.models.choice_probabilities import LEAST_CHOICE_MASS, YES_OR_NO, number_choices
from chatbot.models.client import UNKNOWN_MODEL, ModelDone, Models, NotResumable, Switched, open_models
from chatbot.models.completion import CompletionDecoder, CompletionRequest, Delta, Sampling
from chatbot.models.endpoint import Endpoint, EndpointFailed, FailureName, open_session
from chatbot.models.pool import (
    SERVING_GROUPS,
    Group,
    Member,
    ModelSettings,
    ModelsFile,
    ModelsMisconfigured,
    ProfileName,
)
from chatbot.models.thinking import ThinkingFilter, Thought, begun_answer

__all__ = [
    "LEAST_CHOICE_MASS",
    "SERVING_GROUPS",
    "UNKNOWN_MODEL",
    "YES_OR_NO",
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
    "NotResumable",
    "ProfileName",
    "Sampling",
    "Switched",
    "ThinkingFilter",
    "Thought",
    "begun_answer",
    "number_choices",
    "open_models",
    "open_session",
]
