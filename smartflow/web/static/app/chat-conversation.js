/**
 * One conversation as a page shows it, rebuilt from the entries of its timeline in whatever order they come. Pure.
 *
 * A turn is a question and its answers (variants); one that goes on with a cut answer has no question.
 */

/** One answer to a question. `live` is the Output of a run that is followed; `end` how a followed run ended. */
class Variant {
  constructor(runId, no) {
    this.runId = runId;
    this.no = no;
    this.text = "";
    this.state = "live";
    this.kind = "turn";
    this.live = null;
    this.end = null;
    this.extras = [];
  }
}

class Turn {
  constructor(no) {
    this.no = no;
    this.seq = Infinity;
    this.question = null;
    this.variants = new Map();
    this.countsSeq = -1;
    /** The answer that counts for what the assistant remembers, and the one that is shown. */
    this.countingId = null;
    this.shownId = null;
  }

  get shown() {
    return this.variants.get(this.shownId) ?? [...this.variants.values()].at(-1) ?? null;
  }

  get ordered() {
    return [...this.variants.values()].sort((one, other) => one.no - other.no);
  }

  variant(runId, no) {
    if (!this.variants.has(runId)) this.variants.set(runId, new Variant(runId, no));
    const variant = this.variants.get(runId);
    variant.no = no ?? variant.no;
    return variant;
  }

  count(runId, seq) {
    if (seq < this.countsSeq) return;
    const followed = this.shownId === null || this.shownId === this.countingId;
    this.countsSeq = seq;
    this.countingId = runId;
    if (followed) this.shownId = runId;
  }
}

export class Conversation {
  constructor(id = null) {
    this.id = id;
    this.title = "";
    this.firstSeq = null;
    this.lastSeq = 0;
    this.hasOlder = false;
    this.turns = new Map();
    /** Where the older part was made into a summary: {seq, text}. */
    this.marks = new Map();
  }

  get ordered() {
    return [...this.turns.values()].sort((one, other) => one.no - other.no);
  }

  get last() {
    return this.ordered.at(-1) ?? null;
  }

  /** The number of the turn that would come next. */
  get nextNo() {
    return (this.last?.no ?? 0) + 1;
  }

  /** The run of the last question while nothing is known of its answer. */
  get unansweredRunId() {
    const last = this.last;
    return last?.question && !last.variants.size ? last.question.runId : null;
  }

  turn(no) {
    if (!this.turns.has(no)) this.turns.set(no, new Turn(no));
    return this.turns.get(no);
  }

  turnOf(runId) {
    return this.ordered.find((turn) => turn.variants.has(runId) || turn.question?.runId === runId) ?? null;
  }

  /** Take entries of the timeline; taking one twice changes nothing. */
  take(entries) {
    for (const entry of entries) {
      this.firstSeq = Math.min(this.firstSeq ?? entry.seq, entry.seq);
      this.lastSeq = Math.max(this.lastSeq, entry.seq);
      this.#takeOne(entry);
    }
  }

  #takeOne({ kind, seq, content, payload, created_at: at }) {
    if (kind === "context_compacted") this.marks.set(seq, { seq, text: content });
    if (!payload?.turn_no) return;
    if (kind === "user_text") this.ask({ no: payload.turn_no, runId: payload.run_id, text: content, at });
    else if (kind === "assistant_text") this.#answer(seq, content, payload, at);
    else if (kind === "variant_selected") this.turn(payload.turn_no).count(payload.run_id, seq);
    const turn = this.turns.get(payload.turn_no);
    if (turn) turn.seq = Math.min(turn.seq, seq);
  }

  #answer(seq, content, payload, at) {
    const turn = this.turn(payload.turn_no);
    const variant = turn.variant(payload.run_id, payload.variant_no);
    Object.assign(variant, { text: content, state: payload.state, kind: payload.kind ?? "turn", at, live: null });
    if (content || turn.countingId === null) turn.count(payload.run_id, content ? seq : -1);
  }

  /** Add a question that was accepted. */
  ask({ no, runId, text, at }) {
    const turn = this.turn(no);
    turn.question = { runId, text, at };
    return turn;
  }

  /** Add an answer that is being followed, and show it. */
  begin(turn, runId, output, kind = "turn") {
    const nos = [...turn.variants.values()].map((variant) => variant.no);
    const known = turn.variants.get(runId);
    const variant = known ?? turn.variant(runId, Math.max(0, ...nos) + 1);
    Object.assign(variant, { live: output, state: "live", kind, end: null });
    turn.shownId = runId;
    return variant;
  }

  /** Take the answers to a question as the server lists them. */
  takeVariants(turn, listed) {
    for (const { run_id: runId, variant_no: no, state, content, is_current: counts } of listed) {
      const variant = turn.variant(runId, no);
      if (variant.live) continue;
      Object.assign(variant, { text: content, state: ["queued", "running"].includes(state) ? "live" : state });
      if (counts) turn.countingId = runId;
    }
  }
}
