/**
 * Two small meters: how full the assistant's memory of the conversation is, and what is left of the week's tokens.
 */
import { ask } from "./chat-api.js";
import { say, showCount, showMoment, showShare, showShort } from "./chat-words.js";

export class Meters {
  constructor(root, store) {
    this.store = store;
    this.context = root.querySelector("[data-part=context]");
    this.quota = root.querySelector("[data-part=quota]");
  }

  /** Ask for both; what cannot be had is not shown. */
  async refresh() {
    const { id } = this.store.conversation;
    const [stats, quota] = await Promise.all([
      id ? ask("/agent/context-stats", { query: { conversation_id: id } }).catch(() => null) : null,
      ask("/user/quota").catch(() => null),
    ]);
    if (id === this.store.conversation.id) this.#showContext(stats);
    this.#showQuota(quota);
  }

  #showContext(stats) {
    this.context.hidden = !stats;
    if (!stats) return;
    const values = { used: showCount(stats.total), budget: showCount(stats.budget) };
    fill(this.context, stats.total, stats.budget, say("context", { share: showShare(stats.total / Math.max(1, stats.budget)) }));
    this.context.title = say("context-long", values);
  }

  #showQuota(quota) {
    this.quota.hidden = !quota;
    if (!quota) return;
    const whole = quota.limit + quota.granted;
    fill(this.quota, quota.left, whole, say("quota", { left: showShort(quota.left) }));
    const values = { left: showCount(quota.left), limit: showCount(whole), moment: showMoment(quota.resets_at) };
    this.quota.title = say("quota-long", values);
  }
}

function fill(element, value, whole, words) {
  const meter = element.querySelector("meter");
  Object.assign(meter, { min: 0, max: Math.max(1, whole), value, textContent: words });
  element.querySelector("span").textContent = words;
}
