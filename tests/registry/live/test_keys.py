from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anumate.lib.problem import Problem
from registry.live.keys import (
    SCOPES,
    KeyRecord,
    KeyRing,
    TenantRecord,
    make,
    public_id_of,
    secret_hash,
    well_formed,
)

PEPPER = "a pepper"
NOW = 1_000.0


def ring(*records: KeyRecord, tenants: tuple[TenantRecord, ...] = (TenantRecord("default"),)) -> KeyRing:
    ring = KeyRing(PEPPER)
    ring.replace(records, tenants)
    return ring


def record(full: str, **more: object) -> KeyRecord:
    values = {"id": public_id_of(full), "name": "a key", "tenant": "default", "hash": secret_hash(PEPPER, full)}
    return KeyRecord(**(values | more))  # type: ignore[arg-type]


def code(ring: KeyRing, presented: str | None) -> str:
    with pytest.raises(Problem) as raised:
        ring.verify(presented, NOW)
    return raised.value.code


def test_a_made_key_is_well_formed_and_names_its_public_id() -> None:
    public_id, full = make()
    assert well_formed(full)
    assert public_id_of(full) == public_id
    prefix, shown, secret, checksum = full.split("_")
    assert (prefix, shown, len(shown), len(secret), len(checksum)) == ("anm", public_id, 10, 32, 6)


@given(st.integers(0, 54), st.characters())
def test_a_key_with_one_wrong_character_is_told_without_asking_anybody(position: int, other: str) -> None:
    full = "anm_0123456789_" + "a" * 32
    _, genuine = make()
    changed = genuine[:position] + other + genuine[position + 1 :]
    assert well_formed(changed) == (changed == genuine)
    assert not well_formed(full)


@given(st.text())
def test_no_text_upsets_the_check(text: str) -> None:
    with pytest.raises(Problem):
        ring().verify(text, NOW)


def test_it_knows_a_key_and_what_it_may() -> None:
    _, full = make()
    keys = ring(record(full, scopes=("registry:read",)))
    for _ in range(2):
        known = keys.verify(full, NOW)
        assert known.allows("registry:read")
        assert not known.allows("registry:write")


def test_an_admin_key_may_do_everything() -> None:
    _, full = make()
    known = ring(record(full, scopes=("admin",))).verify(full, NOW)
    assert all(known.allows(scope) for scope in SCOPES)


def test_it_says_what_is_wrong_with_a_key() -> None:
    _, full = make()
    _, other = make()
    _, old = make()
    keys = ring(record(full), record(old, expires_at=NOW))
    assert code(keys, None) == "api_key_missing"
    assert code(keys, "") == "api_key_missing"
    assert code(keys, "nonsense") == "api_key_invalid"
    assert code(keys, other) == "api_key_invalid"
    assert code(keys, old) == "api_key_expired"


def test_the_right_id_with_another_secret_is_no_key() -> None:
    _, full = make()
    _, other = make()
    assert code(ring(record(full, id=public_id_of(other))), other) == "api_key_invalid"


def test_a_revoked_key_ends_with_the_next_section_although_it_was_remembered() -> None:
    _, full = make()
    keys = ring(record(full))
    keys.verify(full, NOW)
    keys.replace(keys=())
    assert code(keys, full) == "api_key_invalid"


def test_a_remembered_key_expires_all_the_same() -> None:
    _, full = make()
    keys = ring(record(full, expires_at=NOW + 1))
    keys.verify(full, NOW)
    with pytest.raises(Problem, match="expired"):
        keys.verify(full, NOW + 1)


def test_the_keys_of_a_tenant_that_is_not_active_do_not_work() -> None:
    _, full = make()
    keys = ring(record(full), tenants=(TenantRecord("default", active=False),))
    assert code(keys, full) == "api_key_invalid"


def test_before_any_key_is_known_nobody_is_called_a_stranger() -> None:
    assert code(KeyRing(PEPPER), make()[1]) == "unavailable"


def test_without_a_key_one_may_read_and_invoke_when_none_is_required() -> None:
    known = KeyRing(PEPPER, key_required=False).verify(None, NOW)
    assert known.tenant == "default"
    assert known.allows("gateway:invoke")
    assert not known.allows("registry:write")


def test_a_host_belongs_to_the_exact_then_the_longest_wildcard_then_default() -> None:
    keys = ring(
        tenants=(
            TenantRecord("default"),
            TenantRecord("acme", hosts=("api.acme.com", "*.acme.com")),
            TenantRecord("beta", hosts=("*.beta.acme.com",)),
            TenantRecord("gone", active=False, hosts=("gone.com",)),
        )
    )
    found = {
        host: keys.tenant_of_host(host)
        for host in ("api.acme.com:8080", "API.Acme.com.", "x.y.acme.com", "a.beta.acme.com", "beta.acme.com")
    }
    assert found == {
        "api.acme.com:8080": "acme",
        "API.Acme.com.": "acme",
        "x.y.acme.com": "acme",
        "a.beta.acme.com": "beta",
        "beta.acme.com": "acme",
    }
    for host in ("acme.com", "gone.com", "[::1]:80", "", "..."):
        assert keys.tenant_of_host(host) == "default"
