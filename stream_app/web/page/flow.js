// The flow picture: topics and roles with their numbers, and the ways between them.

import { setText, svg } from "./dom.js";
import { count, rate } from "./format.js";

/** Place of each node: column, lane. Topics are written by one role and read by others. */
const TOPICS = {
  status: [1, 0],
  items: [2, 0],
  "item-vectors": [4, 0],
  events: [0, 1],
  slices: [2, 1],
  "slice-vectors": [4, 1],
  recommendations: [7, 1],
  "events-dead-letter": [0, 2],
  "item-activity": [1, 2],
  "item-trends": [4, 2],
  "scorer-weights": [6, 2],
  choices: [5, 3],
};
const ROLES = {
  sequence: [1, 1],
  encode: [3, 1],
  recommend: [6, 1],
  serve: [7, 2],
  trend: [3, 2],
  choose: [5, 2],
  score: [6, 3],
};

const WAYS = [
  ["events", "sequence"],
  ["sequence", "slices"],
  ["sequence", "status"],
  ["sequence", "events-dead-letter"],
  ["sequence", "item-activity"],
  ["slices", "encode"],
  ["items", "encode"],
  ["encode", "item-vectors"],
  ["encode", "slice-vectors"],
  ["item-activity", "trend"],
  ["trend", "item-trends"],
  ["slice-vectors", "recommend"],
  ["item-vectors", "recommend"],
  ["item-trends", "recommend"],
  ["item-trends", "choose"],
  ["slice-vectors", "choose"],
  ["choose", "choices"],
  ["choices", "score"],
  ["score", "scorer-weights"],
  ["scorer-weights", "recommend"],
  ["recommend", "recommendations"],
  ["recommendations", "serve"],
];

const NODE = { width: 124, height: 50 };
const PITCH = { x: 146, y: 92 };
const EDGE = 4;

const corner = ([column, lane]) => [EDGE + column * PITCH.x, EDGE + lane * PITCH.y];

/** The picture: {root, show}. */
export class FlowPicture {
  constructor() {
    const places = { ...TOPICS, ...ROLES };
    this.nodes = Object.fromEntries(Object.keys(places).map((name) => [name, node(name, places[name], name in ROLES)]));
    this.ways = WAYS.map(([from, to]) => ({ from, to, line: way(places[from], places[to]) }));
    const width = 7 * PITCH.x + NODE.width + 2 * EDGE;
    const height = 3 * PITCH.y + NODE.height + 2 * EDGE;
    const told = "From events to lists: roles and the topics between them";
    this.root = svg(
      "svg",
      { class: "flow-picture", viewBox: `0 0 ${width} ${height}`, width, role: "group", "aria-label": told },
      svg("defs", {}, tip("tip-still"), tip("tip-flowing")),
      ...this.ways.map(({ line }) => line),
      ...Object.values(this.nodes).map((made) => made.root),
    );
    this.nodes.serve.set("this page", "Role serve: this page"); // it is in no group, so nothing waits for it
  }

  show({ topics, roles }) {
    for (const { name, records_per_s: perSecond, end_offset: end } of topics) {
      const told = `${name}: ${rate(perSecond)} records a second, ${count(end)} in all`;
      this.nodes[name]?.set(`${rate(perSecond)}/s · ${count(end)}`, told);
    }
    for (const { role, lag_records: lag, ready } of roles) {
      const told = `Role ${role}: lag ${count(lag)} records, ${ready ? "ready" : "not ready"}`;
      this.nodes[role]?.set(ready ? `lag ${count(lag)}` : "not ready", told, !ready);
    }
    const rates = new Map(topics.map((topic) => [topic.name, topic.records_per_s]));
    for (const { from, to, line } of this.ways) {
      const flows = (rates.get(from) ?? rates.get(to) ?? 0) > 0;
      line.classList.toggle("flowing", flows);
      line.setAttribute("marker-end", `url(#tip-${flows ? "flowing" : "still"})`);
    }
  }
}

const way = (from, to) => svg("path", { class: "way", d: curve(from, to), "marker-end": "url(#tip-still)" });

function tip(id) {
  const size = { viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7 };
  return svg("marker", { id, orient: "auto", ...size }, svg("path", { class: id, d: "M0 0L8 4L0 8Z" }));
}

function node(name, place, isRole) {
  const [x, y] = corner(place);
  const { width, height } = NODE;
  const figure = svg("text", { class: "figure", x: x + width / 2, y: y + 38, "text-anchor": "middle" }, "–");
  const root = svg(
    "g",
    { class: `node ${isRole ? "role" : "topic"}`, role: "img", "aria-label": name },
    svg("rect", { x, y, width, height, rx: isRole ? 10 : height / 2 }),
    svg("text", { class: "label", x: x + width / 2, y: y + 21, "text-anchor": "middle" }, name),
    figure,
  );
  const set = (text, told, isBad = false) => {
    setText(figure, text);
    root.setAttribute("aria-label", told);
    root.classList.toggle("bad", isBad);
  };
  return { root, set };
}

/** A way that leaves up or down and arrives sideways. */
const turn = (startX, startY, endX, endY) => `M${startX} ${startY}C${startX} ${endY} ${startX} ${endY} ${endX} ${endY}`;

/** A way that leaves upwards, runs between two lanes, and arrives sideways. */
function climb(startX, startY, endX, endY) {
  const middle = startY - (PITCH.y - NODE.height) / 2;
  const rise = `M${startX} ${startY}Q${startX} ${middle} ${startX + 24} ${middle}H${endX - 60}`;
  return `${rise}C${endX - 25} ${middle} ${endX - 35} ${endY} ${endX} ${endY}`;
}

/** A way from the edge of one node to that of another, around what is between them. */
function curve(from, to) {
  const [fromX, fromY] = corner(from);
  const [toX, toY] = corner(to);
  const middle = NODE.width / 2;
  if (from[0] === to[0]) {
    const [leave, arrive] = to[1] > from[1] ? [NODE.height, -2] : [0, NODE.height + 2];
    return `M${fromX + middle} ${fromY + leave}L${toX + middle} ${toY + arrive}`;
  }
  const [startY, endY] = [fromY + NODE.height / 2, toY + NODE.height / 2];
  if (to[0] < from[0]) return turn(fromX + NODE.height / 2, fromY + NODE.height, toX + NODE.width + 2, endY);
  if (to[0] > from[0] + 1 && to[1] < from[1])
    return climb(fromX + NODE.width - NODE.height / 2, fromY, toX - 2, endY + 14);
  const [startX, endX] = [fromX + NODE.width, toX - 2];
  const bend = startX + (endX - startX) / 2;
  return `M${startX} ${startY}C${bend} ${startY} ${bend} ${endY} ${endX} ${endY}`;
}
