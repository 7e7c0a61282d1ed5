"""The bearer token of a request (RFC 6750)."""

from starlette.datastructures import Headers

from knowledge.identity import TokenRefused


def bearer_token(headers: Headers) -> str:
    """Return the token of the `Authorization` header.

    Raises:
        TokenRefused: the header has no bearer token.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenRefused("send a token in the header 'Authorization: Bearer …'")
    return token.strip()
