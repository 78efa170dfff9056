"""Hosts in URLs and in routes: replace the host of a URL, compare a host with a pattern."""

from urllib.parse import urlsplit


def at_host(url: str, host: str) -> str:
    """Return a URL with another host. Scheme and port stay."""
    parts = urlsplit(url)
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()


def includes(pattern: str, host: str) -> bool:
    """Return whether a host of a route means `host`: `*.example.com` means every host below example.com (Gateway API, Hostname)."""
    return host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern
