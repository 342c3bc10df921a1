// What happened, newest first.

import { byId, icon, make } from "./dom.js";
import { moment, time } from "./words.js";

const SHAPE = { good: "up", warn: "degraded", bad: "down", info: "paused", mute: "unknown" };
const LONGEST = 100;

export class Journal {
  constructor() {
    this.list = byId("journal");
  }

  replace(events) {
    this.list.replaceChildren();
    this.add(events, false);
  }

  add(events, fresh = true) {
    for (const event of events) this.place(entry(event, fresh), event.at);
    while (this.list.children.length > LONGEST) this.list.lastChild.remove();
    if (!this.list.children.length) this.list.append(make("li", { class: "none" }, "Nothing has happened yet."));
    else if (this.list.children.length > 1) this.list.querySelector(".none")?.remove();
  }

  // News may be of something older than the latest line; it stands where it belongs.
  place(line, at) {
    line.at = at;
    const older = [...this.list.children].find((each) => !(each.at > at));
    this.list.insertBefore(line, older ?? null);
  }
}

function entry(event, fresh) {
  const at = make("time", { datetime: new Date(event.at * 1000).toISOString(), title: moment(event.at) }, time(event.at));
  const whom = event.instance ? `${event.service}/${event.instance}` : event.service;
  const head = make("p", {}, make("b", {}, whom), make("span", { class: "word" }, event.word));
  const words = make("div", { class: "words" }, head);
  if (event.sentence) words.append(make("p", { class: "why" }, event.sentence));
  return make("li", { class: fresh ? "event fresh" : "event", "data-tone": event.tone }, icon(shapeOf(event)), words, at);
}

function shapeOf(event) {
  return event.word === "joined" || event.word === "left" ? event.word : SHAPE[event.tone];
}
