/**
 * What the panel knows and does: the open conversation, its live answer, and everything a reader may ask for.
 *
 * Views listen to its events: `opened` (another conversation), `thread` (its turns changed), `live` (the live answer
 * said something), `state` (busy, connected), `accepted`, `ended`, `titled`, and `notice` (an error to be told).
 */
import { ask, send } from "./chat-api.js";
import { Conversation } from "./chat-conversation.js";
import { Live } from "./chat-live.js";

const PAGE = 60;
const TITLE_LOOKS_MS = [1000, 1000, 2000, 2000, 4000, 8000];

export class ChatStore extends EventTarget {
  conversation = new Conversation();
  isLoading = false;
  #seen = "";

  constructor() {
    super();
    this.live = new Live({
      tell: (type, detail) => this.tell(type, detail),
      ended: (conversation) => this.#settle(conversation).catch((error) => this.tell("notice", { error })),
    });
  }

  tell(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  // --- which conversation ---------------------------------------------------------------------------------------

  /** Leave the open conversation for an empty one. */
  startNew() {
    this.#enter(new Conversation());
  }

  /** Open a conversation, rebuilt from its timeline, and go on reading what is being said in it. */
  async open(id) {
    const conversation = new Conversation(id);
    this.isLoading = true;
    this.#enter(conversation);
    try {
      const [meta, entries] = await Promise.all([metaOf(id), entriesOf({ conversation_id: id, limit: PAGE })]);
      if (conversation !== this.conversation) return;
      conversation.hasOlder = entries.length === PAGE;
      conversation.take(entries);
      this.#takeMeta(meta);
      this.isLoading = false;
      this.tell("thread", { isNew: true });
      await this.#goOnReading(conversation, meta.live_run_id);
    } finally {
      if (conversation === this.conversation) this.isLoading = false;
    }
  }

  /** Load what came before the first turn that is known. */
  async loadOlder() {
    const conversation = this.conversation;
    if (!conversation.hasOlder || this.isLoading) return;
    this.isLoading = true;
    try {
      const query = { conversation_id: conversation.id, limit: PAGE, before_seq: conversation.firstSeq };
      const entries = await entriesOf(query);
      conversation.hasOlder = entries.length === PAGE;
      conversation.take(entries);
    } finally {
      if (conversation === this.conversation) this.isLoading = false;
    }
    if (conversation === this.conversation) this.tell("thread", { isOlder: true });
  }

  /** See what another tab or device did meanwhile, and read along with what it began. */
  async sync() {
    const conversation = this.conversation;
    if (!conversation.id || this.isLoading || this.live.isBusy) return;
    const meta = await metaOf(conversation.id);
    if (conversation !== this.conversation || !this.#takeMeta(meta)) return;
    await this.#catchUp(conversation);
    await this.#goOnReading(conversation, meta.live_run_id);
  }

  // --- what a reader asks for -----------------------------------------------------------------------------------

  /** Send a message; resolves once it is accepted. Sent again with the same key, it is the same message. */
  async say(text, key) {
    const conversation = this.conversation;
    const body = { message: text, ...(conversation.id ? { conversation_id: conversation.id } : {}) };
    const headers = { "X-Idempotency-Key": key };
    const ask = (runId) => conversation.ask({ no: conversation.nextNo, runId, text, at: new Date().toISOString() });
    const turnOf = (runId) => conversation.turnOf(runId) ?? ask(runId);
    await this.live.begin({ conversation, path: "/agent/chat", body, headers, turnOf });
  }

  /** Let the last question be answered once more. */
  async regenerate(turn) {
    const path = `/agent/runs/${turn.shown.runId}/regenerate`;
    await this.live.begin({ conversation: this.conversation, path, turnOf: () => turn, kind: "regenerate" });
  }

  /** Let an answer that was cut go on. */
  async goOn(turn) {
    const conversation = this.conversation;
    const path = `/agent/runs/${turn.shown.runId}/continue`;
    const turnOf = () => conversation.turn(conversation.nextNo);
    await this.live.begin({ conversation, path, turnOf, kind: "continue" });
  }

  /** Show another answer to a question; of the last question it is the one that counts from now on. */
  async page(turn, step) {
    const conversation = this.conversation;
    conversation.takeVariants(turn, await ask(`/agent/runs/${turn.shown.runId}/variants`));
    const ordered = turn.ordered;
    const next = ordered[ordered.indexOf(turn.shown) + step];
    if (!next) return;
    turn.shownId = next.runId;
    this.tell("thread");
    const counts = turn === conversation.last && next.text && !this.live.isBusy;
    if (counts) await send(`/agent/runs/${next.runId}/select`, { method: "POST" });
  }

  /** Read along with the run that a refusal names. */
  async attach(runId) {
    const conversation = this.conversation;
    await this.#catchUp(conversation);
    if (conversation === this.conversation) await this.live.readOn(conversation, runId);
  }

  // --- keeping up -----------------------------------------------------------------------------------------------

  #enter(conversation) {
    this.live.leave();
    this.conversation = conversation;
    this.#seen = "";
    this.tell("opened");
    this.tell("state");
  }

  async #goOnReading(conversation, liveRunId) {
    if (conversation !== this.conversation) return;
    const runId = liveRunId ?? conversation.unansweredRunId;
    if (runId) return this.live.readOn(conversation, runId);
    const answer = conversation.last?.shown;
    if (answer?.state === "failed" && !answer.end) await this.live.explain(answer);
  }

  /** Take what the timeline has behind what is known, page by page. */
  async #catchUp(conversation) {
    for (;;) {
      const query = { conversation_id: conversation.id, limit: PAGE, after_seq: conversation.lastSeq };
      const entries = await entriesOf(query);
      conversation.take(entries);
      if (entries.length < PAGE) break;
    }
    if (conversation === this.conversation) this.tell("thread");
  }

  /** Bring the page to what the server has after an answer, and wait for the first title. */
  async #settle(conversation) {
    await this.#catchUp(conversation);
    for (const pause of [0, ...TITLE_LOOKS_MS]) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (conversation !== this.conversation) return;
      this.#takeMeta(await metaOf(conversation.id));
      if (conversation.title) return;
    }
  }

  /** Take the title; tell whether something was said since this was looked at last. */
  #takeMeta(meta) {
    if (meta.title !== this.conversation.title) {
      this.conversation.title = meta.title;
      this.tell("titled");
    }
    const seen = `${meta.last_message_at} ${meta.message_count} ${meta.live_run_id}`;
    const isNews = seen !== this.#seen;
    this.#seen = seen;
    return isNews;
  }
}

function metaOf(id) {
  return ask("/agent/conversation-meta", { query: { conversation_id: id } });
}

function entriesOf(query) {
  return ask("/agent/conversation-timeline", { query });
}
