// Asking the server, and following its streams. A refusal becomes a Problem that says what mends it.

const TOKEN = "sliceflow-token";

/** Back-off of a stream, in ms: doubled from the first to the longest, so that a restarted server is found soon. */
const FIRST_WAIT = 250;
const LONGEST_WAIT = 8000;

/** A stream that says nothing for so long (ms) is dead: the server says something at least every ten seconds. */
const SILENCE = 25000;

/** What the server refused, or that it did not answer (status 0). */
export class Problem extends Error {
  constructor(status, seen, mend = "") {
    super(seen);
    Object.assign(this, { status, mend });
  }

  /** All of it, in one line. */
  get told() {
    return `${this.message} ${this.mend ? `To mend it: ${this.mend}.` : ""}`.trim();
  }
}

let asked = null;
let ask = async () => null;

/** Say how a person is asked for the token; `asking(isAgain)` resolves to it, or to null. */
export function askTokenWith(asking) {
  ask = asking;
}

async function renewToken() {
  asked ??= ask(sessionStorage.getItem(TOKEN) !== null).finally(() => (asked = null));
  const token = await asked;
  if (token === null) throw new Problem(401, "This server wants a token.", "reload the page, and give it");
  sessionStorage.setItem(TOKEN, token);
}

async function problemOf(answer) {
  const known = await answer.json().catch(() => ({}));
  return new Problem(answer.status, known.detail || `The server answered ${answer.status}.`, known.mend);
}

async function request(path, options) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let answer;
    try {
      answer = await fetch(path, { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(0, "The server does not answer.", "look whether it runs: sliceflow serve");
    }
    if (answer.ok) return answer;
    if (answer.status !== 401) throw await problemOf(answer);
    if (sessionStorage.getItem(TOKEN) === token) await renewToken();
  }
}

/** A path with its query; what is null or empty is left out. */
export function path(parts, query = {}) {
  const asked = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const tail = asked.length ? `?${new URLSearchParams(asked)}` : "";
  return `/${parts.map(encodeURIComponent).join("/")}${tail}`;
}

/** GET, as JSON. */
export async function get(address, signal) {
  return (await request(address, { signal })).json();
}

/** POST of JSON, answered as JSON. */
export async function post(address, body) {
  const headers = { "Content-Type": "application/json" };
  return (await request(address, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** DELETE, answered as JSON. */
export async function erase(address) {
  return (await request(address, { method: "DELETE" })).json();
}

/** What ended a fetch because its view was left. */
export const isLeft = (error) => error.name === "AbortError";

/**
 * Follow server-sent events until `signal` says stop; through fetch, since EventSource cannot send a token.
 * `handlers` by event name get the data; `tell` gets {kind: "connecting" | "connected" | "waiting", retry, problem}.
 */
export async function follow(address, handlers, tell, signal) {
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    let problem = null;
    tell({ kind: "connecting" });
    try {
      await readStream(address, handlers, signal, () => {
        wait = FIRST_WAIT;
        tell({ kind: "connected" });
      });
    } catch (error) {
      if (signal.aborted) return;
      problem = error instanceof Problem ? error : null;
    }
    if (signal.aborted) return;
    // Who gave no token is not asked again by itself.
    const pause = problem?.status === 401 ? null : wait * (0.75 + Math.random() / 2);
    await sleep(pause, signal, (retry) => tell({ kind: "waiting", retry, problem }));
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }
}

function sleep(pause, signal, tell) {
  return new Promise((done) => {
    const timer = pause === null ? null : setTimeout(finish, pause);
    function finish() {
      clearTimeout(timer);
      for (const target of [window, signal])
        for (const name of ["online", "abort"]) target.removeEventListener(name, finish);
      done();
    }
    window.addEventListener("online", finish);
    signal.addEventListener("abort", finish);
    tell(finish);
  });
}

async function readStream(address, handlers, signal, opened) {
  const own = new AbortController();
  const stop = () => own.abort();
  signal.addEventListener("abort", stop);
  let timer = setTimeout(stop, SILENCE);
  try {
    const answer = await request(address, { headers: { Accept: "text/event-stream" }, signal: own.signal });
    opened();
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(stop, SILENCE);
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop();
      blocks.forEach((block) => hand(block, handlers));
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", stop);
    own.abort();
  }
}

function hand(block, handlers) {
  const lines = block.split("\n").map((line) => line.replace(/\r$/, ""));
  const values = (name) =>
    lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trimStart());
  const data = values("data").join("\n");
  const handler = handlers[values("event")[0] ?? "message"];
  if (handler && data) handler(JSON.parse(data));
}
