// A user's history as slices: a block each, a stroke for each event, the open one dashed.

import { el, empty, itemLink, roving, svg } from "./dom.js";
import { date, duration, percent, time, timeOfDay } from "./format.js";

/** Sizes in px: the stroke of an event, what a block has around them, the gap between blocks. */
const STROKE = 8;
const AROUND = 10;
const GAP = 54;
const NARROWEST = 86;
const BLOCK = { top: 24, height: 52 };
const HEIGHT = 118;

/** How tall an event's stroke is, as a share of the block. */
const TALL = { browse: 0.35, purchase: 1 };

/**
 * The timeline: {root, detail, show, light}; `detail` tells of the chosen slice, `light` marks slices by weight
 * ({seq, weight}), or none.
 */
export class Timeline {
  constructor() {
    this.picture = svg("svg", {
      class: "timeline",
      height: HEIGHT,
      role: "group",
      "aria-label": "Slices, oldest first",
    });
    this.scroll = el("div", { class: "scroll" }, this.picture);
    this.detail = el("div", { class: "slice-detail" });
    this.root = this.scroll;
    this.refreshKeys = roving(this.picture, ".slice");
    this.blocks = new Map();
    this.chosen = null;
    this.newest = null;
  }

  /** Draw `slices` (oldest first) with their `events`; a newly opened slice becomes the chosen one. */
  show(slices, events) {
    if (!slices.length) {
      this.scroll.replaceChildren(empty("No slice yet."));
      return;
    }
    const focused = this.picture.contains(document.activeElement) ? document.activeElement.dataset.seq : null;
    const bySlice = grouped(events);
    this.events = bySlice;
    this.slices = slices;
    this.blocks.clear();
    this.picture.replaceChildren(...this.drawn(slices, bySlice));
    this.scroll.replaceChildren(this.picture);
    const newest = slices.at(-1).seq;
    if (newest !== this.newest || !this.blocks.has(this.chosen)) this.chosen = newest;
    if (newest !== this.newest) this.scroll.scrollLeft = this.scroll.scrollWidth;
    this.newest = newest;
    this.choose(this.chosen);
    this.refreshKeys();
    if (focused !== null) this.blocks.get(Number(focused))?.focus();
  }

  drawn(slices, events) {
    const nodes = [];
    let x = 2;
    for (const [at, slice] of slices.entries()) {
      if (at) {
        nodes.push(gap(x, slice.start_ts - slices[at - 1].end_ts));
        x += GAP;
      }
      const width = Math.max(NARROWEST, slice.num_events * STROKE + 2 * AROUND);
      nodes.push(this.block(slice, events.get(slice.seq) ?? [], x, width));
      x += width;
    }
    this.picture.setAttribute("width", x + 2);
    this.picture.setAttribute("viewBox", `0 0 ${x + 2} ${HEIGHT}`);
    return nodes;
  }

  block(slice, events, x, width) {
    const state = slice.closed ? "closed" : "open";
    const of = `${slice.num_events} events from ${time(slice.start_ts)}, weight ${percent(slice.weight)}`;
    const told = `Slice ${slice.seq}, ${state}: ${of}`;
    const made = svg(
      "g",
      { class: `slice ${state}`, role: "button", "data-seq": slice.seq, "aria-label": told },
      ...blockParts(slice, x, width),
      ...strokes(slice, events, x + (width - slice.num_events * STROKE) / 2),
    );
    made.addEventListener("click", () => this.choose(slice.seq));
    made.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      this.choose(slice.seq);
    });
    this.blocks.set(slice.seq, made);
    return made;
  }

  /** Show the events of a slice. */
  choose(seq) {
    this.chosen = seq;
    for (const [other, block] of this.blocks) block.setAttribute("aria-pressed", String(other === seq));
    const slice = this.slices.find((one) => one.seq === seq);
    const rows = (this.events.get(seq) ?? [])
      .toReversed()
      .map((event) =>
        el(
          "li",
          {},
          el("span", { class: "chip" }, event.type),
          el("span", { class: "text" }, itemLink(event.item_id, event.title || event.item_id)),
          el("time", { class: "place" }, timeOfDay(event.ts)),
        ),
      );
    const state = slice.closed ? "closed" : "open, it can still grow";
    const lasted = slice.end_ts > slice.start_ts ? ` · within ${duration(slice.end_ts - slice.start_ts)}` : "";
    this.detail.replaceChildren(
      el(
        "p",
        {},
        `Slice ${seq}, `,
        el("span", { class: "soft" }, `${state} · ${slice.num_events} events from ${time(slice.start_ts)}${lasted}`),
      ),
      rows.length ? el("ol", { class: "flow" }, ...rows) : empty("Its events are not kept any more."),
    );
  }

  /** Mark the slices that pulled an item into the list, as strongly as they did. */
  light(weights) {
    const most = Math.max(...(weights ?? []).map((one) => one.weight), 1e-9);
    for (const [seq, block] of this.blocks) {
      const share = (weights ?? []).find((one) => one.seq === seq)?.weight ?? 0;
      block.style.setProperty("--pull", String(weights ? share / most : 0));
    }
  }
}

/** The block, its date above, and its weight below. */
function blockParts(slice, x, width) {
  const { top, height } = BLOCK;
  const under = { x, y: top + height + 8, height: 4, rx: 2 };
  const weight = slice.closed ? percent(slice.weight) : `open · ${percent(slice.weight)}`;
  return [
    svg("text", { class: "tick", x, y: 15 }, date(slice.start_ts)),
    svg("rect", { class: "block", x, y: top, width, height, rx: 8 }),
    svg("rect", { class: "weight-way", ...under, width }),
    svg("rect", { class: "weight", ...under, width: width * Math.min(1, slice.weight) }),
    svg("text", { class: "tick told", x, y: top + height + 28 }, weight),
  ];
}

/** A stroke for each event of a slice, from `x` on. */
function strokes(slice, events, x) {
  const bottom = BLOCK.top + BLOCK.height - 8;
  return Array.from({ length: slice.num_events }, (_, at) => {
    const height = (TALL[events[at]?.type] ?? 0.62) * (BLOCK.height - 16);
    const place = { x: x + at * STROKE + 2, y: bottom - height, width: STROKE - 4, height, rx: 2 };
    return svg("rect", { class: "stroke", ...place });
  });
}

function grouped(events) {
  const found = new Map();
  for (const event of events) found.set(event.seq, [...(found.get(event.seq) ?? []), event]);
  return found;
}

function gap(x, length) {
  const y = BLOCK.top + BLOCK.height / 2;
  return svg(
    "g",
    { class: "gap", "aria-hidden": "true" },
    svg("line", { x1: x + 5, x2: x + GAP - 5, y1: y, y2: y }),
    svg("text", { class: "tick", x: x + GAP / 2, y: y - 6, "text-anchor": "middle" }, duration(length)),
  );
}
