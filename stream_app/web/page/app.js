// The frame of the page: routes, theme, token, and whether the server is heard of.

import { askTokenWith, isLeft } from "./api.js";
import { el, empty, roving, setText } from "./dom.js";
import { mountHealth } from "./health.js";
import { mountItems } from "./items.js";
import { mountLive } from "./live.js";
import { mountModel } from "./model.js";
import { mountUser } from "./user.js";

const VIEWS = { live: mountLive, user: mountUser, items: mountItems, model: mountModel, health: mountHealth };

const main = document.getElementById("main");
const nav = document.getElementById("nav");
let left = new AbortController();

/** The state of the view's stream, beside the navigation: a lost server is told, and can be tried at once. */
function tellConnection(state) {
  const place = document.getElementById("connection");
  place.dataset.kind = state.kind;
  if (state.kind !== "waiting") {
    setText(place, { connecting: "connecting…", connected: "live" }[state.kind] ?? "");
    return;
  }
  const text = state.problem?.status ? state.problem.message : "no connection, trying again";
  place.replaceChildren(text, " ", el("button", { type: "button", class: "small", onclick: state.retry }, "Try now"));
}

/** Tell a refusal in place: what it was, and what mends it. */
function showProblem(error, place) {
  if (!isLeft(error)) place.replaceChildren(el("p", { class: "problem", role: "alert" }, error.told ?? error.message));
}

function route() {
  const [, name, ...rest] = location.hash.split("/");
  const view = VIEWS[name] ? name : "live";
  let argument = "";
  try {
    argument = decodeURIComponent(rest.join("/"));
  } catch {
    argument = rest.join("/"); // no valid escape: it is what somebody typed
  }
  return { view, argument };
}

function markHere(view) {
  for (const link of nav.children) {
    const isHere = link.getAttribute("href") === `#/${view}`;
    link.tabIndex = isHere ? 0 : -1;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

async function show(isFirst) {
  const { view, argument } = route();
  left.abort();
  left = new AbortController();
  const { signal } = left;
  markHere(view);
  document.title = `${view[0].toUpperCase()}${view.slice(1)} · Sliceflow`;
  tellConnection({ kind: "none" });
  main.replaceChildren(empty("Loading…"));
  try {
    const root = await VIEWS[view]({
      argument,
      signal,
      tell: (state) => signal.aborted || tellConnection(state),
      showProblem,
    });
    if (signal.aborted) return;
    main.replaceChildren(root);
    root.dispatchEvent(new Event("shown"));
    if (!isFirst) main.querySelector("h1")?.focus();
  } catch (error) {
    if (signal.aborted) return;
    showProblem(error, main);
    main.append(el("p", {}, el("button", { type: "button", onclick: () => show(false) }, "Try again")));
  }
}

function wireTheme() {
  const button = document.getElementById("theme");
  const dark = () =>
    (document.documentElement.dataset.theme ??
      (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const tell = () => button.setAttribute("aria-pressed", String(dark()));
  button.addEventListener("click", () => {
    const theme = dark() ? "light" : "dark";
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("sliceflow-theme", theme);
    tell();
  });
  tell();
}

function askToken(isAgain) {
  const dialog = document.getElementById("token");
  const text = document.getElementById("token-text");
  text.value = "";
  dialog.returnValue = "";
  setText(
    document.getElementById("token-why"),
    isAgain ? "That was not this server's token." : "This server wants a token. It is kept until this tab is closed.",
  );
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "ok" && text.value ? text.value : null), {
      once: true,
    });
  });
}

askTokenWith(askToken);
wireTheme();
roving(nav, "a");
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash is the route
  main.focus();
});
addEventListener("hashchange", () => show(false));
show(true);
