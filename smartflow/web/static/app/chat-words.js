/**
 * The panel's own words, in the page's language: the template brings them, translated, with {places} for values.
 */
const language = document.documentElement.lang || "en";
const words = new Map();

export function readWords(list) {
  for (const item of list.querySelectorAll("[data-word]")) words.set(item.dataset.word, item.textContent.trim());
}

export function say(name, values = {}) {
  return (words.get(name) ?? name).replace(/\{(\w+)\}/g, (place, key) => String(values[key] ?? place));
}

const clock = new Intl.DateTimeFormat(language, { hour: "numeric", minute: "2-digit" });
const day = new Intl.DateTimeFormat(language, { month: "short", day: "numeric" });
const dayAndClock = new Intl.DateTimeFormat(language, {
  weekday: "short", month: "short", day: "numeric", hour: "numeric", minute: "2-digit",
});
const count = new Intl.NumberFormat(language);
const short = new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 });

const share = new Intl.NumberFormat(language, { style: "percent" });

export const showShare = (part) => share.format(Math.min(1, part));
export const showMoment = (moment) => dayAndClock.format(new Date(moment));
export const showCount = (number) => count.format(number);
export const showShort = (number) => short.format(number);

/** The time of something today, else its day. */
export function showWhen(moment) {
  const when = new Date(moment);
  return daysAgo(when) === 0 ? clock.format(when) : day.format(when);
}

/** How many midnights lie between then and now, where the reader is. */
export function daysAgo(when) {
  const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());
  return Math.round((midnight(new Date()) - midnight(when)) / 86_400_000);
}

/** When to try again: in so many seconds, or at a moment that is further away. */
export function showWait(seconds) {
  if (seconds < 90) return say("again-in", { seconds: Math.ceil(seconds) });
  return say("again-at", { moment: showMoment(Date.now() + seconds * 1000) });
}
