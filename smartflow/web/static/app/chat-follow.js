/**
 * Follows one run to its end, however often the connection is cut: it comes back with the position that it has.
 */
import { Refusal, send } from "./chat-api.js";
import { readEvents } from "./chat-sse.js";

const FIRST_PAUSE_MS = 400;
const LONGEST_PAUSE_MS = 10_000;

/**
 * Read a run's events into `output` until [DONE].
 *
 * `begin` sends the request that begins the run; without it the run `runId` is read. `opened` is told the answer of
 * `begin`, `changed` each change of the output and of the connection. Leaving by `signal` changes nothing for the run.
 * Raises: Refusal that no repetition will cure; whatever `begin` raises: then nothing is being followed.
 */
export async function follow({ output, runId = null, begin = null, opened, changed, signal }) {
  let failures = 0;
  while (!signal.aborted) {
    let pause = null;
    try {
      const answer = begin ? await begin(signal) : await readOn(runId, output.position, signal);
      if (begin) {
        begin = null;
        runId = answer.headers.get("X-Run-ID");
        opened({ runId, conversationId: answer.headers.get("X-Conversation-ID") });
      }
      changed({ isConnected: true });
      for await (const event of readEvents(answer.body)) {
        failures = 0;
        if (output.take(event)) return;
        changed({ isConnected: true });
      }
    } catch (error) {
      if (signal.aborted) return;
      if (begin || (error instanceof Refusal && !error.isTemporary)) throw error;
      pause = error.retryAfterSeconds ? error.retryAfterSeconds * 1000 : null;
    }
    if (signal.aborted) return;
    changed({ isConnected: false });
    await rest(pause ?? jittered(failures++), signal);
  }
}

function readOn(runId, position, signal) {
  const headers = { Accept: "text/event-stream", ...(position ? { "Last-Event-ID": position } : {}) };
  return send(`/agent/runs/${runId}/events`, { headers, signal });
}

/** Between half and one and a half of a pause that doubles, so that not all readers come back at once. */
function jittered(failures) {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures) * (0.5 + Math.random());
}

/** Wait; not longer than until the network is back or nobody waits any more. */
function rest(milliseconds, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}
