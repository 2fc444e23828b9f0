// User: the timeline, the current list and why; a click on an item, and the list that answers it.

import { follow, get, path, post } from "./api.js";
import { bars } from "./chart.js";
import { el, empty, facts, heading, onFrame, painted, panel, roving, setText, userLink } from "./dom.js";
import { count, decimal, milliseconds, percent, time } from "./format.js";
import { Timeline } from "./timeline.js";
import { Erasing } from "./user_erasing.js";
import { RankedList } from "./user_list.js";

const NUM_ITEMS = 10;
const NUM_RECENT = 12;

/** A stream whose newest event is older than this (ms) is a replayed log: it has a clock of its own. */
const LONG_PAST = 3600000;

/** After a change, what is not in the stream is asked for this much later (ms): changes come in twos and threes. */
const SETTLE = 150;

/** What is known of nobody. */
const UNKNOWN = { slices: [], events: [], profile: {} };

/** The answer to a click is waited for so long (ms) before the page says that it is late. */
const LATE = 10000;

function chooser(users, current) {
  const kind = { type: "search", id: "user-id", list: "recent", autocomplete: "off", spellcheck: "false" };
  const text = el("input", { ...kind, required: true, value: current, placeholder: "user id" });
  const known = el("datalist", { id: "recent" }, ...users.map((user) => el("option", { value: user.user_id })));
  const label = el("label", { for: "user-id" }, "User");
  const button = el("button", { class: "main" }, "Show");
  const form = el("form", { class: "row", role: "search" }, label, text, known, button);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#/user/${encodeURIComponent(text.value)}`;
  });
  const links = users.map((user) => userLink(user.user_id));
  const recent = el("div", { class: "recent", role: "group", "aria-label": "Seen last" }, ...links);
  roving(recent, "a");
  return el("div", { class: "chooser" }, form, users.length ? recent : null);
}

/** The way of a click: sent, acknowledged, on the page; each with its milliseconds. */
class Journey {
  constructor() {
    this.said = el(
      "p",
      { class: "said", role: "status", "aria-live": "polite" },
      "Click an item: it goes to Kafka as an event, and the list that answers it comes back.",
    );
    this.steps = ["Kafka has it", "new list shown"].map((name) => ({
      name,
      bar: el("span", { class: "bar" }),
      text: el("span", { class: "value" }),
    }));
    const list = el(
      "ul",
      { class: "bars" },
      ...this.steps.map((step) => el("li", {}, el("span", { class: "name" }, step.name), step.bar, step.text)),
    );
    this.root = el("div", { class: "journey" }, this.said, list);
    this.set([null, null]);
  }

  say(text, isBad = false) {
    setText(this.said, text);
    this.said.classList.toggle("bad", isBad);
  }

  set(times) {
    const most = Math.max(...times.map((one) => one ?? 0), 1);
    for (const [at, step] of this.steps.entries()) {
      step.bar.style.setProperty("--share", String((times[at] ?? 0) / most));
      setText(step.text, times[at] === null ? "" : milliseconds(times[at]));
    }
  }
}

/** One user on the page: what is known, and the click that waits for its list. */
class UserView {
  constructor(userId, newestTs) {
    Object.assign(this, { userId, newestTs, list: null, click: null, openedAt: performance.now() });
    this.timeline = new Timeline();
    this.journey = new Journey();
    this.erasing = new Erasing(userId);
    this.ranked = new RankedList(
      (item) => this.take(item),
      (item) => this.timeline.light(item?.why?.slices ?? null),
    );
    this.note = el("p", { class: "soft" });
    this.types = el("fieldset", { class: "types" }, el("legend", {}, "A click on an item sends"));
    this.facts = el("div", {});
    this.taste = el("div", {});
  }

  sections() {
    const list = panel("List", { class: "list-panel" });
    list.body.append(this.types, this.note, this.ranked.root);
    const timeline = panel("Timeline", { class: "timeline-panel" });
    timeline.body.append(this.timeline.root);
    const click = panel("From click to list", { class: "click-panel" });
    click.body.append(this.journey.root);
    const slice = panel("Chosen slice");
    slice.body.append(this.timeline.detail);
    const profile = panel("Profile");
    profile.body.append(this.facts, this.taste, this.erasing.root);
    return [
      timeline.root,
      el(
        "div",
        { class: "main-and-side" },
        list.root,
        el("div", { class: "side" }, click.root, slice.root, profile.root),
      ),
    ];
  }

  offerTypes(names) {
    const chosen = names.includes("click") ? "click" : names[0];
    this.types.append(
      ...names.map((name) =>
        el(
          "label",
          {},
          el("input", { type: "radio", name: "type", value: name, checked: name === chosen }),
          ` ${name}`,
        ),
      ),
    );
  }

  /** A new list: from the stream, or as asked for at first. */
  showList(list) {
    const isChange = this.list !== null && this.list.recommendation_id !== list.recommendation_id;
    const why = new Map((this.list?.items ?? []).map((item) => [item.item_id, item.why]));
    // The stream brings lists whole, however few are shown.
    const items = list.items.slice(0, NUM_ITEMS).map((item) => ({ why: why.get(item.item_id), ...item }));
    this.list = { ...list, items };
    setText(
      this.note,
      list.fallback
        ? "Nothing is known of this user yet: what is popular."
        : `answers the event of ${time(list.event_ts)}, ${list.has_vector ? "with" : "without"} a user vector`,
    );
    this.ranked.show(items, isChange);
    this.answer(list);
  }

  /** The user was erased: nothing of what is shown is known any more. */
  showErased() {
    this.list = null;
    this.ranked.show([], false);
    this.showProfile(UNKNOWN);
    setText(this.note, "");
    this.erasing.done();
  }

  showWhy(list) {
    if (list.recommendation_id !== this.list?.recommendation_id) return; // meanwhile there is a newer one
    this.list = list;
    this.ranked.show(list.items, false);
  }

  showProfile(user) {
    this.timeline.show(user.slices, user.events);
    const { profile } = user;
    const lines = [
      ["Last seen", time(user.last_seen_ts)],
      ["Events", count(user.num_events)],
      ["A day", decimal(profile?.events_per_day, 1)],
      ...Object.entries(profile?.types ?? {}).map(([name, number]) => [name, count(number)]),
    ];
    this.facts.replaceChildren(facts(lines));
    const top = (profile?.top_categories ?? []).map((one) => ({
      name: one.category,
      value: one.share,
      text: percent(one.share),
    }));
    this.taste.replaceChildren(...(top.length ? [el("h3", {}, "Categories"), bars(top, "Share of categories")] : []));
  }

  /** The time of an event that happens now: left to the server (null), or by the clock of a replayed log. */
  eventTime() {
    if (this.newestTs === null || Date.now() - this.newestTs < LONG_PAST) return null;
    return this.newestTs + 1 + Math.round(performance.now() - this.openedAt);
  }

  async take(item) {
    const type = this.types.querySelector("input:checked")?.value ?? "click";
    const click = { started: performance.now(), ts: null, shown: null, acknowledged: null };
    this.click = click;
    performance.clearMarks(); // of the click before; what is marked shows in the browser's own timings
    performance.mark("click");
    this.journey.say(`${type} on “${item.title || item.item_id}” sent…`);
    this.journey.set([null, null]);
    try {
      const event = {
        user_id: this.userId,
        item_id: item.item_id,
        type,
        ts: this.eventTime(),
        recommendation_id: this.list?.recommendation_id || null,
      };
      const {
        accepted: [placed],
      } = await post(path(["events"]), Object.fromEntries(Object.entries(event).filter(([, value]) => value !== null)));
      click.acknowledged = performance.now() - click.started;
      click.ts = placed.ts;
      performance.mark("acknowledged");
      this.tellClick(click);
      if (this.list) this.answer(this.list); // it may have been faster than the acknowledgement
      setTimeout(() => this.tellLate(click), LATE);
    } catch (error) {
      this.journey.say(error.told ?? error.message, true);
    }
  }

  /** Whether `list` answers the click that waits; then it is told when it can be seen. */
  async answer(list) {
    const { click } = this;
    if (!click || click.ts === null || click.shown !== null || list.event_ts < click.ts) return;
    click.shown = 0;
    await painted();
    click.shown = performance.now() - click.started;
    performance.mark("shown");
    this.tellClick(click);
  }

  tellClick(click) {
    if (click !== this.click) return;
    this.journey.set([click.acknowledged, click.shown]);
    const shown = click.shown ? `; the list moved after ${milliseconds(click.shown)}.` : "…";
    this.journey.say(`Kafka has the event after ${milliseconds(click.acknowledged)}${shown}`);
  }

  tellLate(click) {
    if (click === this.click && click.shown === null)
      this.journey.say("No list answered within ten seconds. Look at the lag in Live.", true);
  }
}

/** Ask again for what the stream does not bring, once things have settled. */
function settling(view, signal) {
  let timer = null;
  const load = () => {
    get(path(["users", view.userId]), signal)
      .then((user) => onFrame("profile", () => view.showProfile(user)))
      .catch(() => {}); // the next change asks again
    get(listPath(view.userId), signal)
      .then((list) => onFrame("why", () => view.showWhy(list)))
      .catch(() => {});
  };
  return () => {
    clearTimeout(timer);
    timer = setTimeout(() => signal.aborted || load(), SETTLE);
  };
}

const listPath = (userId) => path(["recommendations", userId], { count: NUM_ITEMS, why: 1 });

/** What a promise gives; `other` where the server knows nothing of it (404). */
const orElse = (promise, other) =>
  promise.catch((error) => {
    if (error.status === 404) return other;
    throw error;
  });

/** The newest event time of `users`; null where there is none. */
function newest(users) {
  const times = users.map((user) => user.last_seen_ts).filter(Number.isFinite);
  return times.length ? Math.max(...times) : null;
}

/** Follow the lists and slices of the user on the page. */
function followUser(view, signal, tell) {
  const settle = settling(view, signal);
  const list = (made) => {
    if (made.recommendation_id === view.list?.recommendation_id) return;
    performance.mark("list", { detail: made.freshness_ms });
    onFrame("list", () => view.showList(made));
    settle();
  };
  const erased = () => onFrame("list", () => view.showErased());
  follow(path(["users", view.userId, "stream"]), { list, slice: settle, erased }, tell, signal);
}

/** The view; without a user, whom to choose. */
export async function mountUser({ argument: userId, signal, tell }) {
  const recent = get(path(["users"], { count: NUM_RECENT }), signal).then((answer) => answer.users);
  if (!userId) {
    const hint = empty("Choose one who was seen last, or type an id.");
    return el("div", { class: "view" }, heading("User"), chooser(await recent, ""), hint);
  }
  const [users, user, list, model] = await Promise.all([
    recent,
    orElse(get(path(["users", userId]), signal), UNKNOWN),
    orElse(get(listPath(userId), signal), null),
    get(path(["model"]), signal),
  ]);
  const view = new UserView(userId, newest([...users, user]));
  view.offerTypes(model.event_types);
  const title = heading("User", el("code", { class: "id" }, userId));
  const root = el("div", { class: "view" }, title, chooser(users, userId), ...view.sections());
  const start = () => {
    view.showProfile(user);
    if (list) view.showList(list);
    else setText(view.note, "No list yet: it comes with the first event.");
    followUser(view, signal, tell);
  };
  root.addEventListener("shown", start, { once: true });
  return root;
}
