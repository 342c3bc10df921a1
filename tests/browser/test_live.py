from __future__ import annotations

import re
import signal
import time

import pytest

from registry.live.instances import Document, Endpoint, Fact, Key
from tests.browser.conftest import Visit, Web, until

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "device_scale_factor": 2}

CONTRAST = r"""() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((each, at) => (at === 3 ? each / 255 : each));
  };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3]));
  const background = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) layers.push(rgba(getComputedStyle(each).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((each) => {
      const part = each / 255;
      return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const poor = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !element.checkVisibility() || element.closest(".sr, .skip, script")) continue;
    const below = background(element);
    const [high, low] = [light(over(rgba(getComputedStyle(element).color), below)), light(below)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) poor.add(`${texts.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return [...poor];
}"""


def register(web: Web, service: str, *ids: str, tenant: str = "default", health: str = "healthy") -> None:
    for at, id_ in enumerate(ids):
        endpoints = {"http": Endpoint("http", "127.0.0.1", 9000 + at)}
        key = Key(tenant, service, id_)
        web.live.register(key, Document(version="1.0.0", endpoints=endpoints, zone="eu-1", lease_ttl=3600))
        judge(web, key, health, "HTTP 200 in 2.1 ms.")


def judge(web: Web, key: Key, health: str, sentence: str) -> None:
    web.live.put_fact(key, "probe", Fact(health, sentence, time.time(), "checks"))


def row(service: str) -> str:
    return f"document.querySelector('.service[data-name=\"{service}\"]')"


def test_a_flip_is_on_the_page_within_a_second_and_without_a_reload(web: Web, visit: Visit) -> None:
    register(web, "orders", "orders-1", "orders-2")
    visit.sign_in()
    page = visit.page("/live/")
    until(page, f"{row('orders')}?.dataset.status === 'up'")
    assert page.locator("#freshness").inner_text() == "Live"
    page.evaluate("window.untouched = true")

    judge(web, Key("default", "orders", "orders-2"), "unhealthy", "Connection refused; 3 checks in a row failed.")
    took = until(page, f"{row('orders')}.dataset.status === 'degraded'")
    assert took < 2
    line = page.locator(".service", has_text="orders").locator(".instance", has_text="orders-2")
    assert "unhealthy" in line.inner_text()
    assert "Connection refused; 3 checks in a row failed." in line.inner_text()
    assert "no traffic" in line.inner_text()
    assert "orders is degraded." in page.locator("#headline").inner_text()
    assert "orders/orders-2" in page.locator("#journal li").first.inner_text()
    assert page.evaluate("window.untouched")


def test_a_service_without_instances_is_empty_and_says_why(web: Web, visit: Visit) -> None:
    visit.sign_in()
    page = visit.page("/live/")
    until(page, f"{row('billing')}?.dataset.status === 'empty'")
    assert "No instance is registered." in page.locator(".service", has_text="billing").inner_text()


def test_an_instance_that_joins_and_leaves_is_told_in_the_journal(web: Web, visit: Visit) -> None:
    visit.sign_in()
    page = visit.page("/live/")
    until(page, "document.body.dataset.freshness === 'live'")
    register(web, "search", "search-1")
    until(page, f"{row('search')}?.dataset.status === 'up'")
    web.live.deregister(Key("default", "search", "search-1"))
    until(page, f"{row('search')}?.dataset.status === 'empty'")
    first = page.locator("#journal li").first
    assert re.search(r"search/search-1\s+left", first.inner_text())


def test_traffic_and_breakers_are_shown_as_the_gateway_counts_them(web: Web, visit: Visit) -> None:
    register(web, "cart", "cart-1")
    visit.sign_in()
    page = visit.page("/live/")
    until(page, "document.body.dataset.freshness === 'live'")
    web.redis.hset("anumate:{g}:counters", mapping={"default|cart|cart|200": 0, "default|cart|cart|502": 0})
    until(page, "document.querySelector('#spark-line').getAttribute('d')")
    web.redis.hincrby("anumate:{g}:counters", "default|cart|cart|200", 90)
    web.redis.hincrby("anumate:{g}:counters", "default|cart|cart|502", 10)
    web.redis.hincrbyfloat("anumate:{g}:counters", "default|cart|cart|200|sum", 0.4)
    report = (
        '{"worker": "w", "at": %f, "breakers": [{"tenant": "default", "service": "cart", "state": "open",'
        ' "reason": "5 calls failed in a row.", "seconds_in_state": 1.0}]}'
    )
    web.redis.zadd("anumate:{g}:breakers", {"w": time.time()})
    web.redis.set("anumate:{g}:breakers:w", report % time.time(), ex=30)
    until(page, "document.querySelector('#errors').textContent === '10'")
    until(page, "document.querySelector('#breakers-open').textContent === '1'")
    assert float(page.locator("#rps").inner_text()) > 0
    assert "5 calls failed in a row." in page.locator("#breakers").inner_text()
    assert "breaker open" in page.locator(".service", has_text="cart").locator("summary").inner_text()


def test_a_page_that_hears_nothing_says_since_when_and_comes_back_by_itself(web: Web, visit: Visit) -> None:
    register(web, "stock", "stock-1")
    visit.sign_in()
    page = visit.page("/live/")
    until(page, f"{row('stock')}?.dataset.status === 'up'")
    web.process.send_signal(signal.SIGSTOP)
    try:
        until(page, "document.body.dataset.freshness === 'stale'", 15)
        assert re.fullmatch(r"Stale since \d\d:\d\d:\d\d", page.locator("#freshness").inner_text())
        judge(web, Key("default", "stock", "stock-1"), "unhealthy", "No answer within 1.0 s.")
    finally:
        web.process.send_signal(signal.SIGCONT)
    until(page, "document.body.dataset.freshness === 'live'", 15)
    until(page, f"{row('stock')}.dataset.status === 'down'")
    assert page.locator(".service", has_text="stock").count() == 1


def test_another_tenants_services_are_not_on_the_page(web: Web, visit: Visit) -> None:
    register(web, "acme-shop", "shop-1", tenant="acme")
    visit.sign_in("maria")
    page = visit.page("/live/")
    until(page, f"{row('acme-shop')}?.dataset.status === 'up'")
    assert page.locator(".service").count() == 1
    assert page.locator("#tenant").count() == 0


def test_signing_out_elsewhere_ends_the_page(web: Web, visit: Visit) -> None:
    visit.by_password("root")
    page = visit.page("/live/")
    until(page, "document.body.dataset.freshness === 'live'")
    other = visit.page("/admin/")
    other.evaluate("document.querySelector('#logout-form').submit()")
    until(page, "document.body.dataset.freshness === 'out'")
    assert page.get_by_role("link", name="Signed out: sign in").is_visible()


def test_it_is_found_and_opened_with_the_keyboard(web: Web, visit: Visit) -> None:
    register(web, "alpha", "alpha-1")
    register(web, "beta", "beta-1")
    visit.sign_in()
    page = visit.page("/live/")
    until(page, f"{row('beta')}?.dataset.status === 'up'")
    page.keyboard.press("/")
    page.keyboard.type("beta-1")
    assert page.locator(".service").all_inner_texts()[0].startswith("beta")
    assert page.locator(".service").count() == 1
    page.keyboard.press("Escape")
    page.locator(".service summary").first.focus()
    page.keyboard.press("ArrowDown")
    opened = page.evaluate("document.activeElement.parentElement.open")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.parentElement.open") is not opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(web: Web, visit: Visit, scheme: str) -> None:
    register(web, "orders", "orders-1")
    register(web, "inventory", "inventory-1", health="unhealthy")
    register(web, "mail", "mail-1", health="degraded")
    state = Fact("draining", "rolling out", time.time(), "maria")
    web.live.put_fact(Key("default", "orders", "orders-1"), "state", state)
    visit.sign_in()
    page = visit.page("/live/")
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    until(page, f"{row('inventory')}?.dataset.status === 'down'")
    assert page.evaluate(CONTRAST) == []


def test_the_chosen_theme_is_kept(web: Web, visit: Visit) -> None:
    visit.sign_in()
    page = visit.page("/live/")
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.get_by_role("button", name="Light or dark").click()
    chosen = page.evaluate(ground)
    assert chosen != before
    page.reload()
    assert page.evaluate(ground) == chosen


@pytest.mark.parametrize("visit", [PHONE], indirect=True)
def test_it_fits_a_phone(web: Web, visit: Visit) -> None:
    name = "a-service-with-a-rather-long-name-that-wraps"
    register(web, name, "an-instance-with-a-very-long-id-0123456789-0123456789-0123456789")
    visit.sign_in()
    page = visit.page("/live/")
    until(page, f"{row(name)}?.dataset.status === 'up'")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#freshness").bounding_box()["x"] >= 0


def test_a_first_visitor_is_told_how_to_begin(web: Web, visit: Visit) -> None:
    visit.sign_in()
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.page("/live/?tenant=fresh")
    page.get_by_role("heading", name="Register your first service").wait_for()
    page.get_by_role("button", name="Copy").first.click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert f"curl -X POST {web.url}/v1/services/register" in copied
