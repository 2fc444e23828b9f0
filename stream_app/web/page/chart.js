// Small charts in SVG: a sparkline, lines over steps, and bars beside names.

import { el, setText, svg } from "./dom.js";
import { decimal } from "./format.js";

const SPARK = { width: 120, height: 28 };

/** A line of the newest `length` values: {root, push}. It tells nothing that the figure beside it does not. */
export function sparkline(length = 90) {
  const values = [];
  const area = svg("path", { class: "area" });
  const line = svg("path", { class: "line" });
  const root = svg(
    "svg",
    {
      class: "spark",
      viewBox: `0 0 ${SPARK.width} ${SPARK.height}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    area,
    line,
  );
  const push = (value) => {
    values.push(Number.isFinite(value) ? value : 0);
    if (values.length > length) values.shift();
    const most = Math.max(...values, 1e-9);
    const step = SPARK.width / (length - 1);
    const from = SPARK.width - (values.length - 1) * step;
    const points = values.map(
      (one, at) =>
        `${(from + at * step).toFixed(1)} ${(SPARK.height - 2 - (one / most) * (SPARK.height - 4)).toFixed(1)}`,
    );
    line.setAttribute("d", `M${points.join("L")}`);
    area.setAttribute("d", `M${from.toFixed(1)} ${SPARK.height}L${points.join("L")}L${SPARK.width} ${SPARK.height}Z`);
  };
  return { root, push };
}

/** Round steps that cover [low, high]: about `wanted` of them. */
function ticks(low, high, wanted) {
  const raw = (high - low || Math.abs(high) || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const found = [];
  for (let at = Math.floor(low / step) * step; at < high + step; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

/** A chart in px of its own drawing; on a phone it is narrower, so that its text stays readable. */
const FRAME = { width: innerWidth < 680 ? 330 : 520, height: 220, left: 54, right: 12, top: 12, bottom: 34 };

const tick = (text, x, y, anchor) => svg("text", { class: "tick", x, y, "text-anchor": anchor }, String(text));

function gridLine(value, y) {
  const { width, left, right } = FRAME;
  return [
    svg("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }),
    tick(value, left - 8, y + 4, "end"),
  ];
}

/**
 * One line over whole steps. `points` are [[x, y], …] in order of x; a point at `marked` is circled and told.
 * Its figures are told to those who cannot see it.
 */
export function lineChart(title, xName, points, marked = null) {
  const { width, height, left, right, top, bottom } = FRAME;
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const yTicks = ticks(Math.min(...ys), Math.max(...ys), 4);
  const [low, high] = [yTicks[0], yTicks.at(-1)];
  const [first, last] = [Math.min(...xs), Math.max(...xs)];
  const toX = (x) => left + ((x - first) / (last - first || 1)) * (width - left - right);
  const toY = (y) => height - bottom - ((y - low) / (high - low || 1)) * (height - top - bottom);
  const xTicks = ticks(first, last, 5).filter((x) => x >= first && x <= last && Number.isInteger(x));
  const path = points.map(([x, y]) => `${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`).join("L");
  const told = `${title}: from ${decimal(ys[0])} to ${decimal(ys.at(-1))} over ${points.length} points.`;
  return el(
    "figure",
    {},
    el("figcaption", {}, title, marked && el("strong", {}, `, best ${decimal(marked[1], 4)} in ${xName} ${marked[0]}`)),
    svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told, class: "chart" },
      ...yTicks.flatMap((y) => gridLine(y, toY(y))),
      ...xTicks.map((x) => tick(x, toX(x), height - bottom + 17, "middle")),
      tick(xName, width - right, height - 3, "end"),
      svg("path", { class: "line", d: `M${path}` }),
      marked && svg("circle", { class: "dot", cx: toX(marked[0]), cy: toY(marked[1]), r: 4.5 }),
    ),
  );
}

/** Bars beside names: `rows` are {name, value, text, isOwn}. */
export function bars(rows, caption) {
  const most = Math.max(...rows.map((row) => row.value), 1e-9);
  const list = el("ul", { class: "bars", "aria-label": caption });
  for (const row of rows) {
    const bar = el("span", { class: "bar" });
    bar.style.setProperty("--share", String(Math.max(0, row.value) / most));
    list.append(
      el(
        "li",
        { class: row.isOwn ? "own" : null },
        el("span", { class: "name" }, row.name),
        bar,
        el("span", { class: "value" }, row.text),
      ),
    );
  }
  return list;
}

/** A figure with its name, and a sparkline where it moves: {root, set}. */
export function tile(name, { moves = false, hint = null } = {}) {
  const value = el("span", { class: "number" }, "–");
  const beside = el("span", { class: "beside" });
  const spark = moves ? sparkline() : null;
  const root = el(
    "div",
    { class: "tile", title: hint },
    el("span", { class: "name" }, name),
    el("span", { class: "figure" }, value, beside),
    spark?.root,
  );
  const set = (text, raw = null, more = "") => {
    setText(value, text);
    setText(beside, more);
    if (spark && raw !== null) spark.push(raw);
  };
  return { root, set };
}
