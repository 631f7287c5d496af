// The points of one agent and pipeline; pure, without network or page.
// Limits: further keys are only counted, and the oldest points of a key are dropped.

const KEYS_MAX = 2000;
const POINTS_MAX = 4000;
const FIELDS_MAX = 64;
const DEPTH_MAX = 4;
// A line is interrupted at a gap of this many of its usual steps.
const GAP_STEPS = 3.5;

/** Returns all numbers of a JSON value, by their dotted paths. */
export function numbers(value, path = "", found = {}, depth = 0) {
  if (typeof value === "number") {
    found[path || "value"] = value;
  } else if (value && typeof value === "object" && !Array.isArray(value) && depth < DEPTH_MAX) {
    for (const [name, inner] of Object.entries(value)) {
      numbers(inner, path ? `${path}.${name}` : name, found, depth + 1);
    }
  }
  return found;
}

/** Returns the time at which a result is plotted, in seconds: that of a window is its end. */
export function timeOf(row) {
  return Date.parse(row.window ? row.window.end : row.time) / 1000;
}

/** Returns the identity of a result among those of its key; a later row replaces an earlier one. */
function identity({ window }) {
  return window ? `${window.start} ${window.part ?? 0}` : "";
}

export class Series {
  #keys = new Map();
  #fields = new Map();
  /** The number of keys for which there was no room. */
  left = 0;
  /** The time of the newest point, in seconds. */
  latest = -Infinity;
  /** The newest watermark, in seconds. */
  watermark = -Infinity;

  /** Adds rows and applies retractions, each list in any order. */
  add(rows, retracted = []) {
    for (const row of rows) {
      const time = timeOf(row);
      const points = this.#points(row.key);
      if (!points || !Number.isFinite(time)) continue;
      const values = numbers(row.value);
      for (const field of Object.keys(values)) {
        if (this.#fields.size < FIELDS_MAX) this.#fields.set(field, true);
      }
      points.put(time, identity(row), { values, change: row.change, early: row.early === true });
      this.latest = Math.max(this.latest, time);
      if (row.watermark) this.watermark = Math.max(this.watermark, Date.parse(row.watermark) / 1000);
    }
    for (const row of retracted) {
      this.#keys.get(row.key)?.remove(timeOf(row), identity(row), row.change);
    }
  }

  #points(key) {
    let points = this.#keys.get(key);
    if (!points) {
      if (this.#keys.size >= KEYS_MAX) {
        this.left += 1;
        return undefined;
      }
      points = new Points();
      this.#keys.set(key, points);
    }
    return points;
  }

  /** Returns the numeric fields in the order in which they first came. */
  fields() {
    return [...this.#fields.keys()];
  }

  /** Returns the keys in natural order: sensor-2 before sensor-10. */
  keys() {
    return [...this.#keys.keys()].sort(collator.compare);
  }

  /** Returns the newest value of a key. */
  last(key, field) {
    const points = this.#keys.get(key);
    return points?.at(points.times().at(-1))?.values[field];
  }

  /** Returns true if the value of a key at this time, or else its newest, is provisional. */
  early(key, time) {
    const points = this.#keys.get(key);
    return points?.at(time ?? points.times().at(-1))?.early ?? false;
  }

  /**
   * Returns the columns for uPlot: all times, then the values of each key. `null` interrupts a line,
   * `undefined` (the time of another key) does not.
   */
  columns(keys, field, from) {
    const lines = keys.map((key) => this.#keys.get(key)?.line(field, from) ?? new Map());
    const times = [...new Set(lines.flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
    return [times, ...lines.map((line) => times.map((time) => line.get(time)))];
  }
}

const collator = new Intl.Collator("en", { numeric: true });

/** The points of one key. Several results may share a time: parts of a window, or joined sessions. */
class Points {
  #points = new Map();
  #times = [];
  #sorted = true;

  /** Returns the point drawn at a time: the newest result there. */
  at(time) {
    const [first, ...others] = this.#points.get(time)?.values() ?? [];
    return others.reduce((newest, point) => (point.change > newest.change ? point : newest), first);
  }

  put(time, identity, point) {
    let here = this.#points.get(time);
    if (!here) {
      this.#sorted &&= !(time < this.#times.at(-1));
      this.#times.push(time);
      this.#points.set(time, (here = new Map()));
    }
    if (!(here.get(identity)?.change > point.change)) here.set(identity, point);
    if (this.#times.length > POINTS_MAX * 1.1) {
      const old = this.times().splice(0, this.#times.length - POINTS_MAX);
      old.forEach((time) => this.#points.delete(time));
    }
  }

  /** Removes a result, unless it is newer than its retraction. */
  remove(time, identity, change) {
    const here = this.#points.get(time);
    if (!here || here.get(identity)?.change > change) return;
    here.delete(identity);
    if (here.size) return;
    this.#points.delete(time);
    this.#times = this.#times.filter((other) => other !== time);
  }

  times() {
    if (!this.#sorted) this.#times.sort((a, b) => a - b);
    this.#sorted = true;
    return this.#times;
  }

  line(field, from) {
    const times = this.times().filter((time) => time >= from);
    const gap = GAP_STEPS * step(times);
    const line = new Map();
    times.forEach((time, i) => {
      if (i > 0 && time - times[i - 1] > gap) line.set((time + times[i - 1]) / 2, null);
      line.set(time, this.at(time).values[field] ?? null);
    });
    return line;
  }
}

/** Returns the median distance between the newest points, in seconds. */
function step(times) {
  const recent = times.slice(-100);
  const steps = recent.slice(1).map((time, i) => time - recent[i]).sort((a, b) => a - b);
  return steps.length ? steps[steps.length >> 1] : Infinity;
}
