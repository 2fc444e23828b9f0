// Items: search, what is touched most, newest and cold ones, and one item with its neighbours.

import { get, isLeft, path } from "./api.js";
import { bars } from "./chart.js";
import { el, empty, facts, heading, panel, roving } from "./dom.js";
import { date, decimal, time } from "./format.js";

const NUM_LISTED = 50;
const NUM_NEIGHBOURS = 10;

const ORDERS = [
  ["popular", "Most touched"],
  ["newest", "Newest"],
  ["cold", "Cold"],
];

/** Of the decayed counts that by which items are ordered: [half-life, count]. */
function middle(counts) {
  const all = Object.entries(counts);
  return all[(all.length - 1) >> 1] ?? ["", null];
}

const TOLD = {
  popular: (item) => (item ? `Touches, decayed with a half-life of ${middle(item.counts)[0]}.` : ""),
  newest: () => "When they were first touched.",
  cold: () => "Not in the model's training: known by words and by touches.",
};

const FOUND_BY = { "text-tower": "by meaning, with the model's text tower", words: "by the words of titles" };

/** What the view showed last, so that coming back finds it again. */
const kept = { query: "", user: "", order: "popular" };

/** The items on the page: a list on the left, the chosen item on the right. */
class ItemsView {
  constructor({ signal, showProblem }) {
    Object.assign(this, { signal, showProblem, asked: 0 });
    this.list = el("ol", { class: "picks", "aria-label": "Items" });
    this.note = el("p", { class: "soft", role: "status" });
    this.detail = el("div", { class: "item-detail", "aria-live": "polite" });
    this.refreshKeys = roving(this.list, "button");
    this.tabs = this.makeTabs();
  }

  root() {
    const found = panel("Find");
    const results = el("div", { id: "item-list", role: "tabpanel", "aria-label": "Items" }, this.note, this.list);
    found.body.append(this.makeForm(), this.tabs, results);
    return el("div", { class: "view" }, heading("Items"), el("div", { class: "two" }, found.root, this.detail));
  }

  makeForm() {
    const query = el("input", {
      type: "search",
      id: "query",
      value: kept.query,
      placeholder: "title, or what it is about",
    });
    const user = el("input", {
      type: "search",
      id: "for-user",
      value: kept.user,
      placeholder: "anyone",
      spellcheck: "false",
      autocomplete: "off",
    });
    const form = el(
      "form",
      { class: "row find", role: "search" },
      el("span", { class: "pair" }, el("label", { for: "query" }, "Search"), query),
      el("span", { class: "pair" }, el("label", { for: "for-user" }, "as"), user),
      el("button", { class: "main" }, "Search"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      Object.assign(kept, { query: query.value.trim(), user: user.value });
      this.load();
    });
    return form;
  }

  makeTabs() {
    const tabs = el("div", { class: "tabs", role: "tablist", "aria-label": "Order" });
    for (const [order, name] of ORDERS) {
      const tab = el(
        "button",
        { type: "button", role: "tab", "data-order": order, "aria-controls": "item-list" },
        name,
      );
      tab.addEventListener("click", () => {
        Object.assign(kept, { query: "", order });
        document.getElementById("query").value = "";
        this.load();
      });
      tabs.append(tab);
    }
    roving(tabs, "button");
    return tabs;
  }

  /** Load what is searched for, or else the chosen order; the newest question wins. */
  async load() {
    const asked = ++this.asked;
    for (const tab of this.tabs.children)
      tab.setAttribute("aria-selected", String(!kept.query && tab.dataset.order === kept.order));
    try {
      const answer = await (kept.query
        ? get(path(["search"], { q: kept.query, user: kept.user, count: NUM_LISTED }), this.signal)
        : get(path(["items"], { order: kept.order, count: NUM_LISTED }), this.signal));
      if (asked === this.asked) this.showList(answer);
    } catch (error) {
      if (asked === this.asked && !isLeft(error)) this.showProblem(error, this.note);
    }
  }

  showList(answer) {
    const told = answer.by
      ? `Found ${FOUND_BY[answer.by] ?? answer.by}${answer.personalised ? `, as ${kept.user} would like it` : ""}.`
      : "";
    const how = told || TOLD[kept.order](answer.items[0]);
    this.note.replaceChildren(answer.items.length ? how : kept.query ? "Nothing was found." : "None.");
    this.list.replaceChildren(...answer.items.map((item) => this.pick(item)));
    this.refreshKeys();
  }

  pick(item) {
    const known = item.score ?? item.weight ?? middle(item.counts)[1];
    const beside = kept.order !== "popular" && item.counts ? date(item.first_seen_ts) : decimal(known, 2);
    const button = el(
      "button",
      { type: "button", "data-item": item.item_id },
      el("span", { class: "name" }, item.title || item.item_id),
      el("span", { class: "value" }, beside),
    );
    button.addEventListener("click", () => {
      history.replaceState(null, "", `#/items/${encodeURIComponent(item.item_id)}`);
      this.open(item.item_id);
    });
    return el("li", {}, button);
  }

  /** Show one item with its neighbours. */
  async open(id) {
    for (const button of this.list.querySelectorAll("button"))
      button.toggleAttribute("aria-current", button.dataset.item === id);
    try {
      const neighbours = get(path(["items", id, "similar"], { count: NUM_NEIGHBOURS }), this.signal).catch((error) => ({
        items: [],
        error,
      }));
      const parts = itemParts(await get(path(["items", id]), this.signal), await neighbours, (item) => this.pick(item));
      this.detail.replaceChildren(...parts);
      // On a phone it is below the list.
      if (this.detail.getBoundingClientRect().top > innerHeight) this.detail.scrollIntoView();
    } catch (error) {
      if (!isLeft(error)) this.showProblem(error, this.detail);
    }
  }
}

function itemParts(item, similar, pick) {
  const about = panel(item.title || item.item_id);
  about.body.append(itemFacts(item), item.description ? el("p", {}, item.description) : "", touchBars(item.touches));
  const near = panel("Neighbours in the model");
  const listed = (items, nothing) => (items.length ? el("ol", { class: "picks" }, ...items.map(pick)) : empty(nothing));
  near.body.append(listed(similar.items, similar.error?.message ?? "It has no vector yet."));
  const after = panel("Touched next");
  after.body.append(listed(item.followers, "Nobody touched anything after it yet."));
  for (const part of [near, after]) roving(part.body, "button");
  return [about.root, near.root, after.root];
}

function itemFacts(item) {
  const kind = item.is_trained ? "trained" : "not trained, made of its words";
  return facts([
    ["Id", item.item_id],
    ["Category", item.category],
    ["Tags", item.tags.join(", ")],
    ["Price", item.price],
    ["Available", item.available ? "yes" : "no"],
    ["First touched", item.first_seen_ts === null ? "not yet" : time(item.first_seen_ts)],
    ["Vector", item.vector_norm === null ? "none" : `length ${decimal(item.vector_norm, 2)}, ${kind}`],
  ]);
}

function touchBars(touches) {
  const rows = Object.entries(touches).map(([halfLife, number]) => ({
    name: `half-life ${halfLife}`,
    value: number,
    text: decimal(number, 1),
  }));
  return rows.length ? el("div", {}, el("h3", {}, "Touches, decayed"), bars(rows, "Decayed touches by half-life")) : "";
}

/** The view; with an id that item is open. */
export async function mountItems({ argument: id, ...context }) {
  const view = new ItemsView(context);
  const root = view.root();
  root.addEventListener(
    "shown",
    async () => {
      if (!id) view.detail.append(empty("Choose an item to see what is known of it."));
      await view.load();
      if (id) view.open(id);
    },
    { once: true },
  );
  return root;
}
