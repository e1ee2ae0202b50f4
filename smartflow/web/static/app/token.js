// Access tokens for the page's scripts, lent by the cookie's session.
// accessToken() is cheap to call before every request; forgetToken() after a 401, then accessToken() once more.

const RENEW_BEFORE_MS = 60_000;

let kept = null;
let asking = null;
let isLeaving = false;

window.addEventListener("pageshow", () => { isLeaving = false; });

export async function accessToken() {
  if (kept && Date.now() < kept.renewAt) return kept.token;
  asking ??= fetchToken().finally(() => { asking = null; });
  return asking;
}

export function forgetToken() {
  kept = null;
}

// Once, however many requests learn in the same moment that the session has ended: a second navigation stops the first.
export function toSignIn() {
  if (isLeaving) return;
  isLeaving = true;
  window.location.assign(document.body.dataset.signInUrl);
}

export function csrfToken() {
  return document.querySelector("meta[name=csrf-token]").content;
}

async function fetchToken() {
  const answer = await fetch(document.body.dataset.tokenUrl, {
    method: "POST",
    credentials: "same-origin",
    headers: { Accept: "application/json", "X-CSRFToken": csrfToken() },
  });
  if (answer.status === 401) {
    toSignIn();
    throw new Error("signed out");
  }
  if (!answer.ok) throw new Error(`token: ${answer.status}`);
  const { access_token: token, expires_in_seconds: seconds } = await answer.json();
  kept = { token, renewAt: Date.now() + seconds * 1000 - RENEW_BEFORE_MS };
  return token;
}
