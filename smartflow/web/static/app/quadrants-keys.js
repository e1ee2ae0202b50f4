// The page by keyboard. Letters and digits count only while a row has the focus, and never in a field.

import { focusFirst } from "./quadrants-focus.js";
import { refresh } from "./quadrants-live.js";
import { perform } from "./quadrants-menu.js";

export function watchKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    const isTyping = event.target.closest("input, textarea, select, [contenteditable]") !== null;
    if (event.key === "Escape") return onEscape(event);
    if (isTyping) return;
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
      const undo = document.querySelector("#toast:not([hidden]) #undo");
      if (undo) {
        event.preventDefault();
        undo.click();
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const row = event.target.closest(".task:not([data-editor])");
    if (row && onRowKey(row, event)) event.preventDefault();
  });
  document.addEventListener("click", (event) => {
    const more = event.target.closest("[data-more]");
    const cancel = event.target.closest("[data-cancel]");
    if (!more && !cancel) return;
    event.preventDefault();
    if (more) showMore(more);
    else closeEditor(cancel.closest(".task"));
  });
}

function onRowKey(row, event) {
  if (/^[1-4]$/.test(event.key)) perform(row, "move", event.key);
  else if (event.key === "e" || event.key === "E") perform(row, "edit");
  else if (event.key === "Delete") perform(row, "delete");
  else if (event.key === "ArrowDown") step(row, row.nextElementSibling);
  else if (event.key === "ArrowUp") step(row, row.previousElementSibling);
  else return false;
  return true;
}

function step(row, other) {
  if (!other) return;
  const part = document.activeElement.id.replace(`${row.id}-`, "");
  focusFirst([`${other.id}-${part}`, `${other.id}-open`]);
}

function onEscape(event) {
  const editor = event.target.closest("[data-editor]");
  if (editor) {
    event.preventDefault();
    closeEditor(editor);
  }
}

// The row comes back as the server has it; what was typed is given up.
function closeEditor(editor) {
  const before = rowsBefore.get(editor.dataset.task);
  if (before) {
    editor.replaceWith(before);
    window.htmx.process(before);
    focusFirst([`task-${editor.dataset.task}-open`]);
  } else {
    editor.removeAttribute("data-editor");
  }
  refresh();
}

// Rows as they were before they became editors; an editor whose text was taken becomes a row again.
const rowsBefore = new Map();
document.addEventListener("htmx:beforeSwap", (event) => {
  const { target, xhr, requestConfig } = event.detail;
  if (xhr.status < 300 && requestConfig.elt.matches("form.editor")) {
    requestConfig.elt.closest(".task").removeAttribute("data-editor");
  }
  if (target?.matches?.(".task:not([data-editor])")) rowsBefore.set(target.dataset.task, target.cloneNode(true));
});

function showMore(link) {
  document.querySelector(`#shown [name=shown_${link.dataset.more}]`).value = link.dataset.shown;
  refresh();
}
