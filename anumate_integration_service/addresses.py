"""Whether an address can be the control plane's, before it is asked for anything."""

from __future__ import annotations

from urllib.parse import urlsplit


def control_plane(url: str) -> str:
    """The address, without a slash at its end.

    Raises:
        ValueError: it cannot be one; the sentence says what it takes.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none
        fits = False
    if fits:
        return url.rstrip("/")
    shown = f"{url.partition('://')[0]}://***@{url.rpartition('@')[2]}" if "@" in url else url
    raise ValueError(f"{shown!r} is no address of a control plane: it takes one like http://localhost:8090")
