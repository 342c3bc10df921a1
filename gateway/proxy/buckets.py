"""What a rate-limit policy says, and what a worker knows of one bucket of it."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from typing import Final

from anumate.lib.problem import Problem
from gateway.proxy.table import RateLimit

LEASE_SECONDS: Final = 1.0
CREDIT_FROM: Final = 500
CREDIT_SHARE: Final = 50
"""From this burst on, one part in so many of it is not in Redis, but for workers to give out on credit."""


class Policy:
    """A rate-limit policy, compiled: what every bucket of it shares."""

    __slots__ = (
        "burst",
        "by",
        "capacity",
        "credit",
        "header",
        "lines",
        "name",
        "policy_field",
        "prefix",
        "rate",
        "tenant",
        "wait_field",
    )

    def __init__(self, limit: RateLimit, *, built_in: bool = False) -> None:
        self.rate = limit.rate
        self.burst = limit.burst
        self.credit = limit.burst // CREDIT_SHARE if limit.burst >= CREDIT_FROM else 0
        self.capacity = limit.burst - self.credit
        """What the bucket in Redis holds at most."""
        self.by = limit.by
        self.header = limit.by.removeprefix("header:").lower().encode() if limit.by.startswith("header:") else b""
        self.name = limit.name.encode()
        self.tenant = limit.tenant
        # Its tenant's hash tag keeps the buckets of one request on one node of a cluster.
        # What is built in is counted under an empty name, which no tenant can give to a policy of its own.
        self.prefix = f"anumate:rl:{{{limit.tenant}}}:{'' if built_in else limit.name}:"
        window = max(1, math.ceil(limit.burst / limit.rate))
        self.policy_field = b'"%b";q=%d;w=%d' % (self.name, limit.burst, window)
        self.wait_field = max(1, math.ceil(1 / limit.rate))
        after = b";t=%d\r\nratelimit-policy: %b\r\n" % (self.wait_field, self.policy_field)
        self.lines = b'ratelimit: "%b";r=' % self.name, after
        """Both fields as lines; how many tokens are left goes between the two."""

    def key(self, subject: str) -> str:
        """The bucket's name in Redis. What a client may choose freely is digested: bounded, and never a secret."""
        if self.header:
            subject = hashlib.sha256(subject.encode()).hexdigest()[:32]
        return self.prefix + subject


class Bucket:
    """What this worker knows of one bucket."""

    __slots__ = (
        "answered",
        "doubtful",
        "drawing",
        "drawn_at",
        "empty_until",
        "ends",
        "granted",
        "held",
        "key",
        "leased",
        "left",
        "owed",
        "peers",
        "policy",
        "remaining",
        "reserving",
        "serial",
        "share",
        "share_at",
        "taken",
        "token_at",
        "touched",
        "waiting",
    )

    def __init__(self, policy: Policy, key: str, now: float, answered: int = 0, peers: int = 0) -> None:
        self.policy = policy
        self.key = key
        self.left = 0
        self.leased = 0
        self.granted = 0
        self.serial = 0
        self.ends = 0.0
        self.taken = 0
        self.waiting = 0
        self.reserving = 0
        self.held = 0  # by requests that wait for tokens of others, too
        self.owed = 0.0  # given out on credit or while Redis was away, and not told to Redis yet
        self.doubtful: float | None = None  # so much of it was told without an answer, and may have been counted
        self.answered = answered  # serial of the last message about what is owed that had an answer
        self.touched = now
        self.drawn_at = now - LEASE_SECONDS  # nothing is known of the demand
        self.empty_until = self.token_at = 0.0
        self.remaining = policy.capacity
        self.peers = peers
        self.share = 1.0  # or a slow policy would never admit whom this worker does not know yet
        self.share_at = now
        self.drawing: asyncio.Task[None] | None = None

    def has_token(self, now: float) -> bool:
        """Whether one can be given out without asking."""
        return now < self.ends and self.left > 0

    def is_at_rest(self, now: float) -> bool:
        """Whether nothing is lost with it: nobody waits for it, no token of it is out, and Redis knows of all."""
        in_use = self.drawing is not None or self.owed or self.waiting or self.held
        return not (in_use or self.has_token(now))

    def tokens(self, now: float) -> int:
        """About how many requests it would admit now."""
        if now < self.empty_until:
            return 0
        known = self.left + self.remaining + int((now - self.drawn_at) * self.policy.rate)
        return max(0, int(min(known, self.policy.burst) - self.owed))

    def fields(self, now: float) -> list[tuple[bytes, bytes]]:
        """RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10)."""
        policy = self.policy
        value = b'"%b";r=%d;t=%d' % (policy.name, self.tokens(now), policy.wait_field)
        return [(b"ratelimit", value), (b"ratelimit-policy", policy.policy_field)]

    def lines(self, now: float) -> bytes:
        """The same as lines of a head."""
        before, after = self.policy.lines
        return b"%b%d%b" % (before, self.tokens(now), after)


def tightest(buckets: Sequence[Bucket], now: float) -> list[tuple[bytes, bytes]]:
    """The fields of several buckets: every policy, and what is left of the one that will refuse first."""
    (limit, _) = min(buckets, key=lambda bucket: bucket.tokens(now)).fields(now)
    return [limit, (b"ratelimit-policy", b", ".join([bucket.policy.policy_field for bucket in buckets]))]


def refusal(bucket: Bucket, now: float) -> Problem:
    wait = max(bucket.token_at - now, 0.0)
    policy = bucket.policy
    detail = f"Policy {policy.name.decode()} admits {policy.rate:g} requests a second, {policy.burst} at once."
    return Problem("rate_limited", detail, headers={"Retry-After": str(max(1, math.ceil(wait)))})
