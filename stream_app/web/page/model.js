// Model: the release, its training curve, how good it is beside its baselines, and drift.

import { get, path } from "./api.js";
import { bars, lineChart, tile } from "./chart.js";
import { el, empty, facts, heading, panel, table } from "./dom.js";
import { count, decimal, duration, percent, time } from "./format.js";

/** Settings of the release, with how each is told. */
const FACTS = [
  ["Release", (model) => model.release],
  ["Trained", (model) => (model.trained_at ? time(model.trained_at) : null)],
  ["Dimensions", (model) => count(model.dim)],
  ["Items", (model) => count(model.num_items)],
  ["Merge", (model) => model.merge],
  [
    "Slice",
    (model) => {
      const [gap, span] = [model.slice_gap_s, model.slice_span_s].map((length) => duration(length * 1000));
      return `at most ${count(model.slice_events)} events, a gap of ${gap}, a span of ${span}`;
    },
  ],
];

const MEASURE = "NDCG@10";

function releasePart(model) {
  const part = panel("Release");
  part.body.append(facts(FACTS.map(([name, tell]) => [name, tell(model)])));
  return part.root;
}

function curvePart({ training_curve: curve }) {
  const part = panel("Training");
  const points = (name) => curve.map((row) => [row.epoch, row[name]]).filter(([, y]) => Number.isFinite(y));
  const charts = [
    ["Loss in training", "train_loss", null],
    [`Validation, ${MEASURE}`, "validation", (all) => all.reduce((best, one) => (one[1] > best[1] ? one : best))],
  ]
    .map(([title, name, best]) => [title, points(name), best])
    .filter(([, found]) => found.length > 1)
    .map(([title, found, best]) => lineChart(title, "epoch", found, best ? best(found) : null));
  part.body.append(
    charts.length
      ? el("div", { class: "charts" }, ...charts)
      : empty("This release brought no record of its training."),
  );
  return part.root;
}

function evaluationPart({ evaluation }) {
  const part = panel("Evaluation beside baselines");
  if (!evaluation?.length) {
    part.body.append(empty("None is kept with this release. Make one: sliceflow evaluate."));
    return part.root;
  }
  const measures = Object.keys(evaluation[0]).filter((name) => typeof evaluation[0][name] === "number");
  const chief = measures.includes(MEASURE) ? MEASURE : measures[0];
  const sorted = evaluation.toSorted((a, b) => b[chief] - a[chief]);
  part.body.append(
    el("p", { class: "soft" }, "By sliceflow evaluate: a model of this kind, trained without the events it is asked for."),
    el("h3", {}, chief),
    bars(
      sorted.map((row) => ({
        name: row.method,
        value: row[chief],
        text: decimal(row[chief], 4),
        isOwn: row.method === evaluation[0].method,
      })),
      chief,
    ),
    table(
      ["Method", ...measures],
      sorted.map((row) => [row.method, ...measures.map((name) => decimal(row[name], 4))]),
      "Evaluation",
    ),
  );
  return part.root;
}

function driftPart({ drift }) {
  const part = panel("Drift");
  part.body.append(
    el("p", { class: "soft" }, "User vectors merged slice by slice, beside a full re-encoding of the same users."),
  );
  if (!drift?.checks) {
    part.body.append(empty("No check yet: they come while events flow."));
    return part.root;
  }
  const tiles = [
    ["Cosine, mean", decimal(drift.mean_cosine, 4)],
    ["Cosine, least", decimal(drift.min_cosine, 4)],
    ["Overlap of ten best", percent(drift.mean_overlap_10)],
    ["Checks", count(drift.checks)],
  ];
  part.body.append(
    el(
      "div",
      { class: "tiles inner" },
      ...tiles.map(([name, text]) => {
        const made = tile(name);
        made.set(text);
        return made.root;
      }),
    ),
  );
  return part.root;
}

function scorerPart({ scorer }) {
  const part = panel("Scorer, learned while events flow");
  const days = Object.entries(scorer?.quality ?? {});
  const measures = [...new Set(days.flatMap(([, row]) => Object.keys(row)))];
  const cell = (name, value) => (Number.isInteger(value) ? count(value) : decimal(value, 4));
  part.body.append(
    el(
      "p",
      { class: "soft" },
      scorer?.epoch >= 0
        ? `Each choice was judged before it was learned from; scorer-epoch ${scorer.epoch}.`
        : "The release's own: nothing was learned yet.",
    ),
  );
  if (days.length)
    part.body.append(
      table(
        ["", ...measures],
        days.map(([day, row]) => [day, ...measures.map((name) => cell(name, row[name]))]),
        "Quality of the lists",
      ),
    );
  return part.root;
}

/** The view. */
export async function mountModel({ signal }) {
  const model = await get(path(["model"]), signal);
  return el(
    "div",
    { class: "view" },
    heading("Model", el("code", { class: "id" }, model.release)),
    el("div", { class: "two" }, releasePart(model), driftPart(model)),
    curvePart(model),
    evaluationPart(model),
    scorerPart(model),
  );
}
