from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from gateway.control import documents
from gateway.control.compile import compile_table
from gateway.forms import AddressesField
from gateway.models import Route, RouteLimit, RouteTarget, Upstream
from gateway.proxy import policies, table
from registry.models import Service
from tests.api import api, code, pointers, tenant

KINDS = sorted(
    {kind for model in (Route, Upstream) for kind in model.documents.values()}, key=lambda kind: kind.__name__
)
SAMPLES: dict[type, dict[str, Any]] = {
    policies.Rewrite: {"path": "/v2"},
    policies.Redirect: {"status": 301, "host": "www.example.com"},
    policies.HeaderEdits: {"set": [{"name": "X-A", "value": "1"}], "remove": ["Server"]},
    policies.Mirror: {"service": "shadow", "sample": 0.1},
    policies.Cors: {"origins": ["https://a.example"], "credentials": True},
    policies.Timeouts: {"total": 30.0},
    policies.Retry: {"on": ["status"], "statuses": [429]},
    policies.Hedge: {"after": 0.2},
    policies.Limits: {"concurrent": 5},
    policies.Auth: {"methods": ["key", "jwt"]},
    policies.AccessLog: {"sample": 1.0},
    policies.WebSockets: {"enabled": False},
    policies.Sticky: {"by": "cookie:session"},
    policies.Outlier: {"consecutive_failures": 0},
    policies.Tls: {"server_name": "internal.example"},
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_document_is_kept_as_it_was_given(kind: type[policies.Document]) -> None:
    assert documents.short(documents.read(kind, SAMPLES[kind])) == SAMPLES[kind]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_empty_document_is_one_and_is_kept_empty(kind: type[policies.Document]) -> None:
    assert documents.short(documents.read(kind, {})) == {}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_what_goes_without_saying_is_not_kept(kind: type[policies.Document]) -> None:
    whole = {name: getattr(kind(), name) for name in kind.__struct_fields__}
    assert documents.short(documents.read(kind, whole)) == {}


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["set", "origins", "x"]), inner),
    )
)
def test_whatever_is_sent_is_read_or_refused_with_a_sentence(value: Any) -> None:
    for kind in KINDS:
        try:
            documents.read(kind, value)
        except documents.Misread as error:
            sentence = error.sentence
            assert sentence.endswith("."), sentence


BAD_PATHS = [
    *("/a?b=c", "/a#b", "/%zz", "/a%2", "/a%", "/a b", "/a\n", "/a\x7f", "/é", "/a\\\\b", "/%5c", "/%00", "/<b>"),
    *("//a.example", "/a//b", "/a/../b", "/./x", "/a/..", "/%2e%2E/x", "/.%2e", "/a/..;x", '/"', "/[a]"),
]
BAD_AUTHORITIES = [
    *("a.example:0", "a.example:65536", "a.example:", "a.example:x", "a.example:99999", "user@a.example", "a b", ":80"),
    *("a_b.example", "a..example", "-a.example", "a-.example", "http://a", "a/b", "::1", "[::1", "[:::]", "[1.2.3.4]"),
    *("[fe80::1%eth0]", "1.2.3.4.5", "300.1.1.1", "0x7f.1", f"{'a' * 64}.example", "é.example", "a.example."),
]
BAD_ADDRESSES = ["user@a", "a b", "a:80", "[::1]", "-a", "1.2.3", "0.0.0.0", "fe80::1%1", "169.254.169.254", "a/b"]  # noqa: S104
BAD_SERVER_NAMES = [*(name for name in BAD_AUTHORITIES if name != "::1"), "a.example:443", "[::1]", "*.a.b"]
GOOD_PATHS = ["/", "/a%20b", "/~a/...", "/a.b/.c", "/v1/", "/x%2Fy", "/a:@!$&'()*+,;="]
GOOD_AUTHORITIES = ["a", "A.example:080", "10.0.0.7:1", "[::1]", "[fd00::7]:65535"]
GOOD_ORIGINS = ["*", "http://localhost:3000", "app://x", "https://a_b.c", "http://[::1]:8080"]
OURS = ["date", "Date", "x_consumer_id", "X_Consumer-Tenant", "content_length", "Transfer_Encoding", "x_forwarded_for"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((policies.Rewrite, {"path": path}) for path in GOOD_PATHS),
        (policies.Rewrite, {"pattern": "(a)", "path": r"\1/\g<1>"}),
        *((policies.Rewrite, {"host": host}) for host in GOOD_AUTHORITIES),
        *((policies.Tls, {"server_name": name}) for name in ("a.Example", "10.0.0.7", "::1")),
        *((policies.Cors, {"origins": [origin]}) for origin in GOOD_ORIGINS),
        (policies.HeaderEdits, {"remove": ["x_team", "Set-Cookie", "Authorization"]}),
    ],
)
def test_what_may_be_said_is_taken(kind: type[policies.Document], value: Any) -> None:
    assert documents.short(documents.read(kind, value)) == value


@pytest.mark.parametrize(
    ("kind", "value", "path"),
    [
        (policies.Cors, {"origin": []}, "origin"),
        (policies.HeaderEdits, {"set": [{"name": "A", "value": "1", "more": 1}]}, "set.0.more"),
        (policies.HeaderEdits, {"set": [{"name": "A"}]}, "set.0"),
        (policies.HeaderEdits, {"set": [{"name": "A", "value": "1\r\nHost: b"}]}, ""),
        (policies.HeaderEdits, {"remove": ["Content-Length"]}, ""),
        (policies.HeaderEdits, {"add": [{"name": "X-Forwarded-For", "value": "1"}]}, ""),
        (policies.HeaderEdits, {"set": [{"name": "X-Consumer-Id", "value": "1"}]}, ""),
        (policies.Retry, {"statuses": [200]}, "statuses.0"),
        (policies.Retry, {"backoff": 2.0}, ""),
        (policies.Timeouts, {"connect": 0}, "connect"),
        (policies.Timeouts, {"total": True}, "total"),
        (policies.Cors, {"origins": ["*"], "credentials": True}, ""),
        (policies.Cors, {"origins": ["https://a.example/path"]}, ""),
        (policies.Redirect, {"status": 301}, ""),
        (policies.Redirect, {"host": "a.example"}, ""),
        (policies.Redirect, {"status": 200, "host": "a"}, "status"),
        (policies.Rewrite, {"path": "v2"}, ""),
        (policies.Rewrite, {"path": "/a b"}, ""),
        *((policies.Rewrite, {"path": path}, "") for path in BAD_PATHS),
        *((policies.Redirect, {"status": 301, "path": path}, "") for path in BAD_PATHS),
        *((policies.Rewrite, {"pattern": "/(a)", "path": rf"{path}/\1"}, "") for path in BAD_PATHS),
        (policies.Rewrite, {"pattern": "/(a)", "path": r"/%\1"}, ""),
        *((policies.Rewrite, {"host": host}, "") for host in BAD_AUTHORITIES),
        *((policies.Redirect, {"status": 301, "host": host}, "") for host in BAD_AUTHORITIES),
        *((policies.Tls, {"server_name": name}, "") for name in BAD_SERVER_NAMES),
        *((policies.Cors, {"origins": [f"https://{host}"]}, "") for host in BAD_AUTHORITIES if "_" not in host),
        *((policies.HeaderEdits, {"remove": [name]}, "") for name in OURS),
        *((policies.Cors, {"methods": [method]}, "") for method in ("get", "CONNECT", "TRACE")),
        *((policies.Retry, {"methods": [method]}, "") for method in ("get", "CONNECT", "TRACE")),
        *((policies.Address, {"host": host, "port": 80}, "") for host in BAD_ADDRESSES),
        *((policies.Address, {"host": "a", "port": port}, "port") for port in (0, -1, 65_536, "80", 1.5)),
        (policies.Rewrite, {"pattern": "("}, ""),
        (policies.Rewrite, {"pattern": "a"}, ""),
        (policies.Sticky, {"by": "cookie:"}, ""),
        (policies.Sticky, {"by": "session"}, ""),
        (policies.Sticky, {"by": "header:X-Consumer-ID"}, ""),
        (policies.Tls, {"certificate": "no PEM"}, ""),
        (policies.Tls, {"certificate": "-----BEGIN PRIVATE KEY-----"}, ""),
        (policies.Mirror, {"service": "No"}, ""),
        (policies.Auth, {"methods": []}, "methods"),
        (policies.Auth, {"query_parameter": "a&b"}, ""),
        (policies.Auth, {"issuers": ["\ud800"]}, ""),
        (policies.Auth, {"\ud800": 1}, ""),
        (policies.Address, {"host": "a", "port": 1, "zone": "\0"}, ""),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(kind: type[policies.Document], value: Any, path: str) -> None:
    with pytest.raises(documents.Misread) as refused:
        documents.read(kind, value)
    assert refused.value.path == path


@pytest.mark.django_db
class TestEverywhere:
    def test_what_the_api_takes_it_shows_and_the_table_carries(self) -> None:
        client = api()
        client.post("/v1/rate-limit-policies", {"name": "burst", "rate": 5, "burst": 9})
        body = {name: SAMPLES[kind] for name, kind in Route.documents.items()}
        body |= {"name": "orders", "path": "/orders", "further_rate_limit_policies": ["burst"]}
        body["targets"] = [
            {"service": "orders"},
            {"service": "next", "tags": ["canary"], "header": {"name": "X-Canary", "value": "yes"}},
        ]
        made = client.post("/v1/routes", body)
        assert made.status_code == 201, made.content
        shown = client.get("/v1/routes/orders").json()
        assert {name: shown[name] for name in Route.documents} == {name: body[name] for name in Route.documents}
        assert shown["further_rate_limit_policies"] == ["burst"]
        again = client.put("/v1/routes/orders", shown).json()
        assert {**again, "warnings": []} == shown
        compiled = compile_table(1)
        assert compiled.skipped == []
        [route] = compiled.table.routes
        assert {name: getattr(route, name) for name in Route.documents} == {
            name: documents.read(kind, body[name]) for name, kind in Route.documents.items()
        }
        assert route.rate_limits == ("burst",)
        assert route.targets[1] == table.Target("next", tags=("canary",), header=policies.Pair("X-Canary", "yes"))
        assert table.decode(table.encode(compiled.table)) == (compiled.table, [])

    def test_an_upstream_outside_the_registry_has_its_addresses(self) -> None:
        client = api()
        body = {
            "service": "legacy",
            "addresses": [
                {"host": "10.0.0.7", "port": 8000},
                {"host": "old.example", "port": 443, "protocol": "https"},
            ],
            "sticky": {"by": "address"},
            "zone": "prefer",
        }
        made = client.post("/v1/upstreams", body)
        assert made.status_code == 201, made.content
        assert {name: made.json()[name] for name in body} == body
        [upstream] = compile_table(1).table.upstreams
        assert [address.host for address in upstream.addresses] == ["10.0.0.7", "old.example"]
        assert (upstream.sticky.by, upstream.zone) == ("address", "prefer")

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"cors": {"origins": ["nowhere"]}}, "/cors"),
            ({"cors": {"colour": 1}}, "/cors/colour"),
            ({"retry": {"statuses": [200]}}, "/retry/statuses/0"),
            ({"further_rate_limit_policies": ["none"]}, "/further_rate_limit_policies"),
            ({"targets": [{"service": "a", "header": {"name": "X", "value": "1"}}]}, "/targets"),
            ({"targets": [{"service": "a", "cookie": {"name": "a b", "value": "1"}}]}, "/targets/0/cookie"),
        ],
    )
    def test_a_refusal_points_to_what_is_wrong(self, body: dict[str, Any], pointer: str) -> None:
        refused = api().post(
            "/v1/routes",
            {"name": "orders", "service": "orders", **body} if "targets" not in body else {"name": "orders", **body},
        )
        assert refused.status_code == 422
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer]

    def test_a_route_that_redirects_needs_no_service(self) -> None:
        made = api().post("/v1/routes", {"name": "old", "redirect": {"status": 308, "scheme": "https"}})
        assert made.status_code == 201, made.content
        assert compile_table(1).skipped == []

    def test_a_row_with_a_broken_document_is_left_out_and_named(self) -> None:
        service = Service.objects.create(tenant=tenant(), name="orders")
        for name in ("good", "bad"):
            RouteTarget.objects.create(route=Route.objects.create(tenant=tenant(), name=name), service=service)
        Route.objects.filter(name="bad").update(cors={"origins": 7})
        compiled = compile_table(1)
        assert [route.name for route in compiled.table.routes] == ["good"]
        assert "cors" in str(compiled.skipped[0])

    @pytest.mark.parametrize("path", [*BAD_PATHS, r"/users/\1"])
    @pytest.mark.parametrize("name", ["rewrite", "redirect"])
    def test_a_row_with_a_bad_new_path_is_left_out_while_others_serve(self, name: str, path: str) -> None:
        client = api()
        client.post("/v1/routes", {"name": "good", "service": "orders"})
        body = {"name": "bad", "service": "orders"}
        document = {"path": path} if name == "rewrite" else {"status": 302, "path": path}
        refused = client.post("/v1/routes", {**body, name: document})
        assert code(refused) == (422, "validation_failed")
        assert pointers(refused) == [f"/{name}"]
        client.post("/v1/routes", body)
        Route.objects.filter(name="bad").update(**{name: document})
        compiled = compile_table(1)
        assert [route.name for route in compiled.table.routes] == ["good"]
        assert "new path" in compiled.skipped[0].sentence

    def test_two_addresses_that_are_the_same_are_refused_by_api_and_form(self) -> None:
        twice = [{"host": "a.example", "port": 80}, {"host": "A.example", "port": 80}]
        refused = api().post("/v1/upstreams", {"service": "legacy", "addresses": twice})
        assert pointers(refused) == ["/addresses"]
        with pytest.raises(ValidationError, match="the same"):
            AddressesField().clean("a.example:80\nA.example:80")

    def test_a_policy_that_a_route_also_uses_cannot_be_deleted(self) -> None:
        client = api()
        client.post("/v1/rate-limit-policies", {"name": "burst", "rate": 5, "burst": 9})
        client.post("/v1/routes", {"name": "a", "service": "a", "further_rate_limit_policies": ["burst"]})
        assert client.delete("/v1/rate-limit-policies/burst").status_code == 409
        assert RouteLimit.objects.count() == 1


@pytest.mark.parametrize(
    "line",
    [
        "::1:80",
        "[a:80",
        "a]:80",
        "a",
        "a:",
        f"a:{'9' * 5000}",
        "a:0",
        "a:65536",
        "user@a:80",
        "ftp://a:80",
        "[]:1",
        "a:80 weight=x",
    ],
)
def test_a_line_of_the_form_that_is_no_address_is_refused(line: str) -> None:
    with pytest.raises(ValidationError):
        AddressesField().clean(line)


def test_a_line_of_the_form_is_an_address() -> None:
    assert AddressesField().clean("https://[::1]:8443 weight=5 zone=a\n10.0.0.7:80") == [
        {"host": "::1", "port": 8443, "protocol": "https", "weight": 5, "zone": "a"},
        {"host": "10.0.0.7", "port": 80},
    ]
