"""A certificate authority for tests, and certificates that it signs."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificates(folder: Path, *, host: str | None = None, hours: float = 1) -> Path:
    """Write an authority, and a server and a client certificate that it signed, for `host` or for 127.0.0.1.

    They are valid for `hours` from now. Returns the folder.
    """
    folder.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    subject_name = x509.IPAddress(IPv4Address("127.0.0.1")) if host is None else x509.DNSName(host)

    def sign(name: str, issuer: x509.Name, issuer_key: ec.EllipticCurvePrivateKey | None, *, ca: bool = False) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer if issuer_key else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=2))
            .not_valid_after(now + timedelta(hours=hours))
            .add_extension(x509.SubjectAlternativeName([subject_name]), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer_key or key).public_key()), critical=False
            )
            .add_extension(_usage(signs_certificates=ca), critical=True)
            .sign(issuer_key or key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return subject, key

    authority, authority_key = sign("ca", x509.Name([]), None, ca=True)
    for name in ("server", "client"):
        sign(name, authority, authority_key)
    return folder


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    never: dict[str, bool] = dict.fromkeys((*unused, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=True, key_cert_sign=signs_certificates, crl_sign=signs_certificates, **never)


def server_context(folder: Path) -> ssl.SSLContext:
    """Return a server's TLS context with the certificate in a folder of `certificates`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    return context
