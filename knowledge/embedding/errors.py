"""Errors of embedding.

EmbeddingUnavailable        the text cannot be embedded now
├── EmbedderMissing         the weights are missing or are not a model
├── EmbedderRefused         the endpoint denies access, or does not embed with the configured model
└── EmbedderBusy            the queue is full
"""


class EmbeddingUnavailable(Exception):
    """The text cannot be embedded now."""


class EmbedderMissing(EmbeddingUnavailable):
    """The weights are missing or are not a model."""


class EmbedderRefused(EmbeddingUnavailable):
    """The endpoint denies access, or does not embed with the configured model; a retry does not help."""


class EmbedderBusy(EmbeddingUnavailable):
    """The queue is full."""
