// A ranked list that moves: rows keep their place in the page by item, and slide from where they were.

import { el, isStill, itemLink, roving, setText } from "./dom.js";
import { decimal } from "./format.js";

const SLIDE = { duration: 420, easing: "cubic-bezier(.2,.8,.2,1)" };

/** Reasons shown of each kind; more would be longer than the list. */
const NUM_REASONS = 2;

/**
 * The list: {root, show}. `take(item)` is called for a chosen item, `look(item | null)` for the one under focus or
 * pointer.
 */
export class RankedList {
  constructor(take, look) {
    this.root = el("ol", { class: "ranked", "aria-label": "Current list" });
    this.take = take;
    this.look = look;
    this.rows = new Map();
    this.refreshKeys = roving(this.root, "button.take");
    this.root.addEventListener("focusin", () => this.stopAtLinks());
  }

  /** Show `items`; where they are another list than before (`isChange`), each row tells how it moved. */
  show(items, isChange) {
    const before = new Map(
      [...this.rows].map(([id, row]) => [id, { top: row.root.getBoundingClientRect().top, rank: row.rank }]),
    );
    const focused = [...this.root.children].indexOf(document.activeElement?.closest(".ranked > li"));
    const kept = new Map(items.map((item) => [item.item_id, this.rows.get(item.item_id) ?? this.makeRow()]));
    for (const [id, row] of this.rows) if (!kept.has(id)) row.root.remove();
    this.rows = kept;
    for (const [rank, item] of items.entries()) {
      const row = kept.get(item.item_id);
      row.set(item, rank, isChange ? mark(before.get(item.item_id)?.rank, rank) : null);
      if (this.root.children[rank] !== row.root) this.root.insertBefore(row.root, this.root.children[rank] ?? null);
    }
    if (isChange) this.slide(before);
    this.refreshKeys();
    this.keepFocus(focused);
    this.stopAtLinks();
  }

  /** Let every row start from where it was, and new ones come in. */
  slide(before) {
    if (isStill()) return;
    for (const [id, row] of this.rows) {
      const was = before.get(id);
      const by = was ? was.top - row.root.getBoundingClientRect().top : 0;
      const from = was ? { transform: `translateY(${by}px)` } : { opacity: 0, transform: "translateX(24px)" };
      if (!was || by) row.root.animate([from, { opacity: 1, transform: "none" }], SLIDE);
    }
  }

  /** Where the focused row left or was moved about, its place keeps the focus. */
  keepFocus(place) {
    if (place < 0 || !this.root.children.length) return;
    const row = this.root.children[Math.min(place, this.root.children.length - 1)];
    if (!this.root.contains(document.activeElement)) row.querySelector("button").focus();
  }

  /** Of all links only those of the current row are tab stops: ten rows have forty. */
  stopAtLinks() {
    const current = this.root.querySelector('button.take[tabindex="0"]')?.parentElement;
    for (const link of this.root.querySelectorAll("a")) link.tabIndex = current?.contains(link) ? 0 : -1;
  }

  makeRow() {
    const row = new Row();
    row.button.addEventListener("click", () => this.take(row.item));
    for (const name of ["focusin", "pointerenter"]) row.root.addEventListener(name, () => this.look(row.item));
    for (const name of ["focusout", "pointerleave"]) row.root.addEventListener(name, () => this.look(null));
    return row;
  }
}

/** One item of a list. */
class Row {
  constructor() {
    const part = (name) => el("span", { class: name });
    this.parts = {
      rank: part("rank"),
      name: part("name"),
      meta: part("meta"),
      moved: part("moved"),
      score: part("score"),
    };
    const { rank, name, meta, moved, score } = this.parts;
    const what = el("span", { class: "what" }, name, meta);
    this.button = el("button", { type: "button", class: "take" }, rank, what, moved, score);
    this.why = el("p", { class: "why" });
    this.root = el("li", {}, this.button, this.why);
    this.rank = -1;
    this.item = null;
  }

  /** Show `item` at a rank; `moved` tells how it came there, null leaves what was told before. */
  set(item, rank, moved) {
    Object.assign(this, { item, rank });
    setText(this.parts.rank, rank + 1);
    setText(this.parts.name, item.title || item.item_id);
    const meta = [item.category, item.price, item.sources.map(sourceName).join(", ")];
    setText(this.parts.meta, meta.filter((one) => one !== null && one !== undefined).join(" · "));
    setText(this.parts.score, decimal(item.score, 2));
    if (moved !== null) setText(this.parts.moved, moved);
    this.why.replaceChildren(...reasons(item));
  }
}

const sourceName = (name) => name.replaceAll("_", " ");

/** How a row moved: "new", "▲2", "▼1", or nothing. */
function mark(from, to) {
  if (from === undefined) return "new";
  return from === to ? "" : from > to ? `▲${from - to}` : `▼${to - from}`;
}

/** Which of the user's items and slices pulled it there, and the way to its own page. */
function reasons({ item_id: id, why }) {
  const parts = [];
  const items = (why?.items ?? []).slice(0, NUM_REASONS);
  items.forEach((one, at) =>
    parts.push(at ? ", " : "from ", itemLink(one.item_id, one.title || one.item_id), ` ${decimal(one.weight, 2)}`),
  );
  const slices = (why?.slices ?? []).toSorted((a, b) => b.weight - a.weight).slice(0, NUM_REASONS);
  if (slices.length)
    parts.push(
      parts.length ? " · " : "",
      `slice ${slices.map((one) => `${one.seq} ${decimal(one.weight, 2)}`).join(", ")}`,
    );
  return [...parts, parts.length ? " · " : "", itemLink(id, "about it")];
}
