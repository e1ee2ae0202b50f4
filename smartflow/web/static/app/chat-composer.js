/**
 * The box in which a message is written. What was not accepted stays in it.
 */
export class Composer {
  /** `submit` is called with a message and resolves once it is accepted; `stop` stops the live answer. */
  constructor(root, store, { submit, stop }) {
    this.store = store;
    this.submit = submit;
    this.box = root.querySelector("[data-part=message]");
    this.sendButton = root.querySelector("[data-action=send]");
    this.stopButton = root.querySelector("[data-action=stop]");
    this.form = this.box.form;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.box.addEventListener("keydown", (event) => this.#onKey(event));
    this.box.addEventListener("input", () => this.#show());
    this.stopButton.addEventListener("click", () => stop());
    store.addEventListener("state", () => this.#show());
    this.#show();
  }

  /** Put words into the box, to be sent or changed. */
  fill(words) {
    this.box.value = words;
    this.box.focus();
    this.#show();
  }

  async send() {
    const message = this.box.value;
    if (!message.trim() || this.store.live.isBusy) return;
    if (!(await this.submit(message))) return;
    this.clear(message);
  }

  /** Empty the box of a message that was accepted; what was typed meanwhile is the next one. */
  clear(message) {
    if (this.box.value === message) this.box.value = "";
    this.#show();
  }

  #onKey(event) {
    // an input method confirms its choice with Enter
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    event.preventDefault();
    this.send();
  }

  #show() {
    const { isBusy, isSending, answer } = this.store.live;
    const hadFocus = [this.sendButton, this.stopButton].includes(document.activeElement);
    this.sendButton.hidden = answer !== null;
    this.stopButton.hidden = answer === null;
    this.stopButton.disabled = answer?.isStopping ?? false;
    // not `disabled`: a button that was pressed keeps the focus
    this.sendButton.setAttribute("aria-disabled", String(isBusy || !this.box.value.trim()));
    this.form.toggleAttribute("aria-busy", isSending);
    if (hadFocus) (answer ? this.stopButton : this.sendButton).focus();
    this.#grow();
  }

  /** As tall as what is written, up to what the style allows. */
  #grow() {
    if (CSS.supports("field-sizing", "content")) return;
    this.box.style.height = "auto";
    this.box.style.height = `${this.box.scrollHeight}px`;
  }
}
