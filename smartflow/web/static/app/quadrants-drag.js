// Dragging a row to another quadrant: by mouse from anywhere on the row, by touch from its handle.

import { moveTask } from "./quadrants-menu.js";

const THRESHOLD_PX = 6;
const EDGE_PX = 60;
const SCROLL_PX = 12;

let drag = null;

export function watchDrags() {
  document.addEventListener("pointerdown", begin);
  document.addEventListener("pointermove", follow);
  document.addEventListener("pointerup", drop);
  document.addEventListener("pointercancel", giveUp);
  document.addEventListener("keydown", (event) => event.key === "Escape" && giveUp());
  // A link would be dragged as an address.
  document.addEventListener("dragstart", (event) => event.target.closest?.(".task") && event.preventDefault());
}

function begin(event) {
  const row = event.target.closest(".task:not([data-editor])");
  const isByHandle = event.target.closest("[data-handle]") !== null;
  const isByMouse = event.pointerType === "mouse" && event.button === 0 && !event.target.closest("button");
  if (drag || !row || !(isByHandle || isByMouse)) return;
  if (isByHandle) event.preventDefault();
  drag = { row, id: event.pointerId, x: event.clientX, y: event.clientY, at: event, ghost: null, card: null };
}

function follow(event) {
  if (!drag || event.pointerId !== drag.id) return;
  if (event.pointerType === "mouse" && event.buttons === 0) return giveUp(); // let go outside the window
  drag.at = event;
  const distance = Math.hypot(event.clientX - drag.x, event.clientY - drag.y);
  if (!drag.ghost && distance < THRESHOLD_PX) return;
  if (!drag.ghost) lift();
  place();
}

function lift() {
  const { row } = drag;
  const box = row.getBoundingClientRect();
  const ghost = row.cloneNode(true);
  ghost.removeAttribute("id");
  ghost.querySelectorAll("[id]").forEach((part) => part.removeAttribute("id"));
  ghost.className += " ghost";
  ghost.style.width = `${box.width}px`;
  ghost.inert = true;
  document.body.append(ghost);
  drag.ghost = ghost;
  drag.offset = { x: drag.x - box.left, y: drag.y - box.top };
  row.classList.add("is-dragged");
  document.documentElement.classList.add("is-dragging");
  window.getSelection()?.removeAllRanges();
  drag.scroller = window.setInterval(scrollAtEdges, 16);
}

function place() {
  const { ghost, offset, at } = drag;
  ghost.style.transform = `translate(${at.clientX - offset.x}px, ${at.clientY - offset.y}px)`;
  const card = document.elementFromPoint(at.clientX, at.clientY)?.closest(".quadrant") ?? null;
  if (card === drag.card) return;
  drag.card?.classList.remove("is-target");
  drag.card = card;
  if (card && card !== drag.row.closest(".quadrant")) card.classList.add("is-target");
}

function scrollAtEdges() {
  const pane = document.querySelector(".pane-tasks");
  const scrolled = pane.scrollHeight > pane.clientHeight ? pane : window;
  const y = drag.at.clientY;
  const by = y < EDGE_PX ? -SCROLL_PX : y > window.innerHeight - EDGE_PX ? SCROLL_PX : 0;
  if (by !== 0) {
    scrolled.scrollBy(0, by);
    place();
  }
}

function drop(event) {
  if (!drag || event.pointerId !== drag.id) return;
  const { row, card, ghost } = drag;
  const isMove = ghost && card && card !== row.closest(".quadrant");
  if (ghost && event.pointerType === "mouse") swallowClick(); // a finger that moved makes no click
  giveUp();
  if (isMove) moveAtOnce(row, card);
}

// The row stands where it was dropped at once; without an answer it goes back.
function moveAtOnce(row, card) {
  const [list, next] = [row.parentElement, row.nextElementSibling];
  const goBack = () => list.insertBefore(row, next?.parentElement === list ? next : null);
  const moving = moveTask(row, card.dataset.quadrant);
  card.querySelector(".tasks").prepend(row);
  document.addEventListener("quadrants:trouble", goBack, { once: true });
  moving.finally(() => document.removeEventListener("quadrants:trouble", goBack));
}

function giveUp() {
  if (!drag) return;
  const { row, card, ghost, scroller } = drag;
  drag = null;
  window.clearInterval(scroller);
  ghost?.remove();
  card?.classList.remove("is-target");
  row.classList.remove("is-dragged");
  document.documentElement.classList.remove("is-dragging");
}

// The mouse's button was let go over the link that the row is: that was no click.
function swallowClick() {
  const swallow = (event) => {
    event.preventDefault();
    event.stopPropagation();
  };
  window.addEventListener("click", swallow, { capture: true, once: true });
  setTimeout(() => window.removeEventListener("click", swallow, { capture: true }), 0);
}
