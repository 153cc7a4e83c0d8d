// Runs: the table, the curves of those that are chosen, and how they compare. Live runs are looked at every two seconds.

import { alertUser, byId, describe, element, send, table, TokenWanted } from "./dom.js";

const LIVE = 2000;
const IDLE = 15000;
/** So many runs are drawn unless somebody chooses. */
const FIRST = 4;

/** The name of a measure of losses that are all of `item`, a token, sentence or image; or of several kinds, where it is null. */
const nameOf = (measure, item) =>
  measure === "nats" ? (item ? `nats per ${item}` : "nats") : { perplexity: "perplexity", "bits-per-char": "bits per character" }[measure];
const DIGITS = { perplexity: 2, "bits-per-char": 3, nats: 4 };
const DASH = "–";

const chosen = new Set();
const rows = new Map();
let runs = [];
let timer;
let isFirst = true;
/** Whether somebody has chosen; until then the page does. */
let isTouched = false;
let drawing = 0;
let picture = "";
let compared = "";
/** What the chosen runs were when they were last drawn. */
let drawn = "";

const grouped = (number) => (number ?? null) === null ? DASH : number.toLocaleString("en");
const loss = (value, measure) => (value ?? null) === null ? DASH : value.toFixed(DIGITS[measure]);

function duration(seconds) {
  if ((seconds ?? null) === null) return DASH;
  const units = [["d", 86400], ["h", 3600], ["min", 60]];
  const [name, size] = units.find(([, size]) => seconds >= size) ?? ["s", 1];
  return `${Math.floor(seconds / size)} ${name}`;
}

function cells(run) {
  const withUnit = (value) =>
    (value ?? null) === null ? DASH : `${loss(value, run.measure)} ${nameOf(run.measure, run.item).replace("bits per character", "bits/char")}`;
  const epochs = run.epochs === null ? DASH : run.epochs_asked === null ? `${run.epochs}` : `${run.epochs} of ${run.epochs_asked}`;
  return [
    run.problem ? `${run.state}: ${run.problem}` : run.state, run.corpus ?? DASH, grouped(run.parameters), epochs,
    withUnit(run.best_valid), withUnit(run.test), `${grouped(Math.ceil(run.bytes / 1e6))} MB`,
    run.seconds_ago === null ? DASH : `${duration(run.seconds_ago)} ago`,
  ];
}

/** A model without events has no curve, nor has a run that has not begun. */
const hasCurve = (run) => run.state !== "model" && !run.problem;

function makeRow(run) {
  const box = element("input", { type: "checkbox", "aria-label": `Show ${run.name}` });
  box.addEventListener("change", () => {
    isTouched = true;
    if (box.checked) chosen.add(run.name);
    else chosen.delete(run.name);
    draw();
  });
  const texts = Array.from({ length: 8 }, (_, index) => element("td", { className: index < 2 ? "text" : "" }));
  const row = element("tr", {}, element("td", {}, box), element("th", { scope: "row" }, run.name), ...texts);
  return { row, box, texts };
}

/** Writes what has changed, so that nobody loses their place. */
function showTable() {
  const names = new Set(runs.map((run) => run.name));
  for (const [name, { row }] of rows) {
    if (names.has(name)) continue;
    row.remove();
    rows.delete(name);
    chosen.delete(name);
  }
  const body = byId("runs-table").tBodies[0];
  runs.forEach((run, index) => {
    if (!rows.has(run.name)) rows.set(run.name, makeRow(run));
    const { row, box, texts } = rows.get(run.name);
    if (body.rows[index] !== row) body.insertBefore(row, body.rows[index] ?? null);
    box.disabled = !hasCurve(run);
    box.checked = chosen.has(run.name);
    texts[0].classList.toggle("running", run.state === "running");
    cells(run).forEach((text, at) => {
      if (texts[at].textContent !== text) texts[at].textContent = text;
    });
  });
  const running = runs.filter((run) => run.state === "running").length;
  const status = `${runs.length === 1 ? "1 run or model" : `${runs.length} runs and models`}, ${running} running`;
  if (byId("runs-status").textContent !== status) byId("runs-status").textContent = status;
}

/** Those that train, then those that changed last. */
function choose() {
  const age = (run) => (run.state === "running" ? -1 : run.seconds_ago ?? Infinity);
  const shown = runs.filter(hasCurve).sort((a, b) => age(a) - age(b)).slice(0, FIRST);
  chosen.clear();
  shown.forEach((run) => chosen.add(run.name));
}

/** Looks at the runs, and again after a while. */
export async function refreshRuns() {
  clearTimeout(timer);
  try {
    runs = (await (await send("/page/runs")).json()).runs;
    const first = isFirst;
    if (!isTouched) choose();
    isFirst = false;
    showTable();
    const isLive = chosenRuns().some((run) => run.state === "running");
    if (first || isLive || drawn !== chosenNow()) await draw();
  } catch (error) {
    if (error instanceof TokenWanted) throw error; // until there is a token, nothing is looked at
    byId("runs-status").textContent = `${describe(error)} Trying again.`;
  }
  clearTimeout(timer);
  timer = setTimeout(() => refreshRuns().catch(() => {}), runs.some((run) => run.state === "running") ? LIVE : IDLE);
}

function query(names, parts) {
  const all = [...names.map((name) => ["run", name]), ...Object.entries(parts).filter(([, value]) => value)];
  return all.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
}

/** The chosen runs, and how far they are. */
function chosenNow() {
  const of = ({ name, state, epochs }) => [name, state, epochs];
  return JSON.stringify(chosenRuns().map(of));
}

const chosenRuns = () => runs.filter((run) => chosen.has(run.name) && hasCurve(run));

async function draw() {
  const turn = ++drawing;
  drawn = chosenNow();
  const names = chosenRuns().map((run) => run.name);
  if (names.length === 0) {
    picture = compared = "";
    byId("picture").replaceChildren();
    byId("comparison").replaceChildren();
    byId("picture-caption").textContent = runs.some(hasCurve) ? "No run is chosen." : "There is no run with a curve.";
    return;
  }
  const measure = byId("measure").value;
  const width = Math.min(2000, Math.max(320, Math.round(byId("picture").clientWidth)));
  const curves = query(names, { measure, x: byId("along").value, split: byId("split").value, width: `${width}` });
  const answers = [send(`/page/curves.svg?${curves}`), send(`/page/compare?${query(names, { measure })}`)];
  const [svg, comparison] = await Promise.allSettled(answers.map(async (answer) => (await answer).text()));
  if (turn !== drawing) return; // a later choice is on its way
  showPicture(svg);
  if (comparison.status === "fulfilled" && comparison.value !== compared) {
    compared = comparison.value;
    showComparison(JSON.parse(compared));
  } else if (comparison.status === "rejected") {
    compared = "";
    byId("comparison").replaceChildren();
  }
}

function showPicture({ status, value, reason }) {
  if (status === "rejected") {
    picture = drawn = ""; // at the next look it is tried again
    byId("picture").replaceChildren();
    byId("picture-caption").textContent = describe(reason);
    return;
  }
  if (value === picture) return;
  picture = value;
  const made = copy(new DOMParser().parseFromString(value, "image/svg+xml").documentElement);
  byId("picture").replaceChildren(made);
  byId("picture-caption").textContent = made.getAttribute("aria-label");
  made.removeAttribute("width");
  made.removeAttribute("height");
  if (performance.getEntriesByName("first-picture").length === 0) performance.mark("first-picture");
}

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = new Set(["svg", "rect", "polyline", "polygon", "path", "circle", "text", "title"]);
const ATTRIBUTES = new Set([
  "width", "height", "viewBox", "font-family", "font-size", "role", "aria-label", "x", "y", "cx", "cy", "r", "d", "points",
  "fill", "fill-opacity", "stroke", "stroke-width", "stroke-linejoin", "stroke-linecap", "stroke-dasharray",
  "paint-order", "text-anchor",
]);

/** The shapes of a picture, and nothing else that SVG can hold. */
function copy(node) {
  const made = document.createElementNS(SVG, SHAPES.has(node.localName) ? node.localName : "title");
  for (const { name, value } of node.attributes) {
    if (ATTRIBUTES.has(name)) made.setAttribute(name, value);
  }
  for (const child of node.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) made.append(child.data);
    else if (SHAPES.has(child.localName)) made.append(copy(child));
  }
  return made;
}

const plain = (value) => (value === null ? DASH : typeof value === "string" ? value : JSON.stringify(value));

function showComparison({ measure, item, runs, differences, seeds }) {
  const name = nameOf(measure, item);
  const speedName = item ? `${item[0].toUpperCase()}${item.slice(1)}s/s` : "Speed";
  const speed = (run) =>
    run.tokens_per_second === null ? DASH : `${grouped(Math.round(run.tokens_per_second))}${item ? "" : ` ${run.item}s/s`}`;
  const head = ["Run", "Parameters", "Epochs", "Best epoch", "Validation", "Test", speedName, "Time"];
  const row = (run) => [
    run.name, grouped(run.parameters), run.epochs_asked === null ? `${run.epochs}` : `${run.epochs} of ${run.epochs_asked}`,
    grouped(run.best_epoch), loss(run.best_valid, measure), run.finished ? loss(run.test, measure) : "unfinished",
    speed(run), duration(run.seconds),
  ];
  const parts = [element("h3", {}, "Compared"), table(`What the runs came to; losses are ${name}`, head, runs.map(row))];
  if (seeds.length > 0) {
    const spread = (value) => value === null ? DASH : `${loss(value.mean, measure)} (${loss(value.min, measure)} to ${loss(value.max, measure)})`;
    const seedRow = (group) => [group.name, group.seeds.join(", "), spread(group.valid), spread(group.test)];
    parts.push(table(`Over seeds: mean and range of ${name}`, ["Runs", "Seeds", "Validation", "Test"], seeds.map(seedRow)));
  }
  const keys = Object.entries(differences);
  if (keys.length > 0) {
    const rows = keys.map(([key, values]) => [key, ...values.map(plain)]);
    parts.push(table("What differs between their recipes", ["Key", ...runs.map((run) => run.name)], rows));
  }
  for (const run of runs) {
    const bound = run.is_bound && runs.some((other) => !other.is_bound);
    if (bound) parts.push(element("p", {}, `${run.name}: an upper bound, by the sentence VAE's −ELBO`));
    if (run.absent) parts.push(element("p", {}, `${run.name}: no ${name}, ${run.absent}`));
  }
  byId("comparison").replaceChildren(...parts);
}

/** Listens to the choices. */
export function startRuns() {
  const redraw = () => draw().catch((error) => alertUser(describe(error)));
  for (const id of ["measure", "along", "split"]) byId(id).addEventListener("change", redraw);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) clearTimeout(timer);
    else if (!isFirst) refreshRuns().catch(() => {});
  });
  let width = 0;
  let resizing;
  new ResizeObserver(([{ contentRect }]) => {
    const changed = Math.abs(contentRect.width - width) > 40;
    if (!changed) return;
    if (width > 0 && !isFirst) {
      clearTimeout(resizing);
      resizing = setTimeout(redraw, 200);
    }
    width = contentRect.width;
  }).observe(byId("picture"));
}
