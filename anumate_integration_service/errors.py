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
