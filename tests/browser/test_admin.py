from __future__ import annotations

import re

import pytest

from tests.browser.conftest import PASSWORD, Visit, Web

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


def test_a_route_is_made_by_hand(web: Web, visit: Visit) -> None:
    visit.sign_in()
    page = visit.page("/admin/")
    page.get_by_role("link", name="Create a route").click()
    page.get_by_label("Name").fill("billing")
    page.locator("#id_path").fill("/billing")
    page.locator("#targets-group .select2-selection").first.click()
    page.locator(".select2-search__field").fill("bill")
    page.locator(".select2-results__option", has_text="billing").click()
    page.get_by_role("button", name="Save", exact=True).click()
    page.wait_for_url("**/admin/gateway/route/")
    row = page.locator("#result_list tbody tr", has_text="billing")
    assert re.search(r"billing\s+default\s+/billing\s+billing", row.inner_text(), re.IGNORECASE)

    page.goto(web.url + "/admin/")
    assert re.search(r"root\s+created\s+.*billing", page.locator(".home").inner_text(), re.IGNORECASE)


def test_a_key_is_shown_once(web: Web, visit: Visit) -> None:
    visit.sign_in()
    page = visit.page("/admin/registry/apikey/add/")
    page.get_by_label("Name").fill("mobile app")
    page.get_by_label("gateway:invoke").check()
    page.get_by_role("button", name="Save", exact=True).click()
    secret = page.get_by_label("API key", exact=True).input_value()
    assert re.fullmatch(r"anm_\w{10}_\w{32}_\w{6}", secret)
    page.get_by_role("link", name="I have copied it").click()
    page.get_by_role("link", name="mobile app").first.click()
    page.wait_for_url("**/change/")
    assert secret not in page.content()
    assert secret.split("_")[1] in page.locator("body").inner_text()


def test_a_wrong_password_opens_nothing(web: Web, visit: Visit) -> None:
    page = visit.page("/admin/login/")
    page.get_by_label("Username").fill("root")
    page.get_by_label("Password").fill(PASSWORD + "?")
    page.get_by_role("button", name="Log in").click()
    page.get_by_text("Please enter the correct username and password").wait_for()
    assert visit.page("/live/").url.endswith("/admin/login/?next=/live/")


PAGES = [
    "/admin/",
    "/admin/registry/service/",
    "/admin/registry/instance/",
    "/admin/registry/apikey/",
    "/admin/registry/tenant/",
    "/admin/registry/member/",
    "/admin/registry/auditentry/",
    "/admin/gateway/route/",
    "/admin/gateway/upstream/",
    "/admin/gateway/ratelimitpolicy/",
    "/admin/gateway/breakerpolicy/",
    "/admin/health/healthcheck/",
    "/admin/health/flip/",
    "/admin/health/resultrollup/",
    "/admin/auth/user/",
]


def test_every_page_works_without_another_origin(web: Web, visit: Visit) -> None:
    visit.sign_in()
    for path in PAGES:
        page = visit.page(path)
        assert "Server Error" not in page.locator("body").inner_text(), path
        assert visit.troubles == [], path
        page.close()


def test_the_api_is_described_without_another_origin(web: Web, visit: Visit) -> None:
    page = visit.page("/api/docs/")
    page.get_by_text("/v1/routes", exact=True).first.wait_for()
