from __future__ import annotations

import pytest

from gateway.proxy.upstream import ConnectFailed, Pool


async def test_a_connection_to_a_link_local_address_is_never_opened() -> None:
    with pytest.raises(ConnectFailed, match="Link-local"):
        await Pool("169.254.169.254", 80).connect(1.0)
