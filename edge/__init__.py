"""The HTTP layer shared by both services: headers, bearer tokens, problem documents, pages and listening.

It does not depend on either service's routes, settings or errors; each service translates into its own error tree.
"""

from edge.bearer import bearer_token
from edge.certificates import ServerTlsSettings
from edge.headers import add_response_headers, security_headers
from edge.listening import PortTaken, bind, listening
from edge.openapi import Api
from edge.page import serve_page
from edge.problems import PROBLEM_JSON, ProblemDocument, allowed_methods, invalid_fields, problem_json
from edge.wrong_settings import RedisUrl, reject_invalid_numbers, wrong_settings

__all__ = [
    "PROBLEM_JSON",
    "Api",
    "PortTaken",
    "ProblemDocument",
    "RedisUrl",
    "ServerTlsSettings",
    "add_response_headers",
    "allowed_methods",
    "bearer_token",
    "bind",
    "invalid_fields",
    "listening",
    "problem_json",
    "reject_invalid_numbers",
    "security_headers",
    "serve_page",
    "wrong_settings",
]
