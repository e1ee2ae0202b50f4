/**
 * Requests of the chat panel to /api/v1, with the page's token and in the page's language. Knows no view.
 */
import { accessToken, forgetToken } from "./token.js";

const BASE = "/api/v1";
const TEMPORARY = new Set([429, 502, 503, 504]);

/** What the server answered instead of what was asked for; `message` is in its words. */
export class Refusal extends Error {
  constructor(httpStatus, body, retryAfter) {
    super(body.info || "");
    this.httpStatus = httpStatus;
    this.code = String(body.status ?? "");
    this.fields = body.fields ?? {};
    this.liveRunId = body.run_id ?? null;
    this.retryAfterSeconds = retryAfter;
  }

  get isTemporary() {
    return TEMPORARY.has(this.httpStatus);
  }
}

/** Send one request; resolve to the answer, whose body is not read yet. Raises: Refusal; TypeError without a network. */
export async function send(path, { method = "GET", body, headers = {}, signal } = {}) {
  const sent = { "Accept-Language": document.documentElement.lang, ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const content = body === undefined ? undefined : JSON.stringify(body);
  const attempt = async () => {
    sent.Authorization = `Bearer ${await accessToken()}`;
    return fetch(BASE + path, { method, headers: sent, body: content, signal, cache: "no-store" });
  };
  let answer = await attempt();
  if (answer.status === 401) {
    forgetToken();
    answer = await attempt();
  }
  if (!answer.ok) throw await refusalOf(answer);
  return answer;
}

/** Send one request and resolve to the `data` of its answer. */
export async function ask(path, { query = {}, ...rest } = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
  const answer = await send(asked.size ? `${path}?${asked}` : path, rest);
  return (await answer.json()).data;
}

async function refusalOf(answer) {
  let body = {};
  try {
    body = await answer.json();
  } catch {
    // a proxy in between answered in its own words
  }
  const wait = Number.parseFloat(answer.headers.get("Retry-After"));
  return new Refusal(answer.status, body ?? {}, Number.isFinite(wait) ? wait : null);
}
