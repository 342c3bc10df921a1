"""What the command line says."""

from __future__ import annotations

from dataclasses import dataclass

from anumate.stack.process import StartError


@dataclass(frozen=True, kw_only=True)
class Options:
    """The flags of `start`; None means: as the environment says."""

    host: str = "127.0.0.1"
    port: int = 8090
    gateway_port: int | None = None
    redis: str | None = None
    database_url: str | None = None
    workers: int = 1
    gateway_workers: int = 2
    demo: bool = False

    def check(self) -> None:
        """Raises StartError: the first flag whose number is not accepted."""
        for flag, number, high in (
            ("--port", self.port, 65535),
            ("--gateway-port", self.gateway_port, 65535),
            ("--workers", self.workers, 64),
            ("--gateway-workers", self.gateway_workers, 64),
        ):
            if number is not None and not 1 <= number <= high:
                raise StartError(f"{flag} {number} is not accepted: it takes a whole number from 1 to {high}.")
