"""TLS of every connection to another part: its settings, and at the start one sentence on what is wrong with it."""

from knowledge.tls.connections import Connection, EncryptedSettings, TlsRefused, check_connections
from knowledge.tls.settings import SYSTEM_TLS, TlsFiles, TlsSettings, load_certificate, tls_reason

__all__ = [
    "SYSTEM_TLS",
    "Connection",
    "EncryptedSettings",
    "TlsFiles",
    "TlsRefused",
    "TlsSettings",
    "check_connections",
    "load_certificate",
    "tls_reason",
]
