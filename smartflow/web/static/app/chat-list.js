/**
 * The list of conversations: groups by age, loaded page by page, in a drawer where there is no room beside the thread.
 */
import { ask } from "./chat-api.js";
import { daysAgo, say, showWhen } from "./chat-words.js";

const PAGE_SIZE = 20;
const GROUPS = [
  ["today", (days) => days <= 0],
  ["week", (days) => days <= 7],
  ["month", (days) => days <= 30],
  ["older", () => true],
];

export class ConversationList {
  constructor(root, store, { open }) {
    this.store = store;
    this.drawer = root.querySelector("[data-part=drawer]");
    this.shade = root.querySelector("[data-part=shade]");
    this.body = root.querySelector("[data-part=conversations]");
    this.more = root.querySelector("[data-action=more-conversations]");
    this.none = root.querySelector("[data-part=no-conversations]");
    this.opener = root.querySelector("[data-action=list]");
    this.known = new Map();
    this.pages = 0;
    this.opener.addEventListener("click", () => this.toggle(!this.isOpen));
    this.shade.addEventListener("click", () => this.toggle(false));
    root.querySelector("[data-action=close-list]").addEventListener("click", () => this.toggle(false));
    this.more.addEventListener("click", () => this.#load(this.pages + 1));
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("[data-conversation]");
      if (row) open(row.dataset.conversation);
    });
    this.toggle(false);
  }

  get isOpen() {
    return this.opener.getAttribute("aria-expanded") === "true";
  }

  /** Open or close the drawer, and put the focus where it is of use. */
  toggle(isOpen) {
    const hadFocus = this.drawer.contains(document.activeElement);
    this.opener.setAttribute("aria-expanded", String(isOpen));
    this.drawer.toggleAttribute("data-open", isOpen);
    this.shade.hidden = !isOpen;
    this.drawer.inert = !isOpen;
    if (isOpen) {
      this.refresh();
      (this.body.querySelector("[aria-current]") ?? this.drawer.querySelector("button")).focus();
    } else if (hadFocus) this.opener.focus();
  }

  /** Load the newest page again; what was loaded behind it stays. */
  async refresh() {
    await this.#load(1);
  }

  /** Show which one is open, and its title. */
  mark() {
    const { id, title } = this.store.conversation;
    const row = this.known.get(id);
    if (row && title) row.title = title;
    this.#show();
  }

  async #load(page) {
    try {
      const query = { page, page_size: PAGE_SIZE };
      const answer = await ask("/agent/conversation-list", { query });
      for (const row of answer.list) this.known.set(row.conversation_id, row);
      this.pages = Math.max(this.pages, page);
      if (page === this.pages) this.more.hidden = !answer.has_more;
      this.#show();
    } catch (error) {
      this.store.tell("notice", { error });
    }
  }

  #show() {
    const focused = document.activeElement?.dataset?.conversation;
    const rows = [...this.known.values()].sort((one, other) => momentOf(other) - momentOf(one));
    const groups = grouped(rows);
    this.body.replaceChildren(...[...groups].map(([name, members]) => this.#group(name, members)));
    this.none.hidden = rows.length > 0;
    if (focused) this.body.querySelector(`[data-conversation="${focused}"]`)?.focus();
  }

  #group(name, rows) {
    const section = document.createElement("section");
    const heading = Object.assign(document.createElement("h3"), { textContent: say(`group-${name}`) });
    const list = document.createElement("ul");
    list.append(...rows.map((row) => this.#row(row)));
    section.append(heading, list);
    return section;
  }

  #row(row) {
    const item = document.createElement("li");
    const button = Object.assign(document.createElement("button"), { type: "button", className: "chat-row" });
    button.dataset.conversation = row.conversation_id;
    if (row.conversation_id === this.store.conversation.id) button.setAttribute("aria-current", "true");
    const title = Object.assign(document.createElement("span"), { textContent: row.title || say("new-chat") });
    const when = Object.assign(document.createElement("small"), { textContent: showWhen(momentOf(row)) });
    button.append(title, when);
    item.append(button);
    return item;
  }
}

function momentOf(row) {
  return new Date(row.last_message_at ?? row.created_at);
}

function groupOf(row) {
  const days = daysAgo(momentOf(row));
  return GROUPS.find(([, holds]) => holds(days))[0];
}

function grouped(rows) {
  const groups = new Map();
  for (const row of rows) groups.set(groupOf(row), [...(groups.get(groupOf(row)) ?? []), row]);
  return groups;
}
