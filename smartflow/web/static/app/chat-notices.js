/**
 * Tells the reader what went wrong: in the server's words where it said any, and when to try again.
 */
import { Refusal } from "./chat-api.js";
import { say, showWait } from "./chat-words.js";

/** The server's sentence names the moment itself. */
const QUOTA_USED_UP = "40051";

export class Notices {
  constructor(root) {
    this.element = root.querySelector("[data-part=trouble]");
    this.words = this.element.querySelector("p");
    this.element.querySelector("button").addEventListener("click", () => this.clear());
  }

  clear() {
    this.element.hidden = true;
  }

  tell(words) {
    this.words.textContent = words;
    this.element.hidden = false;
  }

  tellError(error) {
    this.tell(wordsOf(error));
  }
}

function wordsOf(error) {
  if (!(error instanceof Refusal)) return say(navigator.onLine ? "unreachable" : "offline");
  const said = [error.message || say("went-wrong"), ...Object.values(error.fields)];
  const isTimed = error.isTemporary && error.retryAfterSeconds && error.code !== QUOTA_USED_UP;
  if (isTimed) said.push(showWait(error.retryAfterSeconds));
  return said.filter(Boolean).join(" ");
}
