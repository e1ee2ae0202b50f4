/**
 * The one answer that is followed: begun here, or found under way in the conversation that was opened.
 */
import { ask, send } from "./chat-api.js";
import { follow } from "./chat-follow.js";
import { Output } from "./chat-output.js";

export class Live {
  /** `tell` passes on what views want to know; `ended` is called with the conversation whose answer came to its end. */
  constructor({ tell, ended }) {
    this.tell = tell;
    this.ended = ended;
    this.#leaving = new AbortController();
  }

  #leaving;
  /** {runId, turn, variant, isConnected, isStopping}; null when no answer is live. */
  answer = null;
  isSending = false;

  get isBusy() {
    return this.isSending || this.answer !== null;
  }

  /** Stop reading along; the answer goes on without us. */
  leave() {
    this.#leaving.abort();
    this.#leaving = new AbortController();
    this.answer = null;
    this.isSending = false;
  }

  /** Begin a run by a request; resolves once the server has accepted it. `turnOf` gives the turn that it answers. */
  begin({ conversation, path, body, headers = {}, turnOf, kind = "turn" }) {
    const output = new Output();
    const sent = { Accept: "text/event-stream", ...headers };
    const request = (signal) => send(path, { method: "POST", body, signal, headers: sent });
    this.isSending = true;
    this.tell("state");
    return new Promise((resolve, reject) => {
      const opened = ({ runId, conversationId }) => {
        const isNew = conversation.id === null;
        conversation.id = conversationId ?? conversation.id;
        this.isSending = false;
        this.#show(conversation, { runId, turn: turnOf(runId), output, kind });
        this.tell("accepted", { isNew });
        resolve();
      };
      this.#follow(conversation, { output, begin: request, opened }).catch((error) => {
        this.isSending = false;
        this.tell("state");
        reject(error);
      });
    });
  }

  /** Follow a run that was begun elsewhere. */
  async readOn(conversation, runId) {
    if (this.isBusy) return;
    const { signal } = this.#leaving;
    const [turn, kind] = await placeOf(conversation, runId);
    if (this.isBusy || signal.aborted) return;
    const output = new Output();
    this.#show(conversation, { runId, turn, output, kind });
    this.#follow(conversation, { output, runId }).catch((error) => this.tell("notice", { error }));
  }

  /** Ask why an answer did not come to its end: the timeline has the code, its events the words. */
  async explain(variant) {
    const output = new Output();
    const { signal } = this.#leaving;
    await follow({ output, runId: variant.runId, changed: () => {}, signal });
    variant.end = output.end;
    this.tell("thread");
  }

  /** Ask the server to stop it; what was said is kept. */
  async stop() {
    const answer = this.answer;
    if (!answer || answer.isStopping) return;
    answer.isStopping = true;
    this.tell("state");
    try {
      await send(`/agent/runs/${answer.runId}/stop`, { method: "POST" });
    } catch (error) {
      answer.isStopping = false;
      this.tell("state");
      throw error;
    }
  }

  #show(conversation, { runId, turn, output, kind }) {
    const variant = conversation.begin(turn, runId, output, kind);
    this.answer = { runId, turn, variant, isConnected: true, isStopping: false };
    this.tell("thread", { isAnswering: true });
    this.tell("state");
  }

  async #follow(conversation, { output, runId, begin, opened }) {
    const { signal } = this.#leaving;
    const changed = ({ isConnected }) => {
      if (!this.answer || signal.aborted) return;
      const isOther = this.answer.isConnected !== isConnected;
      this.answer.isConnected = isConnected;
      this.tell(isOther ? "state" : "live");
      if (isOther) this.tell("live");
    };
    try {
      await follow({ output, runId, begin, opened, changed, signal });
    } catch (error) {
      if (this.answer?.variant.live !== output) throw error;
      output.end = { state: "failed", message: error.message, mayContinue: false };
    }
    if (!signal.aborted) this.#end(conversation, output);
  }

  #end(conversation, output) {
    const { variant } = this.answer;
    Object.assign(variant, { text: output.text, state: output.end.state, end: output.end, live: null });
    variant.extras = output.extras;
    this.answer = null;
    this.tell("thread");
    this.tell("state");
    this.tell("ended", { variant });
    this.ended(conversation);
  }
}

/** Where a run belongs that the timeline has no answer of yet: [turn, kind]. */
async function placeOf(conversation, runId) {
  const known = conversation.turnOf(runId);
  if (known) return [known, "turn"];
  const listed = await ask(`/agent/runs/${runId}/variants`);
  const turn = listed.map((variant) => conversation.turnOf(variant.run_id)).find(Boolean);
  return turn ? [turn, "regenerate"] : [conversation.turn(conversation.nextNo), "continue"];
}
