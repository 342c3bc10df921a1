// The websocket: opens again when it breaks, and says how fresh the page is.

const QUIET_MS = 5000; // the server speaks every second
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10000;
const SIGNED_OUT = 4401;
const NOT_ALLOWED = 4403;

export class Feed {
  /** `show(frame)` gets every frame; `say(state, since)` gets "live", "stale", "out" or "refused". */
  constructor(path, show, say) {
    this.url = new URL(path, location.href.replace(/^http/, "ws"));
    this.show = show;
    this.say = say;
    this.wait = FIRST_WAIT_MS;
    this.last = 0;
    this.seq = null;
    setInterval(() => this.watch(), 1000);
    addEventListener("online", () => this.again(0));
    document.addEventListener("visibilitychange", () => document.hidden || this.watch());
    this.open();
  }

  open() {
    const socket = (this.socket = new WebSocket(this.url));
    socket.onmessage = ({ data }) => socket === this.socket && this.take(JSON.parse(data));
    socket.onclose = ({ code }) => socket === this.socket && this.closed(code);
  }

  take(frame) {
    this.last = Date.now();
    this.wait = FIRST_WAIT_MS;
    if (frame.type === "ping") return;
    // A gap means that something was missed; a new socket starts with a snapshot.
    if (frame.type === "change" && frame.seq !== this.seq + 1) return this.again(0);
    this.seq = frame.seq;
    this.show(frame);
    this.say(frame.stale_since ? "stale" : "live", frame.stale_since);
  }

  closed(code) {
    if (code === SIGNED_OUT || code === NOT_ALLOWED) {
      this.ended = true;
      return this.say(code === SIGNED_OUT ? "out" : "refused");
    }
    this.say("stale", this.last / 1000);
    this.again(this.wait * (0.7 + 0.6 * Math.random())); // or all pages would return in the same moment
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
  }

  again(wait) {
    if (this.ended) return;
    clearTimeout(this.timer);
    const old = this.socket;
    this.socket = null;
    old?.close();
    this.timer = setTimeout(() => this.open(), wait);
  }

  // A connection that died without a word (a laptop that slept, a cable) is found by its silence.
  watch() {
    if (this.socket?.readyState !== WebSocket.OPEN || Date.now() - this.last < QUIET_MS) return;
    this.say("stale", this.last / 1000);
    this.again(0);
  }
}
