// The live page: one socket feeds the tiles, the board and the journal.

import { Board } from "./board.js";
import { byId, make, mark, write } from "./dom.js";
import { Feed } from "./feed.js";
import { Journal } from "./journal.js";
import { Sparkline, showBreakers, showRates, showSummary } from "./tiles.js";
import { time } from "./words.js";

const { socket, login } = document.body.dataset;

function show(parts, frame) {
  const { board, journal, spark } = parts;
  if (frame.summary) showSummary(frame.summary);
  if (frame.breakers) {
    showBreakers(frame.breakers);
    board.showBreakers(frame.breakers);
  }
  if (frame.type === "snapshot") {
    board.replace(frame.services);
    journal.replace(frame.events);
    spark.replace(frame.points);
  } else {
    board.change(frame.services ?? [], frame.gone ?? []);
    if (frame.events) journal.add(frame.events);
    if (frame.point) spark.add(frame.point);
  }
  if (frame.traffic) {
    showRates(frame.traffic.total);
    board.showRates(frame.traffic.services);
  }
}

function say(state, since) {
  mark(document.body, "freshness", state);
  mark(byId("freshness"), "state", state);
  const text = byId("freshness-text");
  if (state === "out") text.replaceChildren(make("a", { href: login }, "Signed out: sign in"));
  else if (state === "refused") write(text, "No longer allowed");
  else if (state === "live") write(text, "Live");
  else write(text, since ? `Stale since ${time(since)}` : "Connecting…");
}

function copyCode() {
  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.parentElement.querySelector("pre").textContent);
      write(button, "Copied");
      setTimeout(() => write(button, "Copy"), 2000);
    });
  }
}

byId("tenant")?.addEventListener("change", (event) => event.target.form.submit());
if (socket) {
  const parts = { board: new Board(), journal: new Journal(), spark: new Sparkline() };
  new Feed(socket, (frame) => show(parts, frame), say);
  setInterval(() => parts.board.age(Date.now() / 1000), 1000);
  copyCode();
}
