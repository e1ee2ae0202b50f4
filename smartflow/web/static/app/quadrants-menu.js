// What a row's ⋯ offers, and the same by key: edit, move, delete. One menu serves all rows.

import { planFocus } from "./quadrants-focus.js";

const GAP_PX = 6;
let row = null;

export function watchMenu() {
  const menu = document.getElementById("task-menu");
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-menu]");
    if (button) open(menu, button);
  });
  menu.addEventListener("click", (event) => {
    const item = event.target.closest("[data-do]");
    if (!item) return;
    menu.hidePopover();
    perform(row, item.dataset.do, item.dataset.quadrant);
  });
  menu.addEventListener("keydown", (event) => onKey(menu, event));
}

export function perform(task, verb, quadrant) {
  if (!task?.isConnected) return;
  const id = task.dataset.task;
  if (verb === "edit") {
    document.getElementById(`task-${id}-open`)?.click();
  } else if (verb === "delete") {
    post(task, `${id}/delete`, {});
  } else if (task.closest(".quadrant").dataset.quadrant !== String(quadrant)) {
    moveTask(task, quadrant);
  }
}

export function moveTask(task, quadrant) {
  return post(task, `${task.dataset.task}/move`, { quadrant });
}

async function post(task, path, values) {
  if (task.classList.contains("is-pending")) return; // it is on its way already
  task.classList.add("is-pending");
  planFocus(task);
  const url = `${document.getElementById("page-words").dataset.taskUrl}${path}`;
  try {
    await window.htmx.ajax("POST", url, { source: task, target: "#quadrants", swap: "keyed", values });
  } catch {
    // said by quadrants-notes.js, which hears of every failure
  } finally {
    task.classList.remove("is-pending");
  }
}

function open(menu, button) {
  row = button.closest(".task");
  const here = row.closest(".quadrant").dataset.quadrant;
  menu.querySelectorAll("[data-quadrant]").forEach((item) => { item.disabled = item.dataset.quadrant === here; });
  menu.showPopover();
  const place = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const isBelow = place.bottom + GAP_PX + height <= window.innerHeight;
  const top = isBelow ? place.bottom + GAP_PX : Math.max(GAP_PX, place.top - height - GAP_PX);
  menu.style.setProperty("--top", `${top}px`);
  menu.style.setProperty("--left", `${Math.max(GAP_PX, place.right - width)}px`);
  menu.querySelector("[data-do]").focus();
}

function onKey(menu, event) {
  if (event.key === "Tab") return menu.hidePopover();
  const items = [...menu.querySelectorAll("[data-do]:not(:disabled)")];
  const at = items.indexOf(document.activeElement);
  const next = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  items.at(next % items.length).focus();
}
