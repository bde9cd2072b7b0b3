/** Figures as people read them. */

const BYTES = ["B", "KB", "MB", "GB", "TB"];

export function count(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(value < 1e7 ? 2 : 1)} M`;
  if (value >= 1e5) return `${Math.round(value / 1e3)} k`;
  return Math.round(value).toLocaleString("en");
}

/** A rate, which may be below one. */
export function rate(value) {
  return value > 0 && value < 10 ? value.toFixed(1) : count(value);
}

export function bytes(value) {
  let unit = 0;
  while (value >= 1000 && unit < BYTES.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${BYTES[unit]}`;
}

export function percent(value) {
  return `${(value * 100).toFixed(value < 0.0995 ? 1 : 0)} %`;
}

export function milliseconds(value) {
  const ms = value * 1000;
  return `${ms < 10 ? ms.toFixed(1) : count(ms)} ms`;
}

/** Seconds, in the two largest units that fit. */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  const m = Math.floor(s / 60);
  if (m < 60) return s % 60 ? `${m} min ${s % 60} s` : `${m} min`;
  const hours = Math.floor(m / 60);
  if (hours < 24) return `${hours} h ${m % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** A user, or a client that has none. */
export function who({ user, client }) {
  return user || `anonymous ${client.slice(0, 8)}`;
}

export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString("en-GB");
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
