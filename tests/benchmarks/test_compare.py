"""What is compared, and how it is told."""

from __future__ import annotations

import re

import pytest

from benchmarks.alone import ALONE
from benchmarks.compare import ALIASES, as_data, as_markdown, options
from benchmarks.peers import HERE, PEERS, Peer
from benchmarks.rounds import table_of
from benchmarks.services import Services, fill, fill_in
from benchmarks.stats import Table
from benchmarks.workloads import Sample

KNOWN = {**Services(1, 2, 3, 4, "nginx")._asdict(), "port": 5, "admin": 6, "key": "a-key", "home": "/home"}


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_run_has_a_value_for_all_that_a_configuration_leaves_open(peer: Peer) -> None:
    for name in peer.configs:
        text = fill(HERE / name, KNOWN)
        assert "127.0.0.1:1" in text or "port_value: 1}" in text or name == "traefik.yaml"
        assert text.startswith("#"), "it begins with what the peer cannot do"


def test_a_name_without_a_value_is_an_error() -> None:
    assert fill_in("listen @port@; # a@b.example", {"port": 80}) == "listen 80; # a@b.example"
    with pytest.raises(KeyError):
        fill_in("@nobody@", {})


def test_names_of_cases_stand_for_the_workload_that_measures_them_together() -> None:
    assert set(ALIASES.values()) <= set(ALONE)
    assert options(["--workload", "routes-100"]).workload == ["routes-100"]


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--seconds", "601"], ["--peer", "apache"], ["--workload", "x"]])
def test_it_refuses_what_has_no_bound_or_name(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options(wrong)
    assert re.search(r"invalid choice", capsys.readouterr().err)


def test_data_holds_every_sample_and_markdown_the_tables() -> None:
    found = {"ours": [Sample(100.0, 1.0, 2.0, 0, 20.0, 99.0, 80.0, 60.0)]}
    table = table_of("small", found)
    assert as_data(table, found)["rounds"]["ours"][0]["cpu_us"] == 20.0
    assert as_data(Table("m", ("minutes", "KB"), [("1", "2")]), {})["lines"] == [{"minutes": "1", "KB": "2"}]
    text = as_markdown("two cores", ["The service behind them is nginx."], [table])
    assert text.startswith("Measured on two cores.\n\n- The service behind them is nginx.\n\n### small\n\n| ")
