/**
 * Shows one turn: the question, the answer of its variants that is chosen, and what can be done with it.
 */
import { showThoughts } from "./chat-thoughts.js";
import { showText } from "./chat-text.js";
import { say, showMoment, showWait, showWhen } from "./chat-words.js";

export class TurnView {
  constructor(template, turn) {
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.turn = turn.no;
    this.turn = turn;
    this.part = (name) => this.element.querySelector(`[data-part=${name}]`);
  }

  /** Show what the turn is now; `live` is the answer that is followed, if any. */
  update({ isLast, isBusy, live }) {
    this.#showQuestion();
    const variant = this.turn.shown;
    this.part("answer").hidden = variant === null;
    if (variant === null) return;
    const isLive = variant.live !== null;
    this.part("answer").dataset.state = variant.state;
    this.part("answer").dataset.kind = variant.kind;
    this.updateText(live);
    this.#showNotice(variant, isLast);
    this.part("tools").hidden = isLive;
    this.#showTools(variant, { isLast, isBusy });
  }

  /** Show only what the answer says: called for every piece of a live one. */
  updateText(live) {
    const variant = this.turn.shown;
    const text = variant.live ? variant.live.text : variant.text;
    const extras = variant.live ? variant.live.extras : variant.extras;
    showText(this.part("text"), text);
    showThoughts(this.part("thoughts"), this.part("steps"), extras, { isLive: variant.live !== null && !text });
    const waiting = this.part("waiting");
    waiting.hidden = variant.live === null;
    if (variant.live) waiting.lastElementChild.textContent = waitingWords(live, text);
  }

  #showQuestion() {
    const { question } = this.turn;
    this.part("question").hidden = question === null;
    if (question === null || this.part("asked").textContent === question.text) return;
    this.part("asked").textContent = question.text;
    const time = this.part("time");
    time.textContent = showWhen(question.at);
    time.dateTime = question.at;
    time.title = showMoment(question.at);
  }

  #showNotice(variant, isLast) {
    const notice = this.part("notice");
    const words = variant.live ? "" : noticeWords(variant, isLast);
    notice.hidden = !words;
    notice.textContent = words;
  }

  #showTools(variant, { isLast, isBusy }) {
    const mayGoOn = variant.end ? variant.end.mayContinue : variant.text && ["failed", "stopped"].includes(variant.state);
    this.#tool("copy").hidden = !variant.text;
    this.#tool("regenerate").hidden = !isLast || isBusy;
    this.#tool("continue").hidden = !(isLast && !isBusy && mayGoOn && variant.runId === this.turn.countingId);
    const { ordered } = this.turn;
    const place = ordered.indexOf(variant);
    const pager = this.part("pager");
    pager.hidden = ordered.length < 2;
    this.part("place").textContent = `${place + 1} / ${ordered.length}`;
    const isFixed = isLast && isBusy;
    // not `disabled`: a button that was pressed keeps the focus
    this.#tool("earlier").ariaDisabled = String(place === 0 || isFixed);
    this.#tool("later").ariaDisabled = String(place === ordered.length - 1 || isFixed);
  }

  #tool(name) {
    return this.element.querySelector(`[data-action=${name}]`);
  }
}

function waitingWords(live, text) {
  if (live && !live.isConnected) return say("reconnecting");
  if (live?.isStopping) return say("stopping");
  return text ? "" : say("thinking");
}

function noticeWords({ state, end, text }, isLast) {
  if (state === "stopped") return say("stopped");
  if (state !== "failed") return text ? "" : say("nothing-said");
  const words = end?.message || say("not-finished");
  return end?.retryAfterSeconds && isLast ? `${words} ${showWait(end.retryAfterSeconds)}` : words;
}
