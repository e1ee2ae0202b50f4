/**
 * What one run has said so far, put together from its events. Pure: no network, no view.
 *
 * Every event's id is the position behind it; a `snapshot` stands for all that came before it.
 */
export class Output {
  constructor() {
    this.text = "";
    this.extras = [];
    this.position = "";
    /** How it ended: {state: finished | stopped | failed, message, retryAfterSeconds, mayContinue}; null until then. */
    this.end = null;
  }

  /** Take one event; true when it is the end mark. */
  take({ id, data }) {
    if (id) this.position = id;
    if (data === "[DONE]") {
      this.end ??= { state: "finished", message: "", mayContinue: false };
      return true;
    }
    const chunk = parse(data);
    const extra = chunk?.extra ?? null;
    const choice = chunk?.choices?.[0] ?? null;
    if (extra?.kind === "snapshot") this.#replace(choice, extra);
    else if (chunk?.error) this.end = failureOf(chunk.error, extra);
    else if (choice?.finish_reason) this.end = endOf(extra);
    else this.#append(choice, extra);
    return false;
  }

  #replace(choice, extra) {
    this.text = choice?.delta?.content ?? "";
    this.extras = (extra.events ?? []).map((event) => event.data ?? event);
  }

  #append(choice, extra) {
    this.text += choice?.delta?.content ?? "";
    if (extra) this.extras.push(extra);
  }
}

function endOf(extra) {
  const isStopped = extra?.status?.code === "stopped";
  return { state: isStopped ? "stopped" : "finished", message: "", mayContinue: Boolean(extra?.interrupt) };
}

function failureOf(error, extra) {
  return {
    state: "failed",
    message: String(error.message ?? ""),
    retryAfterSeconds: error.retry_after_seconds ?? null,
    mayContinue: Boolean(extra?.interrupt),
  };
}

function parse(data) {
  try {
    return JSON.parse(data);
  } catch {
    return null; // what is no JSON is no event of ours
  }
}
