// Live: rates, freshness, lag, and events, lists and dead letters as they flow.

import { follow, get, path } from "./api.js";
import { tile } from "./chart.js";
import { el, empty, heading, itemLink, onFrame, panel, setText, table, userLink } from "./dom.js";
import { count, milliseconds, rate } from "./format.js";

/** Rows that a flow shows; older ones go. */
const NUM_ROWS = 10;

/** A full flow takes one new row in so long (ms), of the newest that wait: at twenty a second nobody could read it. */
const CALM = 500;
const NUM_WAITING = 3;

/** The newest rows of a flow; while it is held, none are taken. */
class Flow {
  constructor(name, makeRow, nothing) {
    this.list = el("ol", { class: "flow", "aria-label": name });
    this.nothing = empty(nothing);
    this.makeRow = makeRow;
    this.waiting = [];
    this.isHeld = false;
    this.dueAt = 0;
    this.timer = null;
  }

  take(record) {
    if (this.isHeld) return;
    this.waiting.push(record);
    if (this.waiting.length > (this.isFull() ? NUM_WAITING : NUM_ROWS)) this.waiting.shift();
    if (this.timer === null) onFrame(this, () => this.paint());
  }

  isFull() {
    return this.list.children.length === NUM_ROWS;
  }

  paint() {
    this.timer = null;
    const now = performance.now();
    if (this.isFull() && now < this.dueAt) {
      this.paintAfter(this.dueAt - now);
      return;
    }
    this.dueAt = now + CALM;
    this.nothing.remove();
    for (const record of this.waiting.splice(0, this.isFull() ? 1 : NUM_ROWS)) this.list.prepend(this.makeRow(record));
    while (this.list.children.length > NUM_ROWS) this.list.lastChild.remove();
    if (this.waiting.length) this.paintAfter(CALM);
  }

  /** Paint after a pause (ms); no frame is asked for until then. */
  paintAfter(pause) {
    this.timer = setTimeout(() => onFrame(this, () => this.paint()), pause);
  }
}

const eventRow = ({ user_id: user, item_id: item, title, type }) =>
  el(
    "li",
    {},
    el("span", { class: "chip" }, type),
    el("span", { class: "text" }, itemLink(item, title || item)),
    userLink(user),
  );

function listRow({ user_id: user, items, freshness_ms: age }) {
  const titles = items.flatMap((item, at) => [at ? " · " : null, itemLink(item.item_id, item.title || item.item_id)]);
  return el(
    "li",
    {},
    userLink(user),
    el("span", { class: "text" }, ...titles),
    el("span", { class: "ms" }, milliseconds(age)),
  );
}

/** One dead letter: why, where it stood, and how it begins. */
export const deadLetterRow = (letter) =>
  el(
    "li",
    { class: "dead" },
    el("span", { class: "chip bad" }, letter.reason || letter.class),
    el("code", { class: "text" }, letter.excerpt ?? ""),
    el("span", { class: "place" }, `${letter.topic} ${letter.partition}:${letter.offset}`),
  );

function makeTiles() {
  return {
    events: tile("Events per second", { moves: true }),
    lists: tile("Lists per second", { moves: true }),
    fresh: tile("Freshness, median", {
      moves: true,
      hint: "From the append of an event to the append of the list that answers it",
    }),
    slow: tile("Freshness, 99th percentile", { moves: true }),
    users: tile("Users"),
    items: tile("Items"),
    dead: tile("Dead letters"),
    memory: tile("Memory"),
  };
}

function showFigures(tiles, figures) {
  const fresh = figures.freshness_ms ?? {};
  tiles.events.set(rate(figures.events_per_s), figures.events_per_s);
  tiles.lists.set(rate(figures.lists_per_s), figures.lists_per_s);
  tiles.fresh.set(milliseconds(fresh.p50), fresh.p50 ?? 0);
  tiles.slow.set(milliseconds(fresh.p99), fresh.p99 ?? 0);
  tiles.users.set(count(figures.users));
  tiles.items.set(count(figures.items));
  const dropped = Object.entries(figures.dropped ?? {}).filter(([, number]) => number > 0);
  tiles.dead.set(
    count(figures.dead_letters),
    null,
    dropped.map(([name, number]) => `${count(number)} ${name.replaceAll("_", " ")}`).join(", "),
  );
  tiles.memory.set(count(figures.memory_mib), null, "MiB");
}

/** What the lag is counted in, beside the title of the table. */
export const lagNote = () => el("span", { class: "soft" }, "lag in records");

/** The roles with lag, members and whether they are ready. */
export function roleTable(roles) {
  const state = (role) =>
    el("span", { class: `state ${role.ready ? "good" : "bad"}` }, role.ready ? "ready" : "not ready");
  const rows = roles.map((role) => [role.role, count(role.lag_records), count(role.members), state(role)]);
  const made = table(["Role", "Lag", "Members", "State"], rows, "Roles, and the records that each is behind");
  made.classList.add("roles");
  return made;
}

function holdButton(flows) {
  const button = el("button", { type: "button", "aria-pressed": "false" }, "Hold the flow");
  button.addEventListener("click", () => {
    const held = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(held));
    setText(button, held ? "Let it flow" : "Hold the flow");
    for (const flow of flows) flow.isHeld = held;
  });
  return button;
}

function followLive(tiles, flows, roles, { signal, tell }) {
  const age = { shown: "" };
  const figures = (data) =>
    onFrame(tiles, () => {
      showFigures(tiles, data);
      const told = JSON.stringify(data.roles);
      if (told === age.shown) return; // a table that is rebuilt loses what is selected in it
      age.shown = told;
      roles.replaceChildren(data.roles?.length ? roleTable(data.roles) : empty("No role is heard of yet."));
    });
  const handlers = {
    figures,
    event: (data) => flows.events.take(data),
    list: (data) => flows.lists.take(data),
    "dead-letter": (data) => flows.dead.take(data),
  };
  follow(path(["live"]), handlers, tell, signal);
}

/** The view. */
export async function mountLive(context) {
  const tiles = makeTiles();
  const flows = {
    events: new Flow("Events", eventRow, "No event yet. Send one: sliceflow send, or click in the view User."),
    lists: new Flow("Lists", listRow, "No list yet."),
    dead: new Flow("Dead letters", deadLetterRow, "None. What is no valid event comes here, with its reason."),
  };
  const parts = {
    events: panel("Events", {}, el("span", { class: "soft" }, "a sample")),
    lists: panel("Lists", {}, el("span", { class: "soft" }, "a sample")),
    roles: panel("Roles", {}, lagNote()),
    dead: panel("Dead letters"),
  };
  for (const name of ["events", "lists", "dead"]) parts[name].body.append(flows[name].nothing, flows[name].list);
  parts.roles.body.append(empty("Waiting for the first figures…"));
  const root = el(
    "div",
    { class: "view" },
    heading("Live", holdButton(Object.values(flows))),
    el("div", { class: "tiles" }, ...Object.values(tiles).map((one) => one.root)),
    el("div", { class: "two" }, parts.events.root, parts.lists.root, parts.roles.root, parts.dead.root),
  );
  followLive(tiles, flows, parts.roles.body, context);
  get(path(["dead-letters"], { count: NUM_ROWS }), context.signal)
    .then(({ dead_letters: letters }) => letters.toReversed().forEach((letter) => flows.dead.take(letter)))
    .catch((error) => context.signal.aborted || context.showProblem(error, parts.dead.body));
  return root;
}
