/**
 * Shows the turns of the open conversation, follows the end while the reader is there, and loads what came before.
 */
import { TurnView } from "./chat-turn.js";
import { say } from "./chat-words.js";

/** So near to the end a reader still follows it. */
const FOLLOW_PX = 24;
/** So near to the beginning what came before is loaded. */
const OLDER_PX = 240;

export class Thread {
  constructor(root, store) {
    this.store = store;
    this.scroller = root.querySelector("[data-part=scroller]");
    this.list = root.querySelector("[data-part=turns]");
    this.empty = root.querySelector("[data-part=empty]");
    this.older = root.querySelector("[data-part=older]");
    this.toEnd = root.querySelector("[data-part=to-end]");
    this.template = root.querySelector("[data-part=turn]");
    this.views = new Map();
    this.isFollowing = true;
    this.frame = 0;
    store.addEventListener("opened", () => this.#begin());
    store.addEventListener("thread", (event) => this.#showAll(event.detail));
    store.addEventListener("state", () => this.#showAll({}));
    store.addEventListener("live", () => this.#showLiveSoon());
    this.scroller.addEventListener("scroll", () => this.#noteScroll(), { passive: true });
    new ResizeObserver(() => this.#keepPlace()).observe(this.scroller);
    this.toEnd.addEventListener("click", () => this.scrollToEnd());
    this.older.addEventListener("click", () => this.#loadOlder());
  }

  scrollToEnd() {
    this.isFollowing = true;
    this.#keepPlace();
  }

  #begin() {
    this.views.clear();
    this.list.replaceChildren();
    this.isFollowing = true;
    this.#showAll({});
  }

  #showAll({ isOlder = false, isAnswering = false }) {
    const { conversation, isLoading, live } = this.store;
    const { ordered } = conversation;
    const fromEnd = this.scroller.scrollHeight - this.scroller.scrollTop;
    for (const turn of ordered) {
      const isLast = turn === ordered.at(-1);
      this.#viewOf(turn).update({ isLast, isBusy: live.isBusy, live: live.answer });
    }
    this.#order(ordered, conversation.marks);
    this.empty.hidden = ordered.length > 0 || isLoading || conversation.id !== null;
    this.older.hidden = !conversation.hasOlder;
    if (isAnswering) this.isFollowing = true;
    // what was added above pushes nothing away
    if (isOlder) this.scroller.scrollTop = this.scroller.scrollHeight - fromEnd;
    else this.#keepPlace();
  }

  #viewOf(turn) {
    if (!this.views.has(turn.no)) this.views.set(turn.no, new TurnView(this.template, turn));
    return this.views.get(turn.no);
  }

  /** Put turns and marks into their order, moving only what stands elsewhere. */
  #order(turns, marks) {
    const wanted = [];
    const waiting = [...marks.values()].sort((one, other) => one.seq - other.seq);
    for (const turn of turns) {
      while (waiting.length && waiting[0].seq < turn.seq) wanted.push(markOf(waiting.shift()));
      wanted.push(this.views.get(turn.no).element);
    }
    wanted.push(...waiting.map(markOf));
    wanted.forEach((element, index) => {
      if (this.list.children[index] !== element) this.list.insertBefore(element, this.list.children[index] ?? null);
    });
    while (this.list.childElementCount > wanted.length) this.list.lastElementChild.remove();
  }

  /** However fast pieces come, they are shown once a frame. */
  #showLiveSoon() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      const { answer } = this.store.live;
      if (!answer) return;
      this.#viewOf(answer.turn).updateText(answer);
      this.#keepPlace();
    });
  }

  #keepPlace() {
    if (this.isFollowing) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.#showWay();
  }

  #noteScroll() {
    this.isFollowing = this.#fromEnd() <= FOLLOW_PX;
    this.#showWay();
    if (this.scroller.scrollTop < OLDER_PX) this.#loadOlder();
  }

  #showWay() {
    this.toEnd.hidden = !this.views.size || this.#fromEnd() <= FOLLOW_PX;
  }

  #fromEnd() {
    return this.scroller.scrollHeight - this.scroller.clientHeight - this.scroller.scrollTop;
  }

  #loadOlder() {
    this.store.loadOlder().catch((error) => this.store.tell("notice", { error }));
  }
}

function markOf(mark) {
  mark.element ??= Object.assign(document.createElement("p"), { className: "chat-mark", textContent: say("compacted") });
  return mark.element;
}
