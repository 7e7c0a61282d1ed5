"""Why a text has no vector.

EmbeddingUnavailable        the text cannot be embedded now
├── EmbedderMissing         the weights are missing, or hold no model
├── EmbedderRefused         the endpoint lets nobody in, or embeds with another model than it should
└── EmbedderBusy            the queue is full
"""


class EmbeddingUnavailable(Exception):
    """The text cannot be embedded now."""


class EmbedderMissing(EmbeddingUnavailable):
    """The weights are missing, or hold no model."""


class EmbedderRefused(EmbeddingUnavailable):
    """The endpoint lets nobody in, or embeds with another model than it should; asking again does not help."""


class EmbedderBusy(EmbeddingUnavailable):
    """The queue is full."""
