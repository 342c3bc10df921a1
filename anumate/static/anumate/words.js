// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const calendar = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export const count = (number) => whole.format(number);
export const rate = (number) => (number >= 100 || number === 0 ? whole : tenth).format(number);
export const percent = (share) => (share === 0 ? "0" : share < 0.001 ? "<0.1" : (share < 0.1 ? tenth : whole).format(share * 100));
export const millis = (seconds) => (seconds >= 0.1 ? whole : tenth).format(seconds * 1000);
export const time = (at) => clock.format(at * 1000);
export const moment = (at) => calendar.format(at * 1000);

/** "for 3 min": how long something has been so. */
export function span(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
