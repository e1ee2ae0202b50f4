// How the quadrants take over what the server sends: row by row, by id. What did not change is not touched, so that
// focus, scrolling, half-typed text, open editors and a drag survive the news of another device.

import { keepFocus } from "./quadrants-focus.js";

export function defineKeyedSwap() {
  window.htmx.defineExtension("keyed", {
    handleSwap(style, _target, fragment) {
      if (style !== "keyed") return false;
      const next = fragment.querySelector("#quadrants");
      return next ? adopt(next) : [];
    },
  });
  // htmx looks for the extension from the element that asked, which may be gone by then: the toast is replaced first.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, shouldSwap, serverResponse } = event.detail;
    if (target.id !== "quadrants" || !shouldSwap) return;
    event.detail.shouldSwap = false;
    showQuadrants(serverResponse);
  });
}

export function showQuadrants(html) {
  const how = { swapStyle: "keyed", swapDelay: 0, settleDelay: 0 };
  window.htmx.swap("#quadrants", html, how, { contextElement: document.body });
}

export function shownRevision() {
  return document.getElementById("quadrants").dataset.revision;
}

function adopt(next) {
  const live = document.getElementById("quadrants");
  const fresh = [];
  keepFocus(() => {
    for (const part of [...next.querySelectorAll("[data-part]")]) {
      const old = document.getElementById(part.id);
      if (part.dataset.part === "list") {
        adoptList(old, part, fresh);
      } else if (!old.isEqualNode(part)) {
        old.replaceWith(part);
        fresh.push(part);
      }
    }
    for (const name of ["revision", "nextChangeMs"]) live.dataset[name] = next.dataset[name];
  });
  document.dispatchEvent(new CustomEvent("quadrants:shown"));
  return fresh;
}

function adoptList(list, next, fresh) {
  const wanted = [...next.children].map((row) => {
    const old = document.getElementById(row.id);
    if (old && (old.dataset.version === row.dataset.version || isBusy(old))) return old;
    old?.remove();
    fresh.push(row);
    return row;
  });
  for (const row of [...list.children]) {
    if (!wanted.includes(row) && !isBusy(row)) row.remove();
  }
  let place = list.firstElementChild;
  for (const row of wanted) {
    if (row === place) {
      place = place.nextElementSibling;
    } else {
      list.insertBefore(row, place);
    }
  }
}

function isBusy(row) {
  return row.hasAttribute("data-editor") || row.classList.contains("is-dragged");
}
