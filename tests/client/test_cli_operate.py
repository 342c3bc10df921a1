"""The commands of an operator, each as a process against a platform that was started like a user's."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.cells import cell_len

from anumate.stack.preflight import free_port
from tests import environment
from tests.conftest import wait_until
from tests.e2e.running import ROOT, Running, running

CODE = "from anumate_integration_service.cli.main import main; main()"


class Ended(NamedTuple):
    status: int
    out: str
    error: str


class Shell:
    """A terminal in the directory where the platform was started, so that its key is found."""

    def __init__(self, platform: Running, url: str, gateway: str) -> None:
        self.home = platform.home
        self.url, self.gateway = url, gateway
        self.environ = {
            **environment.BARE,
            "HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "ANUMATE_URL": url,
            "ANUMATE_GATEWAY_URL": gateway,
        }

    def open(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", CODE, *arguments],
            cwd=self.home,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environ: str) -> Ended:
        process = self.open(*arguments, **environ)
        out, error = process.communicate(timeout=30)
        return Ended(process.returncode, out, error)

    def ask(self, *arguments: str) -> Any:
        """What `--json` prints of a command that succeeds."""
        ended = self.run(*arguments, "--json")
        assert (ended.status, ended.error) == (0, "")
        return json.loads(ended.out)

    def key(self, *scopes: str) -> str:
        """A new key with these scopes."""
        flags = [flag for scope in scopes for flag in ("--scope", scope)]
        return self.run("keys", "create", "of a test", *flags, "--quiet").out.strip()


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    port, gateway = free_port(), free_port()
    home: Path = tmp_path_factory.mktemp("platform")
    with running(home, "--port", str(port), "--gateway-port", str(gateway), "--demo") as platform:
        platform.wait_until_up()
        yield Shell(platform, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{gateway}")


def said(ended: Ended) -> str:
    """The one line of a command that failed, without the program's name."""
    assert ended.out == ""
    assert ended.error.startswith("anumate-integration: ")
    assert ended.error.count("\n") == 1
    return ended.error.removeprefix("anumate-integration: ").strip()


# What an operator wants


def test_an_instance_is_drained_explained_and_enabled(shell: Shell) -> None:
    drained = shell.run("services", "drain", "orders", "orders-2", "--reason", "new disk", "--for", "30m")
    assert (drained.status, drained.error) == (0, "")
    assert drained.out.startswith("orders/orders-2 is ▲ draining until 20")
    assert drained.out.endswith(": new disk.\n")
    wait_until(lambda: not shell.ask("services", "why", "orders", "orders-2")["eligible"], what="the state")
    explained = shell.run("services", "why", "orders", "orders-2")
    assert explained.status == 0
    assert "✖ orders/orders-2: It gets no traffic." in explained.out
    assert "new disk" in explained.out
    assert shell.run("services", "enable", "orders", "orders-2").out == "orders/orders-2 is ● enabled.\n"
    wait_until(lambda: shell.ask("services", "why", "orders", "orders-2")["eligible"], what="the state")


def test_a_whole_service_goes_into_maintenance_until_a_moment(shell: Shell) -> None:
    answer = shell.ask("services", "maintenance", "inventory", "--until", "2099-01-01T00:00:00Z")
    assert (answer["state"], answer["expires_at"]) == ("maintenance", "2099-01-01T00:00:00Z")
    wait_until(lambda: not any(each["eligible"] for each in shell.ask("services", "why", "inventory")), what="it")
    shell.ask("services", "enable", "inventory")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--for", "soon"), "'soon' is no span like 30m"),
        (("--for", "0m"), "it takes more than nothing"),
        (("--for", "9999999999w"), "longer than anything lasts"),
        (("--until", "tomorrow"), "'tomorrow' is no moment"),
        (("--until", "2001-01-01T00:00:00Z"), "is over"),
        (("--for", "1h", "--until", "2099-01-01T00:00:00Z"), "use one of --for and --until"),
    ],
)
def test_an_end_that_is_none_is_wrong_usage(shell: Shell, flags: tuple[str, ...], sentence: str) -> None:
    ended = shell.run("services", "drain", "orders", *flags)
    assert ended.status == 2
    assert sentence in said(ended)
    assert said(ended).endswith("see anumate-integration services drain --help.")


def test_what_is_not_registered_cannot_be_drained_or_explained(shell: Shell) -> None:
    for command in ("drain", "maintenance", "enable", "why"):
        ended = shell.run("services", command, "ordres")
        assert ended.status == 1
        assert said(ended).startswith("No instance of ordres is registered")
    assert shell.run("services", "why", "orders", "orders-9").status == 1


# What changes


def test_watch_says_what_changes_until_ctrl_c(shell: Shell) -> None:
    watching = shell.open("services", "watch", "orders", "--json")
    assert watching.stderr is not None
    assert watching.stdout is not None
    assert watching.stderr.readline() == "Watching 3 instances; Ctrl-C ends it.\n"
    shell.ask("services", "drain", "orders", "orders-3")
    change = json.loads(watching.stdout.readline())
    assert (change["change"], change["service"]["instance_id"]) == ("changed", "orders-3")
    assert (change["before"], change["service"]["state"]) == ({"state": "enabled"}, "draining")
    watching.send_signal(signal.SIGINT)
    out, error = watching.communicate(timeout=10)
    assert (watching.returncode, out, error) == (130, "", "")
    shell.ask("services", "enable", "orders", "orders-3")


def test_a_list_that_is_watched_is_shown_again_when_it_changes(shell: Shell) -> None:
    watching = shell.open("services", "list", "--name", "inventory", "--watch", "--json")
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    assert {each["state"] for each in first["services"]} == {"enabled"}
    shell.ask("services", "drain", "inventory", "inventory-1")
    second = json.loads(watching.stdout.readline())
    assert second["index"] != first["index"]
    assert {each["state"] for each in second["services"]} == {"enabled", "draining"}
    watching.send_signal(signal.SIGINT)
    assert watching.communicate(timeout=10)[1] == ""
    assert watching.returncode == 130
    shell.ask("services", "enable", "inventory", "inventory-1")


def test_watching_without_a_platform_ends_at_once(shell: Shell) -> None:
    assert shell.run("services", "watch", "--url", "http://127.0.0.1:1").status == 3


# Health, breakers, routes, figures


def test_a_check_is_configured_and_health_tells_of_it(shell: Shell) -> None:
    ended = shell.run("health", "configure", "--name", "orders", "--path", "/health", "--interval", "5")
    assert (ended.status, ended.out) == (0, "orders is checked: http /health every 5 s, within 10 s.\n")
    assert {each["name"] for each in shell.ask("health", "status", "--name", "orders")["services"]} == {"orders"}
    assert shell.ask("health", "incidents", "--name", "orders", "--open")["results"] == []
    assert shell.run("health", "incidents", "--name", "none").out == "No incidents.\n"
    refused = shell.run("health", "configure", "--name", "orders", "--interval", "0")
    assert refused.status == 1
    assert "/interval: " in said(refused)
    assert shell.run("health", "incidents", "--limit", "0").status == 2


def test_a_breaker_is_held_open_and_reset(shell: Shell) -> None:
    def state() -> tuple[str, bool]:
        listed = shell.ask("circuit", "list")["results"]
        return next((each["state"], each["forced"]) for each in listed if each["name"] == "orders-circuit")

    opened = shell.run("circuit", "open", "orders-circuit", "--reason", "it is being moved")
    assert opened.out == "orders-circuit is held open until it is reset.\n"
    wait_until(lambda: state() == ("open", True), what="the open breaker")
    assert "held by an operator" in shell.run("circuit", "list").out
    assert shell.run("circuit", "close", "--name", "orders-circuit").status == 0
    wait_until(lambda: state() == ("closed", True), what="the breaker held closed")
    assert shell.run("circuit", "reset", "--name", "orders-circuit").out == "orders-circuit is reset.\n"
    wait_until(lambda: state() == ("closed", False), what="the breaker that decides for itself")


def test_a_breaker_must_be_named_once(shell: Shell) -> None:
    assert "say which: NAME or --name" in said(shell.run("circuit", "reset"))
    assert "name two things" in said(shell.run("circuit", "open", "a-circuit", "--name", "b-circuit"))
    assert shell.run("circuit", "close", "Nonsense!").status == 1


def test_routes_are_listed_shown_and_explained(shell: Shell) -> None:
    assert {each["name"] for each in shell.ask("routes", "list")["results"]} == {"inventory", "orders"}
    assert shell.ask("routes", "show", "orders")["path"] == "/orders"
    assert "/orders" in shell.run("routes", "show", "orders").out
    taken = shell.run("routes", "explain", "get", "http://localhost/orders/7?x=1", "-H", "Accept: text/html")
    assert taken.status == 0
    assert taken.out.startswith("● orders: It takes the request")
    assert "It goes to orders; the service sees /7." in taken.out
    lost = shell.run("routes", "explain", "GET", "/nowhere")
    assert (lost.status, lost.error) == (1, "")
    assert "Its prefix path /orders does not fit /nowhere." in lost.out


def test_a_route_or_a_request_that_is_none_is_refused(shell: Shell) -> None:
    assert shell.run("routes", "show", "none").status == 1
    assert shell.run("routes", "show", "").status == 2
    assert "is not 'Name: value'" in said(shell.run("routes", "explain", "GET", "/", "-H", "nonsense"))
    assert "is no URL and no path" in said(shell.run("routes", "explain", "GET", "http://"))


def test_metrics_are_a_table_json_or_prometheus(shell: Shell) -> None:
    assert shell.ask("metrics")["registry"]["instances"] == 6
    assert "6, 6 get traffic" in shell.run("metrics").out
    assert "# TYPE " in shell.run("metrics", "--prometheus").out
    assert shell.run("metrics", "--prometheus", "--json").status == 2


def test_version_needs_no_platform(shell: Shell) -> None:
    assert shell.run("version", ANUMATE_URL="nonsense").out.startswith("anumate-integration ")
    assert set(shell.ask("version")) == {"version", "python"}
    assert shell.run("version", "--bogus").status == 2


# Keys and tenants


def test_a_key_is_made_rotated_with_overlap_and_revoked(shell: Shell) -> None:
    made = shell.ask("keys", "create", "mobile app", "--scope", "gateway:invoke", "--for", "30d")
    rotated = shell.ask("keys", "rotate", made["public_id"], "--overlap", "1h")
    new, old = rotated["created"], rotated["replaced"]
    assert {field: new[field] for field in ("name", "scopes", "expires_at")} == {
        field: made[field] for field in ("name", "scopes", "expires_at")
    }
    assert new["secret"] != made["secret"]
    assert old["public_id"] == made["public_id"]
    assert old["expires_at"] < made["expires_at"]
    listed = {each["public_id"]: each for each in shell.ask("keys", "list")["results"]}
    assert listed[made["public_id"]]["expires_at"] == old["expires_at"]
    assert not any("secret" in each for each in listed.values())
    gone = shell.run("keys", "revoke", new["public_id"])
    assert (gone.status, gone.out) == (0, f"{new['public_id']} is revoked.\n")
    assert new["public_id"] not in shell.run("keys", "list").out
    assert new["public_id"] in shell.run("keys", "list", "--all").out


def test_a_key_is_bound_to_routes_networks_and_a_policy_of_its_own(shell: Shell) -> None:
    limits = ("--route", "orders", "--network", "10.0.0.0/8", "--network", "::1", "--rate-limit-policy", "default")
    made = shell.ask("keys", "create", "partner", "--scope", "gateway:invoke", *limits)
    [listed] = [each for each in shell.ask("keys", "list")["results"] if each["public_id"] == made["public_id"]]
    assert (listed["routes"], listed["rate_limit_policy"]) == (["orders"], "default")
    assert [network.partition("/")[0] for network in listed["networks"]] == ["10.0.0.0", "::1"]
    rotated = shell.ask("keys", "rotate", made["public_id"])["created"]
    assert (rotated["routes"], rotated["networks"]) == (listed["routes"], listed["networks"])
    wrong = shell.run("keys", "create", "x", "--scope", "gateway:invoke", "--network", "10.0.0.0/99")
    assert wrong.status == 1
    assert "/networks" in said(wrong)


def test_an_overlap_never_makes_a_key_live_longer(shell: Shell) -> None:
    made = shell.ask("keys", "create", "brief", "--scope", "gateway:invoke", "--for", "10m")
    assert shell.ask("keys", "rotate", made["public_id"], "--overlap", "1h")["replaced"] == {
        field: value for field, value in made.items() if field != "secret"
    }


def test_without_overlap_the_old_key_ends_and_only_the_secret_is_printed_when_quiet(shell: Shell) -> None:
    old = shell.key("registry:read")
    rotated = shell.run("keys", "rotate", old.split("_")[1], "--quiet")
    secret = rotated.out.removesuffix("\n")
    assert (rotated.status, rotated.error, "\n" in secret) == (0, "", False)
    assert shell.run("services", "list", "--api-key", secret).status == 0
    wait_until(lambda: shell.run("services", "list", "--api-key", old).status == 4, what="the revocation")
    again = shell.run("keys", "rotate", old.split("_")[1])
    assert again.status == 1
    assert "was revoked" in said(again)


def test_a_key_that_is_none_is_refused(shell: Shell) -> None:
    assert "/scopes" in said(shell.run("keys", "create", "x", "--scope", "everything"))
    assert shell.run("keys", "create", "x").status == 2
    assert shell.run("keys", "revoke", "nonsense").status == 1
    assert shell.run("keys", "rotate", "nonsense").status == 1
    assert shell.run("keys", "rotate", "nonsense", "--overlap", "x").status == 2


def test_a_key_is_not_allowed_what_its_scopes_do_not_say(shell: Shell) -> None:
    reader = shell.key("registry:read")
    for command in (("keys", "list"), ("tenants", "create", "x"), ("services", "drain", "orders", "orders-1")):
        ended = shell.run(*command, "--api-key", reader)
        assert ended.status == 4
        assert said(ended).endswith("(scope_missing)")


def test_a_tenant_is_made_acted_for_and_deactivated(shell: Shell) -> None:
    made = shell.run("tenants", "create", "acme", "--title", "Acme", "--host", "acme.example")
    assert (made.status, made.out) == (0, "Made tenant acme; --tenant acme acts for it.\n")
    acme = next(each for each in shell.ask("tenants", "list")["results"] if each["name"] == "acme")
    assert (acme["title"], acme["hosts"], acme["active"]) == ("Acme", ["acme.example"], True)
    # Web processes hear of a new tenant within a second.
    wait_until(
        lambda: shell.run("services", "list", "--tenant", "acme").out == "Nothing is registered yet.\n", what="it"
    )
    assert shell.run("routes", "list", ANUMATE_TENANT="acme").out.startswith("No routes yet")
    assert shell.run("tenants", "deactivate", "acme").out == "Tenant acme is not active.\n"
    assert shell.ask("tenants", "activate", "acme")["active"]
    assert shell.run("tenants", "create", "acme").status == 1
    assert shell.run("tenants", "deactivate", "none").status == 1


# The terminal


def test_nothing_is_said_when_nobody_reads(shell: Shell) -> None:
    for command in (("services", "list", "--json"), ("services", "list"), ("metrics", "--prometheus")):
        process = shell.open(*command)
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        with process.stderr as errors:
            assert errors.read() == ""
        process.wait()


def test_a_terminal_of_80_columns_is_never_overrun(shell: Shell) -> None:
    for command in (("services", "list"), ("services", "why", "orders"), ("keys", "list"), ("health", "status")):
        lines = on_a_terminal(shell, *command)
        assert any("orders-1" in line or "first key" in line for line in lines)
        assert max(cell_len(line) for line in lines) <= 80


def on_a_terminal(shell: Shell, *command: str) -> list[str]:
    """What a terminal of 80 columns is sent, without its colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = shell.environ | {"TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, *command], cwd=shell.home, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    sent = b""
    with suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:  # EIO: nobody is at the other end
        while part := terminal.read(65536):
            sent += part
    assert process.wait() == 0
    assert b"\x1b[" in sent
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent.decode()).splitlines()


def test_the_help_of_every_group_tells_the_exit_statuses(shell: Shell) -> None:
    for group in ((), ("services",), ("health",), ("circuit",), ("routes",), ("keys",), ("tenants",)):
        shown = " ".join(shell.run(*group, "--help", COLUMNS="200").out.split())
        assert "3 the platform cannot be reached; 4 the API key does not allow it" in shown


def complete(shell: Shell, line: str, **environ: str) -> list[str]:
    ended = shell.run(
        _ANUMATE_INTEGRATION_COMPLETE="complete_bash",
        COMP_WORDS=line,
        COMP_CWORD=str(len(line.split(" ")) - 1),
        **environ,
    )
    assert ended.error == ""
    return ended.out.split()


def test_names_are_completed_from_the_platform_or_not_at_all(shell: Shell) -> None:
    assert complete(shell, "anumate-integration services drain o") == ["orders"]
    assert complete(shell, "anumate-integration services drain orders ") == ["orders-1", "orders-2", "orders-3"]
    assert complete(shell, "anumate-integration circuit reset --name inv") == ["inventory-circuit"]
    assert complete(shell, "anumate-integration routes show ") == ["inventory", "orders"]
    assert complete(shell, "anumate-integration routes show ", ANUMATE_URL="http://127.0.0.1:1") == []


def test_completion_is_installed(shell: Shell) -> None:
    # It asks which shell it was started from.
    command = f"{shlex.join([sys.executable, '-c', CODE, '--install-completion'])}; exit $?"
    ended = subprocess.run(
        ["/bin/bash", "-c", command], cwd=shell.home, env=shell.environ, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert (shell.home / ".bash_completions").is_dir()


# doctor


def test_doctor_finds_a_new_installation_well(shell: Shell) -> None:
    def well() -> bool:
        return all(each["status"] != "problem" for each in shell.ask("doctor")["findings"])

    wait_until(well, what="a well installation")
    about = {each["about"]: each["status"] for each in shell.ask("doctor")["findings"]}
    for part in (
        "control plane",
        "Redis",
        "database",
        "worker and beat",
        "clock",
        "gateway",
        "routing table",
        "routes",
    ):
        assert about[part] == "ok"
    assert "▲ warning" in shell.run("doctor", "--api-key", shell.key("registry:read")).out


def test_doctor_says_what_is_wrong_and_what_to_do(shell: Shell) -> None:
    shell.ask("circuit", "open", "orders-circuit", "--reason", "a test")
    wait_until(lambda: any(each["forced"] for each in shell.ask("circuit", "list")["results"]), what="the breaker")
    out = shell.run("doctor").out
    assert "orders-circuit is held open by an operator" in out
    assert "→ `circuit reset orders-circuit`" in out
    shell.ask("circuit", "reset", "orders-circuit")
    for wrong in (("--gateway", "http://127.0.0.1:1"), ("--url", "http://127.0.0.1:1"), ("--api-key", "nonsense")):
        ended = shell.run("doctor", *wrong)
        assert ended.status == 1
        assert "✖ problem" in ended.out
    assert shell.run("doctor", "--gateway", "nonsense").status == 2
