"""The client of S3-compatible stores; address and keys come from AWS's own variables (AWS_ENDPOINT_URL, …)."""

from typing import Any

import botocore.session
from s3fs import S3FileSystem

from knowledge.tls import TlsSettings


def open_s3(seconds: float, tls: TlsSettings, **options: Any) -> S3FileSystem:
    """Return a client with a timeout of `seconds` per attempt; `options` are passed to s3fs."""
    config: dict[str, Any] = {"connect_timeout": seconds, "read_timeout": seconds, "retries": {"max_attempts": 2}}
    if tls.cert_file is not None:
        config["client_cert"] = (str(tls.cert_file), str(tls.key_file)) if tls.key_file else str(tls.cert_file)
    authorities = {} if tls.ca_file is None else {"verify": str(tls.ca_file)}
    return S3FileSystem(config_kwargs=config, client_kwargs=authorities, skip_instance_cache=True, **options)


def s3_address() -> str:
    """Return the store's endpoint URL (blocking)."""
    return str(botocore.session.get_session().create_client("s3").meta.endpoint_url)
