"""The error of embedding."""


class EmbeddingUnavailable(Exception):
    """The text cannot be embedded now: no model, a busy queue, or an endpoint that is away or refuses."""
