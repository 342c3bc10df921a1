"""The fixture that every project with this package installed has. Collection pays for nothing but this file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from anumate_integration_service.testing import FakeRegistry


@pytest.fixture
def anumate_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRegistry]:
    """An empty registry of this test's own; `ANUMATE_URL` points to it."""
    from anumate_integration_service.testing import FakeRegistry

    with FakeRegistry() as registry:
        monkeypatch.setenv("ANUMATE_URL", registry.url)
        monkeypatch.delenv("ANUMATE_API_KEY", raising=False)
        yield registry
