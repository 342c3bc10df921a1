// The list of services and their instances.

import { arrange, byId, icon, make, mark, write } from "./dom.js";
import { millis, moment, percent, rate, span } from "./words.js";

const WORD = { up: "Up", degraded: "Degraded", down: "Down", paused: "Paused", unknown: "Checking", empty: "No instances" };
const GRAVITY = ["down", "degraded", "unknown", "paused", "up", "empty"];
const HEALTH_ICON = { healthy: "up", degraded: "degraded", unhealthy: "down", unknown: "unknown" };
const STATE_WORD = { enabled: "enabled", draining: "draining", maintenance: "maintenance" };
const FEW = 6; // as many services are shown opened from the start
const PIPS = 12;
const LONG = 60;
const BREAKER_WORD = { open: "breaker open", half_open: "breaker half-open" };

const troubled = (view) => view.status === "down" || view.status === "degraded";
const shownAs = (instance) => (instance.state === "enabled" ? HEALTH_ICON[instance.health] : "paused");

class InstanceLine {
  constructor() {
    this.sign = make("span", { class: "sign" });
    this.health = make("b");
    this.id = make("span", { class: "id" });
    this.sentence = make("p", { class: "why" });
    this.facts = make("p", { class: "facts" });
    this.told = "";
    this.since = make("time", { class: "since" });
    const words = make("div", { class: "words" }, make("p", { class: "name" }, this.id, this.health), this.sentence);
    this.element = make("li", { class: "instance" }, this.sign, words, this.facts, this.since);
  }

  show(view) {
    const shape = shownAs(view);
    if (this.shape !== shape) this.sign.replaceChildren(icon(shape));
    this.shape = shape;
    mark(this.element, "status", shape);
    const state = view.state === "enabled" ? "" : `${STATE_WORD[view.state]} · `;
    write(this.health, `${state}${view.health}`);
    write(this.id, view.id);
    write(this.sentence, view.sentence);
    const traffic = view.traffic ? "takes traffic" : "no traffic";
    this.tell([traffic, view.address, view.version && `v${view.version}`, view.zone].filter(Boolean));
    this.at = view.since;
    this.since.dateTime = new Date(view.since * 1000).toISOString();
    this.since.title = `Since ${moment(view.since)}`;
  }

  tell(facts) {
    if (this.told === facts.join()) return;
    this.told = facts.join();
    this.facts.replaceChildren(...facts.map((fact) => make("span", {}, fact)));
  }

  age(now) {
    write(this.since, this.at ? span(now - this.at) : "");
  }
}

class ServiceRow {
  constructor(name) {
    this.name = name;
    this.lines = new Map();
    this.sign = make("span", { class: "sign" });
    this.word = make("span", { class: "word" });
    this.pips = make("span", { class: "pips", "aria-hidden": "true" });
    this.ready = make("span", { class: "ready" });
    this.sentence = make("p", { class: "why" });
    this.rps = make("span", { class: "num" });
    this.latency = make("span", { class: "num" });
    this.errors = make("span", { class: "num" });
    this.breaker = make("span", { class: "tag", hidden: "" });
    this.list = make("ul", { class: "instances" });
    const head = make(
      "summary",
      {},
      icon("chevron"),
      this.sign,
      make("div", { class: "words" }, make("p", { class: "name" }, make("b", {}, name), this.word, this.breaker), this.sentence),
      make("div", { class: "fleet" }, this.pips, this.ready),
      make("div", { class: "nums" }, this.rps, this.latency, this.errors),
    );
    this.element = make("details", { class: "service", "data-name": name }, head, this.list);
  }

  show(view) {
    const turned = this.view && this.view.status !== view.status;
    this.view = view;
    mark(this.element, "status", view.status);
    if (this.shape !== view.status) this.sign.replaceChildren(icon(view.status));
    this.shape = view.status;
    write(this.word, WORD[view.status]);
    write(this.sentence, view.sentence);
    this.sentence.hidden = !view.sentence;
    this.showFleet(view.instances);
    if (turned) this.flash();
  }

  showFleet(instances) {
    const ready = instances.filter((each) => each.traffic).length;
    write(this.ready, instances.length ? `${ready} of ${instances.length} take traffic` : "no instance");
    const pips = instances.slice(0, PIPS);
    while (this.pips.children.length > pips.length) this.pips.lastChild.remove();
    while (this.pips.children.length < pips.length) this.pips.append(make("i"));
    pips.forEach((each, at) => mark(this.pips.children[at], "status", shownAs(each)));
    const kept = new Map(instances.map((each) => [each.id, this.lines.get(each.id) ?? new InstanceLine()]));
    this.lines = kept;
    for (const each of instances) kept.get(each.id).show(each);
    arrange(this.list, [...kept.values()].map((line) => line.element));
  }

  showRates([rps, errors, mean, p95] = [0, null, null, null]) {
    const busy = errors !== null;
    write(this.rps, busy ? `${rate(rps)}/s` : "");
    write(this.latency, busy ? `${millis(p95 ?? mean)} ms` : "");
    write(this.errors, busy && errors > 0 ? `${percent(errors)} % errors` : "");
  }

  showBreaker(breaker) {
    const state = breaker?.state ?? "closed";
    this.breaker.hidden = state === "closed";
    mark(this.breaker, "status", state === "open" ? "down" : "degraded");
    write(this.breaker, BREAKER_WORD[state] ?? "");
    this.breaker.title = breaker?.sentence ?? "";
  }

  flash() {
    this.element.classList.remove("flash");
    requestAnimationFrame(() => this.element.classList.add("flash"));
  }

  matches(text, troubleOnly) {
    if (troubleOnly && !troubled(this.view)) return false;
    const within = [this.name, ...this.view.instances.flatMap((each) => [each.id, each.address, each.version, each.zone])];
    return !text || within.some((each) => each.toLowerCase().includes(text));
  }
}

export class Board {
  constructor() {
    this.rows = new Map();
    this.rates = {};
    this.breakers = new Map();
    this.text = "";
    this.troubleOnly = false;
    this.list = byId("list");
    this.bind();
  }

  replace(views) {
    const few = views.length <= FEW;
    const names = new Set(views.map((view) => view.name));
    for (const name of this.rows.keys()) if (!names.has(name)) this.rows.delete(name);
    for (const view of views) {
      const fresh = !this.rows.has(view.name);
      this.put(view);
      if (fresh && (few || troubled(view))) this.rows.get(view.name).element.open = true;
    }
    this.settle();
  }

  change(views, gone) {
    for (const name of gone) this.rows.delete(name);
    for (const view of views) {
      const fresh = !this.rows.has(view.name);
      this.put(view);
      if (fresh && this.rows.size <= FEW) this.rows.get(view.name).element.open = true;
    }
    if (views.length || gone.length) this.settle();
  }

  put(view) {
    if (!this.rows.has(view.name)) this.rows.set(view.name, new ServiceRow(view.name));
    const row = this.rows.get(view.name);
    row.show(view);
    row.showRates(this.rates[view.name]);
    row.showBreaker(this.breakers.get(view.name));
  }

  showRates(rates) {
    this.rates = rates;
    for (const [name, row] of this.rows) row.showRates(rates[name]);
  }

  showBreakers(breakers) {
    this.breakers = new Map(breakers.map((each) => [each.service, each]));
    for (const [name, row] of this.rows) row.showBreaker(this.breakers.get(name));
  }

  age(now) {
    for (const row of this.rows.values()) if (row.element.open) for (const line of row.lines.values()) line.age(now);
  }

  // Trouble first, then by name: a row moves only when its status turns.
  settle() {
    const rows = [...this.rows.values()];
    const shown = rows
      .filter((row) => row.matches(this.text, this.troubleOnly))
      .sort((a, b) => GRAVITY.indexOf(a.view.status) - GRAVITY.indexOf(b.view.status) || a.name.localeCompare(b.name));
    const focused = document.activeElement;
    arrange(this.list, shown.map((row) => row.element));
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
    this.list.classList.toggle("long", rows.length > LONG);
    byId("heads").hidden = shown.length === 0;
    byId("first").hidden = rows.length > 0;
    byId("none").hidden = rows.length === 0 || shown.length > 0;
    write(byId("none"), this.troubleOnly && !this.text ? "Nothing needs attention." : "No service matches.");
    const trouble = rows.filter((row) => troubled(row.view)).length;
    write(byId("trouble-count"), trouble ? String(trouble) : "");
    this.age(Date.now() / 1000);
  }

  bind() {
    const find = byId("find");
    find.addEventListener("input", () => {
      this.text = find.value.trim().toLowerCase();
      this.settle();
    });
    for (const button of document.querySelectorAll("[data-show]")) {
      button.addEventListener("click", () => {
        this.troubleOnly = button.dataset.show === "trouble";
        for (const each of document.querySelectorAll("[data-show]")) each.setAttribute("aria-pressed", String(each === button));
        this.settle();
      });
    }
    this.list.addEventListener("toggle", () => this.age(Date.now() / 1000), true);
    addEventListener("keydown", (event) => this.key(event, find));
  }

  key(event, find) {
    const typing = event.target.matches("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      find.focus();
    } else if (event.key === "Escape" && event.target === find) {
      find.value = "";
      find.dispatchEvent(new Event("input"));
      find.blur();
    } else if (["ArrowDown", "ArrowUp"].includes(event.key) && event.target.matches("summary")) {
      const heads = [...this.list.querySelectorAll("summary")];
      const next = heads[heads.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)];
      if (next) event.preventDefault(), next.focus();
    }
  }
}

