// Erasing a user: asked twice, sent once, and told when it has come through.

import { erase, path } from "./api.js";
import { el, setText } from "./dom.js";

/** The button, the question behind it, and what came of it. */
export class Erasing {
  constructor(userId) {
    this.userId = userId;
    this.isDone = false;
    this.said = el("p", { class: "said", role: "status", "aria-live": "polite" });
    this.first = el("button", { type: "button" }, "Erase this user…");
    this.really = el("button", { type: "button" }, "Erase");
    this.keep = el("button", { type: "button", class: "main" }, "Keep");
    this.question = el(
      "div",
      { role: "group", "aria-label": "Really erase?", hidden: true },
      el("p", {}, "Every role forgets this user: history, vector and list. It cannot be taken back."),
      el("div", { class: "row" }, this.keep, this.really),
    );
    this.root = el("div", {}, this.first, this.question, this.said);
    this.first.addEventListener("click", () => this.ask(true));
    this.keep.addEventListener("click", () => this.ask(false));
    this.really.addEventListener("click", () => this.send());
  }

  ask(isAsked) {
    this.first.hidden = isAsked;
    this.question.hidden = !isAsked;
    (isAsked ? this.keep : this.first).focus();
  }

  async send() {
    this.ask(false);
    this.first.disabled = true;
    this.isDone = false;
    this.say("Sent…");
    try {
      await erase(path(["users", this.userId]));
      // What the stream tells may be faster than this answer.
      if (!this.isDone) this.say("Kafka has it. Each role forgets this user as it comes by.");
    } catch (error) {
      this.say(error.told ?? error.message, true);
    } finally {
      this.first.disabled = false;
    }
  }

  /** It has come through: the list is gone. */
  done() {
    this.isDone = true;
    this.say("Erased. A new event begins a new history.");
  }

  say(text, isBad = false) {
    setText(this.said, text);
    this.said.classList.toggle("bad", isBad);
  }
}
