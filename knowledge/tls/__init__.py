"""TLS of every connection to another component: its settings, and a check at startup that explains failures."""

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
