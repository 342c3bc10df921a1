"""Which instances a group may use."""

from __future__ import annotations

from typing import cast

from gateway.proxy.balancer import Balancer, wanted_by
from gateway.proxy.table import Target
from registry.live.catalog import Catalog
from registry.live.instances import Document, Endpoint, Instance, Key
from tests.gateway.proxy.conftest import a_route


class _Catalog:
    def instances(self, tenant: str, service: str) -> tuple[Instance, ...]:
        return (_instance("heavy", "1.0", 100), _instance("none", "2.0", 0))


def _instance(id: str, version: str, weight: int) -> Instance:
    document = Document(endpoints={"http": Endpoint("http", "127.0.0.1", 1)}, version=version, weight=weight)
    return Instance(Key("default", "orders", id), document, 0.0)


def test_an_instance_of_weight_0_serves_only_the_group_that_has_no_other_in_whatever_order_they_are_bound() -> None:
    targets = (Target("orders"), Target("orders", version=">=2"))
    balancer = Balancer(cast(Catalog, _Catalog()), lambda: 0.0)
    balancer.adopt((), wanted_by([a_route(targets=targets)]))
    (everything, _), (newest, _) = balancer.shares("default", targets)
    for _ in range(2):
        balancer._of_service["default", "orders"].reverse()
        balancer.refresh([("default", "orders")])
        assert [endpoint.id for endpoint in everything.endpoints] == ["heavy"]
        assert [endpoint.id for endpoint in newest.endpoints] == ["none"]
