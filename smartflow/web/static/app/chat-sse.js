/**
 * Reads server-sent events from the body of a fetch: EventSource can send no token.
 */

/** A connection on which nothing comes for so long is dead; the server sends a ping every few seconds. */
export const SILENCE_MS = 20_000;

/** Yield {id, data} of each event, until the body ends. Raises: what the network does; SilentConnection. */
export async function* readEvents(body, { silenceMs = SILENCE_MS } = {}) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let event = { id: "", lines: [] };
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), silenceMs);
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (takeLine(line.replace(/\r$/, ""), event)) continue;
        if (event.lines.length) yield { id: event.id, data: event.lines.join("\n") };
        event = { id: "", lines: [] };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export class SilentConnection extends Error {}

/** Note what a line says of an event; false for the blank one behind it. */
function takeLine(line, event) {
  if (line.startsWith("data:")) event.lines.push(line.slice(5).replace(/^ /, ""));
  else if (line.startsWith("id:")) event.id = line.slice(3).trim();
  return line !== "";
}

async function within(promise, milliseconds) {
  let timer;
  const silence = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new SilentConnection()), milliseconds);
  });
  try {
    return await Promise.race([promise, silence]);
  } finally {
    clearTimeout(timer);
  }
}
