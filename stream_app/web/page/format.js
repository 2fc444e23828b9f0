// Numbers, times and durations as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium" });
const moment = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const clock = new Intl.DateTimeFormat("en", { timeStyle: "short" });

const known = (value) => typeof value === "number" && Number.isFinite(value);

/** A count; "–" where it is not known. */
export const count = (value) =>
  !known(value) ? "–" : Math.abs(value) < 100000 ? whole.format(value) : short.format(value);

/** A rate per second: one decimal where it is small. */
export const rate = (value) => (!known(value) ? "–" : value >= 10 || value === 0 ? count(value) : value.toFixed(1));

/** A share of one, as per cent. */
export function percent(value) {
  return known(value) ? `${(value * 100).toFixed(value < 0.1 && value > 0 ? 1 : 0)}%` : "–";
}

/** A measure or score with `digits` decimals. */
export const decimal = (value, digits = 3) => (known(value) ? value.toFixed(digits) : "–");

/** Milliseconds: whole ones, seconds from ten thousand on. */
export function milliseconds(value) {
  if (!known(value)) return "–";
  return value < 10000 ? `${whole.format(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** A length of time in its largest unit, from milliseconds. */
export function duration(value) {
  if (!known(value)) return "–";
  const units = [
    [31557600e3, "y"],
    [86400e3, "d"],
    [3600e3, "h"],
    [60e3, "min"],
    [1e3, "s"],
  ];
  const [size, name] = units.find(([size]) => value >= size) ?? [1, "ms"];
  return `${Math.floor(value / size)} ${name}`;
}

export const date = (ts) => (known(ts) ? day.format(ts) : "–");
export const time = (ts) => (known(ts) ? moment.format(ts) : "–");
export const timeOfDay = (ts) => (known(ts) ? clock.format(ts) : "–");
