"""Signing out ends what the person has open, in whichever process its socket lives."""

from __future__ import annotations

import logging
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from anumate.lib.redis import UNAVAILABLE

logger = logging.getLogger(__name__)


def logout_group(user_id: Any) -> str:
    """The channel layer's group of one person's open pages."""
    return f"live.user.{user_id}"


def announce_logout(sender: Any, user: Any, **rest: Any) -> None:
    """Receives Django's `user_logged_out`. Redis away must not keep anyone from signing out."""
    if user is None:
        return
    try:
        async_to_sync(get_channel_layer().group_send)(logout_group(user.pk), {"type": "goodbye"})
    except UNAVAILABLE as error:
        logger.warning("Open live pages of %s end at their next check, not at once: %s", user, error)
