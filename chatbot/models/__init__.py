"""Text and token probabilities from OpenAI-compatible servers: a pool of endpoints, streams, exact failover."""

from chatbot.models.choice_probabilities import LEAST_CHOICE_MASS, YES_OR_NO, Choices, number_choices
from chatbot.models.client import UNKNOWN_MODEL, ModelDone, Models, NotResumable, Switched, open_models
from chatbot.models.endpoint import Endpoint, Group, Piece, Sampling, StreamDecoder
from chatbot.models.generation import Delta, Generation, Thought, read_output
from chatbot.models.pool import SERVING_GROUPS, ModelCall
from chatbot.models.settings import ModelSettings, ModelsFile, ModelsMisconfigured, ProfileName

__all__ = [
    "LEAST_CHOICE_MASS",
    "SERVING_GROUPS",
    "UNKNOWN_MODEL",
    "YES_OR_NO",
    "Choices",
    "Delta",
    "Endpoint",
    "Generation",
    "Group",
    "ModelCall",
    "ModelDone",
    "ModelSettings",
    "Models",
    "ModelsFile",
    "ModelsMisconfigured",
    "NotResumable",
    "Piece",
    "ProfileName",
    "Sampling",
    "StreamDecoder",
    "Switched",
    "Thought",
    "number_choices",
    "open_models",
    "read_output",
]
