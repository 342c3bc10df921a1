// The sentence on top, the tiles and the sparkline.

import { arrange, byId, icon, make, mark, write } from "./dom.js";
import { count, millis, percent, rate } from "./words.js";

const STATUSES = ["up", "degraded", "down", "paused", "unknown", "empty"];
const LEGEND = { up: "up", degraded: "degraded", down: "down", paused: "paused", unknown: "checking", empty: "without instances" };
const POINTS = 120;
const WIDTH = 480;
const HEIGHT = 64;

export function showSummary(summary) {
  const verdict = byId("verdict");
  const empty = Object.values(summary.services).every((number) => number === 0);
  const status = empty ? "unknown" : summary.status;
  if (verdict.dataset.status !== status || !verdict.dataset.told) {
    verdict.querySelector(".sign").replaceWith(icon(status));
    verdict.querySelector("svg").setAttribute("class", "sign");
  }
  mark(verdict, "status", status);
  verdict.dataset.told = "yes";
  write(byId("headline"), summary.headline);
  const taking = summary.instances ? `; ${summary.taking_traffic === summary.instances ? "all" : count(summary.taking_traffic)} take traffic` : "";
  write(byId("detail"), `${summary.detail}${taking}`);
  showShares(summary.services);
  showOpenBreakers(summary.breakers);
  document.title = `${titleOf(summary)} · Anumate`;
}

function titleOf({ services, headline }) {
  const trouble = services.down + services.degraded;
  return trouble ? `(${trouble}) ${headline}` : "Live";
}

function showShares(services) {
  const total = Object.values(services).reduce((sum, each) => sum + each, 0);
  write(byId("up"), total ? count(services.up) : "0");
  write(byId("up-of"), total && services.up !== total ? `of ${count(total)} up` : "up");
  const there = STATUSES.filter((status) => services[status]);
  const bars = there.map((status) => {
    const bar = make("i", { "data-status": status });
    bar.style.flexGrow = services[status];
    return bar;
  });
  byId("share").replaceChildren(...bars);
  const items = there.map((status) => make("li", { "data-status": status }, icon(status), `${count(services[status])} ${LEGEND[status]}`));
  arrange(byId("legend"), items);
}

function showOpenBreakers({ open, half_open: trying }) {
  write(byId("breakers-open"), count(open));
  mark(byId("tile-breakers"), "status", open ? "down" : "up");
  const note = open ? "Refusing calls at once" : "All calls may pass";
  write(byId("breakers-note"), trying ? `${count(trying)} half-open, letting trials pass` : note);
}

export function showRates([rps, errors, mean, p95]) {
  write(byId("rps"), rate(rps));
  const busy = errors !== null;
  write(byId("errors"), busy ? percent(errors) : "–");
  mark(byId("tile-errors"), "status", !busy ? "unknown" : errors >= 0.05 ? "down" : errors > 0 ? "degraded" : "up");
  write(byId("errors-note"), !busy ? "No requests" : errors > 0 ? "Answers with status 5xx" : "No answer with status 5xx");
  write(byId("p95"), busy && p95 !== null ? millis(p95) : "–");
  write(byId("latency-note"), busy && mean !== null ? `${millis(mean)} ms on average` : "No requests");
}

export function showBreakers(breakers) {
  const order = ["open", "half_open", "closed"];
  const shape = { open: "down", half_open: "degraded", closed: "up" };
  const word = { open: "open", half_open: "half-open", closed: "closed" };
  const sorted = [...breakers].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || a.service.localeCompare(b.service));
  const pills = sorted.map((each) => {
    const pill = make("li", { class: "pill", "data-status": shape[each.state] }, icon(shape[each.state]), make("b", {}, each.service), ` ${word[each.state]}`);
    if (each.sentence) pill.append(make("p", { class: "why" }, each.sentence));
    return pill;
  });
  if (!pills.length) pills.push(make("li", { class: "none" }, "A breaker appears with the first request to its service."));
  byId("breakers").replaceChildren(...pills);
}

export class Sparkline {
  constructor() {
    this.points = [];
  }

  replace(points) {
    this.points = points.slice(-POINTS);
    this.draw();
  }

  add(point) {
    this.points.push(point);
    if (this.points.length > POINTS) this.points.shift();
    this.draw();
  }

  draw() {
    const peak = Math.max(0, ...this.points.map(([, rps]) => rps));
    const top = Math.max(peak, 1) * 1.1;
    const step = WIDTH / (POINTS - 1);
    const left = WIDTH - step * (this.points.length - 1); // it enters from the right
    const at = (value, index) => `${(left + index * step).toFixed(1)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1)}`;
    const path = (column) => this.points.map((point, index) => at(point[column], index)).join("L");
    const line = path(1);
    byId("spark-line").setAttribute("d", line && `M${line}`);
    byId("spark-area").setAttribute("d", line && `M${left.toFixed(1)},${HEIGHT}L${line}L${WIDTH},${HEIGHT}Z`);
    const failing = this.points.some(([, , errors]) => errors > 0);
    byId("spark-errors").setAttribute("d", failing ? `M${path(2)}` : "");
    write(byId("peak"), peak > 0 ? `peak ${rate(peak)}/s${failing ? ", red line: errors" : ""}` : "");
  }
}

