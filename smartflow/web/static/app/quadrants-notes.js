// What the page says of what happened: the toast with its way back, and sentences about what went wrong.

import { refresh } from "./quadrants-live.js";
import { toSignIn } from "./token.js";

const SHOWN_MS = 10_000;
const words = () => document.getElementById("page-words").dataset;
let timer = 0;

export function note(text, { isTrouble = false } = {}) {
  const toast = document.getElementById("toast");
  const line = document.createElement("p");
  line.textContent = text;
  toast.replaceChildren(line);
  toast.classList.toggle("is-trouble", isTrouble);
  toast.hidden = false;
  hideLater();
}

export function watchAnswers() {
  const toasts = document.getElementById("toasts");
  toasts.addEventListener("click", (event) => event.target.closest("#toast-close") && hide());
  toasts.addEventListener("pointerenter", () => clearTimeout(timer));
  toasts.addEventListener("pointerleave", hideLater);
  toasts.addEventListener("focusin", () => clearTimeout(timer));
  toasts.addEventListener("focusout", hideLater);
  document.addEventListener("htmx:oobAfterSwap", hideLater);
  document.addEventListener("htmx:beforeSend", (event) => markTick(event.detail.elt, true));
  document.addEventListener("htmx:sendError", (event) => onTrouble(event, words().unreachable));
  document.addEventListener("htmx:timeout", (event) => onTrouble(event, words().unreachable));
  document.addEventListener("htmx:beforeOnLoad", onSignedOut);
  document.addEventListener("htmx:responseError", onRefusal);
  if (!document.getElementById("toast").hidden) hideLater();
}

function onSignedOut(event) {
  if (event.detail.xhr.status !== 401) return;
  event.preventDefault();
  toSignIn();
}

function onRefusal(event) {
  const { status, responseText } = event.detail.xhr;
  const type = event.detail.xhr.getResponseHeader("Content-Type") ?? "";
  const isSentence = type.startsWith("text/plain") && responseText;
  if (isSentence) onTrouble(event, responseText);
  else onTrouble(event, status === 403 ? words().stale : words().failed);
  if (status === 404) refresh();
}

function onTrouble(event, text) {
  markTick(event.detail.elt, false);
  document.dispatchEvent(new CustomEvent("quadrants:trouble"));
  note(text, { isTrouble: true });
}

// A tick is seen at once, and taken back when it did not arrive.
function markTick(element, isOn) {
  if (element.matches?.(".tick")) element.closest(".task").classList.toggle("is-ticking", isOn);
}

function hideLater() {
  clearTimeout(timer);
  timer = setTimeout(hide, SHOWN_MS);
}

function hide() {
  clearTimeout(timer);
  document.getElementById("toast").hidden = true;
}
