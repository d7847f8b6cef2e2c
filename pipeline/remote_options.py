"""What the libraries that speak to remote places are told; one table for all of them in the configuration.

- They cache no listing, since others write; they try twice by themselves, so that one part of a big upload that is
  told to slow down does not cost the others. All else is tried again by `remote.py`.
"""

from __future__ import annotations

from typing import Any

import aiohttp

from pipeline.remote_config import RemoteConfig

S3, GOOGLE, WEB = ("s3", "s3a"), ("gs", "gcs"), ("http", "https")


def options_of(scheme: str, config: RemoteConfig) -> dict[str, Any]:
    """Return what fsspec is to be told for a scheme."""
    if scheme in S3:
        options: dict[str, Any] = {
            "anon": config.anonymous,
            "client_kwargs": {"region_name": config.region} if config.region else {},
            "config_kwargs": {
                "retries": {"mode": "standard", "total_max_attempts": 2},
                "read_timeout": config.silence_s,
                "connect_timeout": config.silence_s,
            },
            "max_concurrency": 4,
            "use_listings_cache": False,
        }
        named = {"endpoint_url": config.endpoint_url, "profile": config.profile}
        return {**options, **{key: value for key, value in named.items() if value}}
    if scheme in WEB:
        silence = aiohttp.ClientTimeout(total=None, sock_connect=config.silence_s, sock_read=config.silence_s)
        return {"client_kwargs": {"timeout": silence}, "use_listings_cache": False}
    if scheme in GOOGLE:
        options = {"token": "anon"} if config.anonymous else {}
        return {**options, "endpoint_url": config.endpoint_url or None, "use_listings_cache": False}
    return {}
