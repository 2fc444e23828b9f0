// Health: the flow with its numbers, the roles, dead letters, and where machines ask for the same.

import { get, isLeft, path } from "./api.js";
import { el, empty, heading, onFrame, panel } from "./dom.js";
import { FlowPicture } from "./flow.js";
import { deadLetterRow, lagNote, roleTable } from "./live.js";

/** How often (ms) the numbers are asked for. */
const EVERY = 2000;

const NUM_LETTERS = 20;

const LINKS = [
  ["/healthz", "alive"],
  ["/readyz", "ready"],
  ["/metrics", "for Prometheus"],
  ["/openapi.json", "the HTTP interface"],
];

/** Ask again and again until the view is left. */
async function keepAsking(ask, { signal, tell }) {
  for (let retry = null; !signal.aborted; retry = null) {
    try {
      await ask();
      tell({ kind: "connected" });
    } catch (error) {
      if (isLeft(error)) return;
      tell({ kind: "waiting", retry: () => retry?.(), problem: error });
    }
    await new Promise((done) => {
      retry = done;
      setTimeout(done, EVERY);
    });
  }
}

function flowPanel(picture) {
  const told = "topics: records a second · records in all; roles: records that wait";
  const made = panel("Flow", {}, el("span", { class: "soft" }, told));
  const attributes = { class: "scroll", role: "region", tabindex: "0", "aria-label": "Flow picture" };
  made.body.append(el("div", attributes, picture.root));
  return made;
}

function linksPanel() {
  const made = panel("For machines");
  const link = ([address, text]) => el("li", {}, el("a", { href: address }, el("code", {}, address)), ` ${text}`);
  made.body.append(el("ul", { class: "links" }, ...LINKS.map(link)));
  return made;
}

/** The view. */
export async function mountHealth(context) {
  const picture = new FlowPicture();
  const roles = panel("Roles", {}, lagNote());
  const dead = panel("Dead letters");
  const two = el("div", { class: "two" }, roles.root, dead.root, linksPanel().root);
  const root = el("div", { class: "view" }, heading("Health"), flowPanel(picture).root, two);
  const show = (state, letters) => {
    picture.show(state);
    roles.body.replaceChildren(state.roles.length ? roleTable(state.roles) : empty("No role is heard of."));
    const listed = letters.length ? el("ol", { class: "flow" }, ...letters.map(deadLetterRow)) : empty("None.");
    dead.body.replaceChildren(listed);
  };
  const ask = async () => {
    const asked = [path(["flow"]), path(["dead-letters"], { count: NUM_LETTERS })];
    const [state, letters] = await Promise.all(asked.map((address) => get(address, context.signal)));
    onFrame("health", () => show(state, letters.dead_letters));
  };
  root.addEventListener("shown", () => keepAsking(ask, context), { once: true });
  return root;
}
