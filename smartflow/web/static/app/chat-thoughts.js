/**
 * Shows what an answer's structured events tell: what the assistant thought, for how long, and the steps it took.
 */
import { say } from "./chat-words.js";

/** Show the thoughts as a panel that can be opened, and the steps as lines. */
export function showThoughts(panel, steps, extras, { isLive }) {
  const thoughts = extras.filter((extra) => extra.kind === "thinking_summary").map((extra) => extra.thinking_summary);
  showPanel(panel, thoughts.filter(Boolean), isLive);
  const lines = [...new Map(extras.map(stepOf).filter(Boolean)).values()];
  steps.hidden = !lines.length;
  if (steps.childElementCount === lines.length && [...steps.children].every((li, at) => li.textContent === lines[at])) {
    return;
  }
  steps.replaceChildren(...lines.map(lineOf));
}

function showPanel(panel, thoughts, isLive) {
  panel.hidden = !thoughts.length;
  if (!thoughts.length) return;
  const last = thoughts.at(-1);
  const seconds = Math.round(last.duration_seconds ?? 0);
  const words = isLive && !last.final ? last.short_summary || say("thinking") : say("thought", { seconds });
  panel.firstElementChild.textContent = words;
  panel.lastElementChild.textContent = thoughts.map((thought) => thought.detail_summary).filter(Boolean).join("\n\n");
}

/** [key, words] of a step; a later event with the same key takes its place. */
function stepOf(extra) {
  const told = extra.kind === "status" ? extra.status : extra.tool;
  const words = told?.summary || told?.name;
  if (!words) return null;
  return [[extra.block_id, extra.stage, told.name ?? told.code].join("|"), words];
}

function lineOf(words) {
  const line = document.createElement("li");
  line.textContent = words;
  return line;
}
