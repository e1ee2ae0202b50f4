/**
 * The chat panel: makes the parts and joins them. It needs the elements of app/chat.html, and nothing else of the page.
 */
import { Refusal } from "./chat-api.js";
import { Composer } from "./chat-composer.js";
import { ConversationList } from "./chat-list.js";
import { Meters } from "./chat-meters.js";
import { Notices } from "./chat-notices.js";
import { ChatStore } from "./chat-store.js";
import { Thread } from "./chat-thread.js";
import { readWords, say } from "./chat-words.js";

/** How often a page that is looked at asks whether another device said something. */
const LOOK_MS = 10_000;
/** The address keeps the open conversation, so that a reload opens it again. */
const IN_ADDRESS = "conversation";

function start(root) {
  readWords(root.querySelector("[data-part=words]"));
  const store = new ChatStore();
  const notices = new Notices(root);
  const thread = new Thread(root, store);
  const meters = new Meters(root, store);
  const channel = new BroadcastChannel("smartflow-chat");
  const heard = root.querySelector("[data-part=heard]");
  const title = root.querySelector("[data-part=title]");
  const attempt = (action) => action().then(() => true, (error) => tell(error));
  /** A message of which nobody knows yet whether it was accepted: {text, id, no, key}. */
  let unsure = null;
  const list = new ConversationList(root, store, { open: (id) => open(id) });
  const stop = () => attempt(() => store.live.stop());
  const composer = new Composer(root, store, { submit: (message) => attemptNew(() => deliver(message)), stop });

  /** Tell an error; when an answer is live already, read along with that one instead. */
  async function tell(error) {
    const liveRunId = error instanceof Refusal && error.httpStatus === 409 ? error.liveRunId : null;
    if (liveRunId) {
      notices.tell(`${error.message} ${say("message-kept")}`);
      await attempt(() => store.attach(liveRunId));
    } else notices.tellError(error);
    return false;
  }

  function attemptNew(action) {
    notices.clear();
    return attempt(action);
  }

  /** Send a message. With the key of one that may have been accepted it is that one, not a second. */
  async function deliver(text) {
    const { id, nextNo: no } = store.conversation;
    // the reader may have found the conversation that a first message opened
    const isSame = unsure?.text === text && (unsure.id === id || unsure.id === null);
    unsure = { text, id, no, key: isSame ? unsure.key : newKey() };
    try {
      await store.say(text, unsure.key);
      unsure = null;
    } catch (error) {
      if (error instanceof Refusal && !error.isTemporary) unsure = null;
      throw error;
    }
  }

  /** Take a message out of the box that turns out to have been accepted. */
  function settleUnsure() {
    if (unsure === null || unsure.id !== store.conversation.id) return;
    const question = store.conversation.turns.get(unsure.no)?.question;
    if (question?.text !== unsure.text) return;
    composer.clear(unsure.text);
    notices.clear();
    unsure = null;
  }

  /** Put the focus where the next thing is done; a touch screen's keyboard comes only when it is asked for. */
  function settleFocus() {
    const target = matchMedia("(pointer: fine)").matches ? composer.box : thread.scroller;
    target.focus({ preventScroll: true });
  }

  function open(id) {
    if (id !== store.conversation.id) enter(id);
    list.toggle(false);
    settleFocus();
  }

  async function enter(id) {
    try {
      await store.open(id);
      notices.clear();
    } catch (error) {
      notices.tellError(error);
      if (error instanceof Refusal && !error.isTemporary) store.startNew();
    }
  }

  function startNew() {
    notices.clear();
    store.startNew();
    list.toggle(false);
    settleFocus();
  }

  function showOpened() {
    const { id, title: name } = store.conversation;
    title.textContent = title.title = name || say("new-chat");
    const address = new URL(location.href);
    if (id) address.searchParams.set(IN_ADDRESS, id);
    else address.searchParams.delete(IN_ADDRESS);
    history.replaceState(history.state, "", address);
    list.mark();
  }

  function announce(words) {
    heard.textContent = words;
  }

  store.addEventListener("opened", () => (showOpened(), meters.refresh()));
  store.addEventListener("titled", showOpened);
  store.addEventListener("thread", settleUnsure);
  store.addEventListener("notice", (event) => tell(event.detail.error));
  store.addEventListener("accepted", () => {
    showOpened();
    announce(say("answering"));
    list.refresh();
    channel.postMessage(store.conversation.id);
  });
  store.addEventListener("ended", ({ detail: { variant } }) => {
    announce(say(`heard-${variant.state}`));
    meters.refresh();
    list.refresh();
    channel.postMessage(store.conversation.id);
  });

  const acts = {
    new: startNew,
    copy: (turn, button) => attempt(() => copy(turn.shown.text, button)),
    regenerate: (turn) => (settleFocus(), attemptNew(() => store.regenerate(turn))),
    continue: (turn) => (settleFocus(), attemptNew(() => store.goOn(turn))),
    earlier: (turn) => attemptNew(() => store.page(turn, -1)),
    later: (turn) => attemptNew(() => store.page(turn, 1)),
    suggest: (_turn, button) => composer.fill(button.textContent.trim()),
  };
  root.addEventListener("click", (event) => {
    const button = event.target.closest("[data-action]");
    const turn = store.conversation.turns.get(Number(button?.closest("[data-turn]")?.dataset.turn));
    if (button && button.ariaDisabled !== "true") acts[button.dataset.action]?.(turn, button);
  });
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    if (list.isOpen) list.toggle(false);
    else stop();
  });

  const look = () => {
    if (document.visibilityState === "visible") store.sync().catch(() => {}); // the next look may be luckier
  };
  setInterval(look, LOOK_MS);
  for (const name of ["focus", "online"]) addEventListener(name, look);
  document.addEventListener("visibilitychange", look);
  channel.addEventListener("message", (event) => {
    if (event.data === store.conversation.id) look();
    list.refresh();
  });

  thread.scrollToEnd();
  list.refresh();
  const id = new URLSearchParams(location.search).get(IN_ADDRESS);
  if (id) enter(id);
  else store.startNew();
}

/** Not randomUUID: a page without TLS has none. */
function newKey() {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((part) => part.toString(36)).join("-");
}

async function copy(text, button) {
  await navigator.clipboard.writeText(text);
  button.dataset.done = say("copied");
  setTimeout(() => delete button.dataset.done, 1500);
}

const root = document.querySelector("[data-panel=chat]");
if (root) start(root);
