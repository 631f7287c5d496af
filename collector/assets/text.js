// Texts for people: numbers, times, and rows of the tables.

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 });
const exact = new Intl.NumberFormat("en", { maximumSignificantDigits: 5 });
const STALE_SECONDS = 60;

/** Returns the text of a count. */
export function count(value) {
  return value < 10_000_000 ? whole.format(value) : short.format(value);
}

/** Returns the text of a measured value; empty if there is none. */
export function measure(value) {
  if (value === undefined || value === null) return "";
  const size = Math.abs(value);
  return size !== 0 && (size >= 1e9 || size < 1e-4) ? value.toExponential(3) : exact.format(value);
}

/** Returns the text of a time that has passed, in seconds. */
export function span(seconds) {
  if (seconds < 2) return "now";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${Math.floor(seconds)} s ago`;
}

/**
 * Makes the row of an agent. Its watermark is that of the epoch seen last, because sequence numbers start
 * again with each epoch.
 */
export function agentRow(agent) {
  const row = document.createElement("tr");
  const cell = (text, name = "number") => {
    const cell = row.insertCell();
    cell.className = name;
    cell.textContent = text;
    return cell;
  };
  cell(agent.agent, "");
  const seconds = (Date.now() - Date.parse(agent.last_seen)) / 1000;
  const seen = cell(span(seconds), seconds > STALE_SECONDS ? "stale" : "");
  seen.title = agent.last_seen;
  for (const name of ["readings", "results", "early", "events", "late", "late_readings", "rejected", "replaced", "retracted", "batches", "duplicates"]) {
    cell(count(agent[name]));
  }
  const [epoch] = agent.epochs;
  cell(epoch?.watermark == null ? "–" : count(epoch.watermark)).title = epoch ? `epoch ${epoch.epoch}` : "";
  cell(count(agent.epochs.reduce((gaps, epoch) => gaps + epoch.gaps, 0)));
  return row;
}

/** Makes the row of a report. */
export function reportRow({ agent, pipeline, time, report }) {
  const row = document.createElement("tr");
  const fate = [report.kind, report.stage && `in ${report.stage}`].filter(Boolean).join(" ");
  for (const text of [agent, pipeline ?? "all", time, fate]) row.insertCell().textContent = text;
  const records = row.insertCell();
  records.className = "number";
  records.textContent = report.count == null ? "–" : count(report.count);
  row.insertCell().textContent = report.reason ?? "";
  return row;
}
