// Keeps the quadrants as they are on the server: told by the page's stream, and by the clock when a moment passes.

import { note } from "./quadrants-notes.js";
import { showQuadrants, shownRevision } from "./quadrants-swap.js";
import { accessToken, forgetToken, toSignIn } from "./token.js";

const LONGEST_TIMER_MS = 2 ** 31 - 1;
const SOONEST_AGAIN_MS = 1_000;
const LATEST_AGAIN_MS = 30_000;
// Shorter interruptions are nobody's business.
const QUIET_MS = 4_000;

const words = () => document.getElementById("page-words").dataset;

let stream = null;
let told = null; // the revision of the newest word that the page may not show yet
let writes = 0;
let didOverlap = false;
let asking = null;
let timer = 0;
let againMs = SOONEST_AGAIN_MS;
let againTimer = 0;
let quietTimer = 0;

export function startLive() {
  watchWrites();
  document.addEventListener("quadrants:shown", onShown);
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : comeBack()));
  window.addEventListener("online", comeBack);
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => event.persisted && comeBack());
  setTimer();
  if (!document.hidden) open();
}

export async function refresh() {
  told = null;
  if (writes > 0) {
    didOverlap = true; // what a write answers may be older than what it was asked for
    return;
  }
  asking?.abort();
  const mine = (asking = new AbortController());
  try {
    const shown = new URLSearchParams(new FormData(document.getElementById("shown")));
    const answer = await fetch(`${words().quadrantsUrl}?${shown}`, {
      headers: { "HX-Request": "true" },
      credentials: "same-origin",
      signal: mine.signal,
    });
    if (answer.status === 401) return toSignIn();
    if (!answer.ok) throw new Error(`quadrants: ${answer.status}`);
    const html = await answer.text();
    if (asking === mine) showQuadrants(html);
  } catch (error) {
    if (error.name !== "AbortError") setTimeout(refresh, LATEST_AGAIN_MS / 6);
  } finally {
    if (asking === mine) asking = null;
  }
}

function watchWrites() {
  document.addEventListener("htmx:beforeSend", (event) => {
    if (event.detail.requestConfig.verb === "get") return;
    asking?.abort();
    writes += 1;
    if (writes > 1) didOverlap = true;
    // of the request itself: an element that is gone tells nobody
    event.detail.xhr.addEventListener("loadend", onWritten);
  });
}

function onWritten() {
  writes -= 1;
  if (writes > 0) return;
  const isBehind = didOverlap || (told !== null && told !== shownRevision());
  didOverlap = false;
  if (isBehind) refresh();
}

function onShown() {
  setTimer();
  if (told === shownRevision()) told = null;
}

function setTimer() {
  clearTimeout(timer);
  const wait = Number(document.getElementById("quadrants").dataset.nextChangeMs);
  timer = setTimeout(refresh, Math.min(wait, LONGEST_TIMER_MS));
}

function open() {
  close();
  stream = new EventSource(`${words().eventsUrl}?after=${encodeURIComponent(shownRevision())}`);
  stream.onopen = onOpen;
  stream.onmessage = (event) => {
    if (event.lastEventId === shownRevision()) return;
    told = event.lastEventId;
    if (writes === 0) refresh();
  };
  stream.onerror = () => {
    quietTimer ||= setTimeout(() => say(words().reconnecting), QUIET_MS);
    if (stream?.readyState === EventSource.CLOSED) comeBackLater();
  };
}

function onOpen() {
  clearTimeout(quietTimer);
  quietTimer = 0;
  againMs = SOONEST_AGAIN_MS;
  say("");
}

function close() {
  clearTimeout(againTimer);
  stream?.close();
  stream = null;
}

function comeBack() {
  refresh();
  open();
}

// The server refused: the session has ended, which the token tells, or it has no room just now.
async function comeBackLater() {
  close();
  forgetToken();
  accessToken().catch(() => {});
  againTimer = setTimeout(open, againMs);
  againMs = Math.min(againMs * 2, LATEST_AGAIN_MS);
}

function say(text) {
  const line = document.getElementById("connection");
  const wasShown = !line.hidden;
  line.hidden = text === "";
  line.textContent = text;
  if (text === "" && wasShown) note(words().connected);
}
