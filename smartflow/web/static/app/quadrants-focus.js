// Keeps the keyboard's place: on the same control when its row was drawn anew, else on its row, else on its neighbour.

let plan = [];

export function watchFocus() {
  document.addEventListener("htmx:beforeRequest", (event) => {
    plan = placesNear(event.detail.elt);
  });
}

// Call before a request that no element triggers.
export function planFocus(element) {
  plan = placesNear(element);
}

export function keepFocus(change) {
  const places = [...placesNear(document.activeElement), ...plan];
  const hadFocus = document.activeElement !== document.body;
  change();
  const isLost = document.activeElement === document.body || document.activeElement === null;
  if (isLost && (hadFocus || plan.length > 0)) focusFirst(places);
  plan = [];
}

export function focusFirst(ids) {
  for (const id of ids) {
    const element = document.getElementById(id);
    if (element && element.getClientRects().length > 0) {
      element.focus({ preventScroll: false });
      return;
    }
  }
}

function placesNear(element) {
  if (!element?.closest) return [];
  const places = element.id && !element.matches("li, form") ? [element.id] : [];
  const named = element.closest("[data-focus-task]")?.dataset.focusTask;
  const row = element.closest(".task") ?? (named ? document.getElementById(`task-${named}`) : null);
  if (named) places.push(`task-${named}-open`);
  if (row) {
    const near = [row, row.nextElementSibling, row.previousElementSibling].filter(Boolean);
    places.push(...near.map((other) => `${other.id}-open`));
  }
  const quadrant = element.closest(".quadrant")?.dataset.quadrant;
  if (quadrant) places.push(`add-${quadrant}-title`);
  return places;
}
