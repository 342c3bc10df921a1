"""What can go wrong between a service and its registry. Each type answers: is it worth trying again?"""

from __future__ import annotations


class AnumateError(Exception):
    """Anything this package raises on purpose."""


class RegistryUnavailable(AnumateError):
    """The registry did not answer, or said that it cannot now. Worth trying again, after `retry_after` if given."""

    def __init__(self, sentence: str, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class RegistrationRefused(AnumateError):
    """The registry understood and said no: a wrong key, a name that is no DNS label. Trying again changes nothing."""

    def __init__(self, sentence: str, *, status: int, code: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


class LeaseUnknown(AnumateError):
    """The registry does not know this instance (any more): register again."""


class NoInstances(AnumateError):
    """Nobody of that service may get traffic now. Worth trying again once somebody is there."""

    def __init__(self, service: str) -> None:
        super().__init__(f"no instance of {service} may get traffic")
        self.service = service


class CircuitOpen(AnumateError):
    """Every instance of the service has been failing, so none was asked. Try again after `retry_after` seconds."""

    def __init__(self, service: str, retry_after: float) -> None:
        super().__init__(f"every instance of {service} has been failing; the next try is in {retry_after:.1f} s")
        self.service = service
        self.retry_after = retry_after
