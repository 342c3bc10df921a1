"""Documents as Consul and Eureka write them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from registry.importing import consul, eureka
from registry.importing.entries import BadEntry, Found

CATALOGUE = {
    "ID": "40e4a748-2192-161a-0510-9bf59fe950b5",
    "Node": "web-7",
    "Address": "10.1.10.12",
    "Datacenter": "dc1",
    "TaggedAddresses": {"lan": "10.1.10.12", "wan": "10.1.10.12"},
    "ServiceAddress": "172.17.0.3",
    "ServiceID": "orders-1",
    "ServiceName": "orders",
    "ServiceMeta": {"version": "2.1", "team": "shop"},
    "ServicePort": 8000,
    "ServiceTags": ["v2", "public"],
    "ServiceWeights": {"Passing": 3, "Warning": 1},
    "Namespace": "default",
}
HEALTH = {
    "Node": {"Node": "web-8", "Address": "10.1.10.13", "Datacenter": "dc2"},
    "Service": {"ID": "ledger", "Service": "ledger", "Tags": None, "Address": "", "Meta": None, "Port": 50051},
    "Checks": [
        {"CheckID": "serfHealth", "Status": "passing"},
        {"CheckID": "_service_maintenance:ledger", "Status": "critical", "Notes": "new disks"},
    ],
}
INSTANCE = {
    "instanceId": "web-7:order-service:8080",
    "hostName": "web-7.example.com",
    "app": "ORDER-SERVICE",
    "ipAddr": "10.1.10.12",
    "status": "UP",
    "overriddenstatus": "UNKNOWN",
    "port": {"$": 8080, "@enabled": "true"},
    "securePort": {"$": 443, "@enabled": "false"},
    "dataCenterInfo": {
        "@class": "com.netflix.appinfo.AmazonInfo",
        "name": "Amazon",
        "metadata": {"availability-zone": "eu-1a"},
    },
    "metadata": {"management.port": 8081, "version": "1.4.0"},
    "vipAddress": "order-service",
}


def apps(*instances: Any) -> dict[str, Any]:
    return {
        "applications": {
            "versions__delta": "1",
            "apps__hashcode": "UP_1_",
            "application": [{"name": "ORDER-SERVICE", "instance": list(instances)}],
        }
    }


def body(found: Found) -> dict[str, Any]:
    return dict(msgspec.to_builtins(found.registration))


class TestConsul:
    def test_an_entry_of_the_catalogue_becomes_a_registration(self) -> None:
        (found,) = consul.parse([CATALOGUE])
        made = body(found)
        assert (made["name"], made["instance_id"], made["version"]) == ("orders", "orders-1", "2.1")
        assert made["endpoints"] == {"http": {"protocol": "http", "host": "172.17.0.3", "port": 8000}}
        assert list(made["tags"]) == ["v2", "public", "imported"]
        assert made["metadata"] == {"version": "2.1", "team": "shop", "source": "consul"}
        assert (made["zone"], made["weight"], made["lease_ttl"]) == ("dc1", 300, 86_400)
        assert found.maintenance == ""

    def test_an_entry_of_the_health_endpoint_brings_its_maintenance(self) -> None:
        (found,) = consul.parse({"ledger": [HEALTH]})
        made = body(found)
        assert made["endpoints"]["http"] == {"protocol": "http", "host": "10.1.10.13", "port": 50051}
        assert (made["zone"], found.maintenance) == ("dc2", "new disks")

    def test_a_tag_or_its_metadata_says_the_protocol(self) -> None:
        for more in ({"ServiceTags": ["grpc"]}, {"ServiceMeta": {"protocol": "grpc"}}):
            (found,) = consul.parse([CATALOGUE | more])
            assert list(found.registration.endpoints) == ["grpc"]

    def test_consuls_own_servers_are_left_out(self) -> None:
        assert list(consul.parse([CATALOGUE | {"ServiceName": "consul", "ServicePort": 8300}])) == []


class TestEureka:
    def test_an_instance_becomes_a_registration(self) -> None:
        (found,) = eureka.parse(apps(INSTANCE))
        made = body(found)
        assert (made["name"], made["instance_id"]) == ("order-service", "web-7:order-service:8080")
        assert made["endpoints"] == {"http": {"protocol": "http", "host": "10.1.10.12", "port": 8080}}
        assert made["metadata"] == {"management.port": "8081", "version": "1.4.0", "source": "eureka"}
        assert (made["version"], made["zone"], made["lease_ttl"]) == ("1.4.0", "eu-1a", 86_400)

    def test_one_member_may_stand_without_its_list(self) -> None:
        document = {"applications": {"application": {"name": "ORDER-SERVICE", "instance": INSTANCE}}}
        assert list(eureka.parse(document)) == list(eureka.parse(apps(INSTANCE)))
        assert list(eureka.parse({"applications": {"application": []}})) == []

    def test_ports_that_are_enabled_count(self) -> None:
        both = {"port": 8080, "securePort": {"$": "8443", "@enabled": True}}
        (found,) = eureka.parse(apps(INSTANCE | both))
        assert {name: each.port for name, each in found.registration.endpoints.items()} == {"http": 8080, "https": 8443}
        (found,) = eureka.parse(apps(INSTANCE | both | {"port": {"$": 8080, "@enabled": "false"}}))
        assert list(found.registration.endpoints) == ["https"]

    @pytest.mark.parametrize("field", ["status", "overriddenstatus", "overriddenStatus"])
    def test_out_of_service_is_maintenance(self, field: str) -> None:
        (found,) = eureka.parse(apps(INSTANCE | {field: "OUT_OF_SERVICE"}))
        assert found.maintenance == "OUT_OF_SERVICE in Eureka"

    def test_an_empty_map_says_only_its_class(self) -> None:
        (found,) = eureka.parse(apps(INSTANCE | {"metadata": {"@class": "java.util.Collections$EmptyMap"}}))
        assert found.registration.metadata == {"source": "eureka"}


@pytest.mark.parametrize(
    ("parse", "document", "said"),
    [
        (consul.parse, [CATALOGUE, CATALOGUE | {"ServicePort": 0}], "/1: /endpoints/http/port: "),
        (consul.parse, [CATALOGUE | {"ServiceName": None}], "/0/ServiceName: The service has no name."),
        (consul.parse, [CATALOGUE | {"ServiceName": "a b"}], "/0: /name: "),
        (consul.parse, [CATALOGUE | {"ServiceTags": "v2"}], "/0/ServiceTags: This is no list."),
        (consul.parse, [CATALOGUE | {"ServiceAddress": "169.254.169.254"}], "/0: /endpoints/http/host: "),
        (consul.parse, [CATALOGUE | {"ServiceWeights": {"Passing": "x"}}], "/0/ServiceWeights/Passing: "),
        (consul.parse, {"orders": 5}, "/orders: This is no list"),
        (consul.parse, 5, "/: This is no list"),
        (eureka.parse, apps(INSTANCE, 5), "/applications/application/0/instance/1: This is no object."),
        (eureka.parse, apps(INSTANCE | {"port": {"$": "x"}}), "/applications/application/0/instance/0/port: "),
        (
            eureka.parse,
            apps(INSTANCE | {"port": {"$": 80, "@enabled": "false"}}),
            "/applications/application/0/instance/0: N",
        ),
        (eureka.parse, [], "/: This is no object."),
    ],
)
def test_a_bad_entry_is_named_by_its_position(
    parse: Callable[[Any], Iterator[Found]], document: Any, said: str
) -> None:
    with pytest.raises(BadEntry) as refused:
        list(parse(document))
    assert str(refused.value).startswith(said)
