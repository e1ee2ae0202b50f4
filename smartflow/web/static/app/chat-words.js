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

/** The user's, as for the tasks beside: not the browser's, which may be elsewhere. */
const timeZone = knownZone(document.body.dataset.timeZone);
const clock = new Intl.DateTimeFormat(language, { timeZone, hour: "numeric", minute: "2-digit" });
const day = new Intl.DateTimeFormat(language, { timeZone, month: "short", day: "numeric" });
const dayAndClock = new Intl.DateTimeFormat(language, {
  timeZone, weekday: "short", month: "short", day: "numeric", hour: "numeric", minute: "2-digit",
});
/** Year, month and day with hyphens: the form that Date.parse reads. */
const isoDay = new Intl.DateTimeFormat("en-CA", { timeZone, year: "numeric", month: "2-digit", day: "2-digit" });
const count = new Intl.NumberFormat(language);
const short = new Intl.NumberFormat(language, { notation: "compact", maximumFractionDigits: 1 });

const share = new Intl.NumberFormat(language, { style: "percent" });

/** A browser knows fewer names of zones than a server. */
function knownZone(name) {
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name || undefined }).resolvedOptions().timeZone;
  } catch {
    return undefined;
  }
}

export const showShare = (part) => share.format(Math.min(1, part));
export const showMoment = (moment) => dayAndClock.format(new Date(moment));
export const showCount = (number) => count.format(number);
export const showShort = (number) => short.format(number);

/** The time of something today, else its day. */
export function showWhen(moment) {
  const when = new Date(moment);
  return daysAgo(when) === 0 ? clock.format(when) : day.format(when);
}

/** How many of the user's midnights lie between then and now. */
export function daysAgo(when) {
  const dayNumber = (date) => Date.parse(isoDay.format(date)) / 86_400_000;
  return dayNumber(new Date()) - dayNumber(when);
}

/** When to try again: in so many seconds, or at a moment that is further away. */
export function showWait(seconds) {
  if (seconds < 90) return say("again-in", { seconds: Math.ceil(seconds) });
  return say("again-at", { moment: showMoment(Date.now() + seconds * 1000) });
}
