// The quadrants' scripts: what htmx does not do by itself. Loaded on the page alone.

import { watchDrags } from "./quadrants-drag.js";
import { watchFocus } from "./quadrants-focus.js";
import { watchKeys } from "./quadrants-keys.js";
import { startLive } from "./quadrants-live.js";
import { watchMenu } from "./quadrants-menu.js";
import { watchAnswers } from "./quadrants-notes.js";
import { defineKeyedSwap } from "./quadrants-swap.js";
import { csrfToken } from "./token.js";

document.documentElement.classList.replace("no-js", "js");
defineKeyedSwap();

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRFToken"] = csrfToken();
});

// A half-typed date is sent as none: nothing may be lost without a word.
document.addEventListener("htmx:beforeRequest", (event) => {
  const form = event.detail.elt.closest?.("form.add, form.editor");
  const field = form?.querySelector("input[type=datetime-local]");
  const isHalf = field?.validity.badInput ?? false;
  field?.setCustomValidity(isHalf ? document.getElementById("page-words").dataset.incomplete : "");
  if (isHalf) {
    event.preventDefault();
    field.closest("details")?.setAttribute("open", "");
    field.reportValidity();
  }
});

// Ready for the next task; the key is new, so that the next one is another.
document.addEventListener("task-added", (event) => {
  const { quadrant, key } = event.detail;
  const form = document.getElementById(`add-${quadrant}`);
  form.reset();
  form.elements.namedItem("key").value = key;
  for (const field of form.querySelectorAll("input:not([type=hidden])")) {
    field.value = "";
    field.removeAttribute("aria-invalid");
  }
  form.querySelectorAll(".field-error").forEach((error) => error.remove());
  form.elements.namedItem("title").focus();
});

// All of an editor is seen, its buttons too.
document.addEventListener("htmx:afterSettle", () => {
  document.activeElement?.closest?.(".task[data-editor]")?.scrollIntoView({ block: "nearest" });
});

document.addEventListener("click", (event) => {
  const tab = event.target.closest("[data-show]");
  if (!tab) return;
  event.preventDefault();
  document.body.dataset.view = tab.dataset.show;
  document.querySelectorAll("[data-show]").forEach((other) => other.toggleAttribute("aria-current", other === tab));
  tab.setAttribute("aria-current", "true");
  window.scrollTo(0, 0);
});

watchFocus();
watchAnswers();
watchMenu();
watchKeys();
watchDrags();
startLive();
