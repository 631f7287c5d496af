// The page. It loads new results every second, shows them, and reports a lost connection.

import { Chart, SERIES_MAX, theme } from "./chart.js";
import { Series, timeOf } from "./series.js";
import { agentRow, count, measure, reportRow } from "./text.js";

const PERIOD_MS = 1000;
const PERIOD_LOST_MS = 3000;
const TIMEOUT_MS = 8000;
// The first load takes at most this many pages, from the newest row back.
const PAGE_ROWS = 5000;
const PAGES_MAX = 4;
// Number of keys drawn until some are picked by hand.
const DRAWN_AT_FIRST = 8;
const LISTED_MAX = 300;
const REPORTS_SHOWN = 20;
const REPORTS_LOADED_MAX = 1000;
const RATE_SECONDS = 10;
const RANGES = [["1 minute", 60], ["5 minutes", 300], ["15 minutes", 900], ["1 hour", 3600], ["6 hours", 21600], ["24 hours", 86400], ["all loaded", Infinity]];

const $ = (id) => document.getElementById(id);
const chosen = new URLSearchParams(location.hash.slice(1));
let agents = [];
let series = new Series();
let loaded = "";
let after = 0;
let picked = null;
let cursor = null;
let drawn = { keys: [], columns: [[]] };
let totals = [];
let reports = [];
const chart = new Chart($("chart"), (index) => {
  cursor = index;
  showKeys();
  showCaption();
});

/** Sends a GET and returns the JSON of the answer. */
async function request(path, parameters = {}) {
  const query = new URLSearchParams(parameters);
  const response = await fetch(`${path}?${query}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Error(`the collector answered ${response.status}`);
  return response.json();
}

/** Updates the page, and schedules the next update. */
async function tick() {
  let wait = PERIOD_MS;
  try {
    agents = (await request("/v1/agents")).agents;
    showAgents();
    await updateReports();
    if (agents.length) {
      choose();
      await update();
      show();
    }
    status("live", "live");
  } catch (error) {
    wait = PERIOD_LOST_MS;
    status("lost", error.name === "TypeError" ? "connection lost, trying again" : `${error.message}, trying again`);
  }
  setTimeout(tick, wait);
}

/** Loads the newest rows of a new choice, or the changes since the last time. */
async function update() {
  const filter = choice();
  const wanted = JSON.stringify(filter);
  // The choice may change while an answer is in flight; the answer then belongs to no series.
  const outdated = () => JSON.stringify(choice()) !== wanted;
  if (wanted === loaded) {
    for (let pages = 0; pages < PAGES_MAX; pages += 1) {
      const page = await request("/v1/results", { ...filter, order: "change", after, limit: PAGE_ROWS });
      if (outdated()) return;
      if (page.change < after) break;
      series.add(page.results, page.retracted);
      after = page.next ?? page.change;
      if (!page.next) return;
    }
  }
  // The choice is new, the page is too far behind, or the store is another one: load from the newest row.
  const fresh = new Series();
  let next = {};
  let change;
  for (let pages = 0; pages < PAGES_MAX && next; pages += 1) {
    const page = await request("/v1/results", { ...filter, ...next, order: "latest", limit: PAGE_ROWS });
    if (outdated()) return;
    change ??= page.change;
    fresh.add(page.results);
    const far = page.results.length && fresh.latest - timeOf(page.results.at(-1)) > 86400;
    next = page.next && !far ? { after: page.next } : null;
  }
  [series, loaded, after] = [fresh, wanted, change];
}

/** Loads the reports stored since the last time. */
async function updateReports() {
  const page = await request("/v1/reports", { after: reports.at(-1)?.id ?? 0, limit: REPORTS_LOADED_MAX });
  if (!page.reports.length) return;
  reports = [...reports, ...page.reports].slice(-REPORTS_LOADED_MAX);
  $("reports").hidden = false;
  $("report-rows").replaceChildren(...reports.slice(-REPORTS_SHOWN).reverse().map(reportRow));
}

function choice() {
  return { agent: chosen.get("agent"), pipeline: chosen.get("pipeline") };
}

/** Keeps the chosen agent and pipeline while they exist, or else takes those with the most results. */
function choose() {
  const size = (sums) => sums.results + sums.events;
  const largest = (list, name) => list.reduce((a, b) => (size(b) > size(a) ? b : a), list[0])?.[name];
  options("agent", agents.map((agent) => agent.agent), largest(agents, "agent"));
  const { pipelines } = agents.find((agent) => agent.agent === chosen.get("agent"));
  options("pipeline", pipelines.map((pipeline) => pipeline.pipeline), largest(pipelines, "pipeline"));
}

function options(name, names, first) {
  const select = $(name);
  if (!names.includes(chosen.get(name)) && names.length) chosen.set(name, first);
  if (JSON.stringify(names) !== select.dataset.names) {
    select.dataset.names = JSON.stringify(names);
    select.replaceChildren(...names.map((text) => new Option(text)));
  }
  select.value = chosen.get(name);
}

function show() {
  const fields = series.fields();
  // Most readers want to see a mean first, or at least no count.
  const first = fields.find((name) => /mean$/.test(name)) ?? fields.find((name) => !/count$/.test(name));
  options("field", fields, first ?? fields[0]);
  const seconds = RANGES.find(([name]) => name === $("range").value)?.[1] ?? 900;
  // The plot ends now while results are fresh, and at the newest result when they are not.
  const now = Date.now() / 1000;
  const to = Math.abs(now - series.latest) < Math.max(60, seconds / 5) ? Math.max(now, series.latest) : series.latest;
  let from = to - seconds;
  const keys = drawnKeys();
  const columns = series.columns(keys, chosen.get("field"), from);
  // Data that spans less than the chosen time still fills the plot.
  if (columns[0].length) from = Math.max(from, Math.min(columns[0][0], to - 30));
  else if (seconds === Infinity) from = to - 60;
  drawn = { keys, columns };
  chart.draw(keys, columns, from, to);
  showKeys();
  showCaption();
  const query = new URLSearchParams({ ...choice(), order: "latest", limit: 10000 });
  $("json").href = `/v1/results?${query}`;
  $("csv").href = `/v1/results?${query}&format=csv`;
  history.replaceState(null, "", `#${chosen}`);
}

function matching() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  return series.keys().filter((key) => words.every((word) => key.toLowerCase().includes(word)));
}

function drawnKeys() {
  return matching().filter((key) => !picked || picked.has(key)).slice(0, picked ? SERIES_MAX : DRAWN_AT_FIRST);
}

/** Returns the value of a key at the cursor, or the last one before it; without a cursor the newest. */
function valueOf(key) {
  const place = drawn.keys.indexOf(key);
  if (cursor === null || place < 0) return series.last(key, chosen.get("field"));
  const column = drawn.columns[place + 1];
  let at = cursor;
  while (at > 0 && column[at] === undefined) at -= 1;
  return column[at];
}

function timeUnderCursor() {
  return cursor === null ? undefined : drawn.columns[0][cursor];
}

function showKeys() {
  const keys = matching();
  const listed = keys.slice(0, LISTED_MAX);
  const list = $("keys");
  while (list.children.length > listed.length) list.lastChild.remove();
  while (list.children.length < listed.length) list.append(keyItem());
  listed.forEach((key, i) => {
    const button = list.children[i].firstChild;
    const [mark, name, value] = button.children;
    const colour = chart.colour(key);
    button.dataset.key = key;
    button.title = key;
    button.setAttribute("aria-pressed", String(colour !== undefined));
    mark.firstChild.style.fill = mark.firstChild.style.stroke = colour ?? "";
    name.textContent = key || "(no key)";
    value.textContent = measure(valueOf(key));
    const early = series.early(key, timeUnderCursor());
    value.classList.toggle("early", early);
    value.title = early ? "provisional: its window is still open" : "";
  });
  const rest = keys.length - listed.length + series.left;
  const shown = `${drawn.keys.length} of ${keys.length} drawn`;
  $("more").textContent = rest > 0 ? `${shown}, ${count(rest)} more not listed: filter` : shown;
  $("auto").hidden = !picked;
}

function keyItem() {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const circle = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  for (const [name, value] of [["cx", 6], ["cy", 6], ["r", 4.5]]) circle.setAttribute(name, value);
  svg.append(circle);
  button.append(svg, document.createElement("span"), document.createElement("output"));
  item.append(button);
  return item;
}

function showCaption() {
  const field = chosen.get("field") ?? "";
  const time = timeUnderCursor();
  const local = (seconds) => new Date(seconds * 1000).toLocaleString();
  const until = Number.isFinite(series.watermark) ? `, counted up to ${local(series.watermark)}` : "";
  const at = time === undefined ? until : ` at ${local(time)}`;
  $("caption").textContent = field ? `${field} per key${at}` : "";
}

function showAgents() {
  const some = agents.length > 0;
  $("empty").hidden = some;
  for (const id of ["tiles", "plot", "agents"]) $(id).hidden = !some;
  if (!some) {
    [loaded, after, totals] = ["", 0, []];
    return;
  }
  const sum = (name) => agents.reduce((all, agent) => all + agent[name], 0);
  const changes = sum("results") + sum("events") + sum("replaced") + sum("retracted");
  totals.push([performance.now() / 1000, changes]);
  while (totals.length > 2 && totals.at(-1)[0] - totals[0][0] > RATE_SECONDS) totals.shift();
  const [[since, before], [now, changed]] = [totals[0], totals.at(-1)];
  $("sum-readings").textContent = count(sum("readings"));
  $("sum-results").textContent = count(sum("results") + sum("events"));
  $("sum-rate").textContent = now > since ? count(Math.round((changed - before) / (now - since))) : "–";
  $("sum-late").textContent = `${count(sum("late"))} · ${count(sum("rejected"))}`;
  $("sum-duplicates").textContent = count(sum("duplicates"));
  $("rows").replaceChildren(...agents.map(agentRow));
}

function status(state, text) {
  $("status").dataset.state = state;
  $("status").textContent = text;
}

function pick(key) {
  const keys = new Set(drawn.keys);
  if (!keys.delete(key)) {
    if (keys.size >= SERIES_MAX) keys.delete([...keys].at(-1));
    keys.add(key);
  }
  picked = keys;
  show();
}

function listen() {
  $("range").replaceChildren(...RANGES.map(([name]) => new Option(name)));
  $("range").value = RANGES.some(([name]) => name === chosen.get("range")) ? chosen.get("range") : "15 minutes";
  $("range").addEventListener("change", () => {
    chosen.set("range", $("range").value);
    show();
  });
  for (const name of ["agent", "pipeline", "field"]) {
    $(name).addEventListener("change", async () => {
      chosen.set(name, $(name).value);
      if (name !== "field") picked = null;
      if (name === "agent") chosen.delete("pipeline");
      choose();
      await update().then(show, () => status("lost", "connection lost, trying again"));
    });
  }
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("filter").addEventListener("input", () => {
    picked = null;
    show();
  });
  $("auto").addEventListener("click", () => {
    picked = null;
    show();
  });
  $("keys").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) pick(button.dataset.key);
  });
  $("theme").addEventListener("click", () => {
    setTheme(theme() === "dark" ? "light" : "dark");
    localStorage.setItem("theme", theme());
    if (agents.length) show();
  });
  $("example").textContent = `[output.central]\nhttp = { url = "${location.origin}/v1/batches" }`;
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
}

const dark = matchMedia("(prefers-color-scheme: dark)");
setTheme(localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light"));
listen();
tick();
