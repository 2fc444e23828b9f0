// Elements, text and frames. Text enters the page as text nodes only, so whatever a title or an id holds stays text.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** An HTML element; attributes named `on…` are listeners, children are nodes or text. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element, likewise. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Set an element's text, but only where it is another, so that nothing is announced or painted twice. */
export function setText(node, text) {
  const value = String(text);
  if (node.textContent !== value) node.textContent = value;
}

/** What a press of this modifier-free link leads to. */
export const userLink = (id, text = id) => el("a", { href: `#/user/${encodeURIComponent(id)}` }, text);
export const itemLink = (id, text = id) => el("a", { href: `#/items/${encodeURIComponent(id)}` }, text);

/** A titled part of the page: {root, body}. */
export function panel(title, attributes = {}, ...beside) {
  const body = el("div", { class: "body" });
  const head = el("div", { class: "head" }, el("h2", {}, title), ...beside);
  return { root: el("section", { ...attributes, class: `panel ${attributes.class ?? ""}` }, head, body), body };
}

/** The heading of a view, with what stands beside it. */
export function heading(title, ...beside) {
  return el("div", { class: "title" }, el("h1", { tabindex: "-1" }, title), ...beside);
}

/** A line that says that there is nothing, or nothing yet. */
export const empty = (text) => el("p", { class: "empty" }, text);

/** Names with what is said of each; what is null or empty is left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", { class: "facts" }, ...known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** A table: `heads` are texts, `rows` lists of texts or nodes; the first column is text, the others are numbers. */
export function table(heads, rows, caption) {
  const head = el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)));
  const lines = rows.map(([first, ...rest]) =>
    el("tr", {}, el("th", { scope: "row" }, first), ...rest.map((cell) => el("td", {}, cell))),
  );
  const made = el(
    "table",
    {},
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, head),
    el("tbody", {}, ...lines),
  );
  return el("div", { class: "wide", role: "region", tabindex: "0", "aria-label": caption }, made);
}

const waiting = new Map();
let isInFrame = false;

/** Do `work` at the next animation frame; of several under the same key only the last is done. */
export function onFrame(key, work) {
  if (waiting.size === 0) requestAnimationFrame(runFrame);
  waiting.set(key, work);
}

function runFrame() {
  const due = [...waiting.values()];
  waiting.clear();
  isInFrame = true;
  try {
    for (const work of due) work();
  } finally {
    isInFrame = false;
  }
}

/** Resolves when what was just changed is on the screen: after this frame, or else after the next one. */
export const painted = () =>
  new Promise((done) => (isInFrame ? setTimeout(done) : requestAnimationFrame(() => setTimeout(done))));

/** Whether the reader wants no motion. */
export const isStill = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Arrow keys, Home and End move the focus among the elements of `root` that match; one of them is a tab stop. */
export function roving(root, selector) {
  const all = () => [...root.querySelectorAll(selector)];
  const steps = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  const refresh = () => {
    const found = all();
    const current = found.find((node) => node.getAttribute("tabindex") === "0") ?? found[0];
    for (const node of found) node.setAttribute("tabindex", node === current ? "0" : "-1");
  };
  root.addEventListener("focusin", (event) => {
    const found = all();
    if (!found.includes(event.target)) return;
    for (const node of found) node.setAttribute("tabindex", node === event.target ? "0" : "-1");
  });
  root.addEventListener("keydown", (event) => {
    const found = all();
    const at = found.indexOf(event.target);
    const to = event.key === "Home" ? 0 : event.key === "End" ? found.length - 1 : at + steps[event.key];
    if (at < 0 || Number.isNaN(to) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    found[Math.max(0, Math.min(to, found.length - 1))].focus();
  });
  refresh();
  return refresh;
}
