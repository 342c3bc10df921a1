"""Moments and spans as people type and read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def span(text: str, option: str) -> timedelta:
    """`30m`, `1h30m`, `7d`.

    Raises:
        typer.BadParameter: it is no span, or none at all.
    """
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"{text!r} is no span like 30m, 2h or 7d", param_hint=option)
    try:
        whole = sum((timedelta(**{_UNITS[unit]: float(number)}) for number, unit in parts), timedelta())
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is longer than anything lasts", param_hint=option) from None
    if not whole:
        raise typer.BadParameter("it takes more than nothing", param_hint=option)
    return whole


def end(lasting: str, until: str, now: datetime) -> str | None:
    """When something ends that is said by `--for` or `--until`, as the API takes it; None: neither is given.

    Raises:
        typer.BadParameter: both are given, or one is not readable, or over already.
    """
    if lasting and until:
        raise typer.BadParameter("use one of --for and --until", param_hint="--until")
    if lasting:
        try:
            return _iso(now + span(lasting, "--for"))
        except OverflowError:
            raise typer.BadParameter(f"{lasting!r} ends after the calendar", param_hint="--for") from None
    if not until:
        return None
    moment = read(until)
    if moment is None:
        raise typer.BadParameter(f"{until!r} is no moment like 2026-12-31T18:00:00Z", param_hint="--until")
    if moment <= now:
        raise typer.BadParameter(f"{until} is over", param_hint="--until")
    return _iso(moment)


def read(text: str | None) -> datetime | None:
    """A moment of ISO 8601; without a zone it is this machine's time. None: it is no moment."""
    try:
        moment = datetime.fromisoformat(str(text or ""))
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def shown(text: str | None) -> str:
    """To the minute, in UTC."""
    moment = read(text)
    return f"{moment:%Y-%m-%d %H:%M}Z" if moment else str(text or "")


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
