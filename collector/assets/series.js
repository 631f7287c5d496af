// The points of one agent and pipeline: pure, knows neither the network nor the page.
// Bounded: so many keys, so many points of each; beyond, keys are only counted and the oldest points go.

const KEYS_MAX = 2000;
const POINTS_MAX = 4000;
const FIELDS_MAX = 64;
const DEPTH_MAX = 4;
// A series is interrupted where this many of its usual steps are missing.
const GAP_STEPS = 3.5;

/** Every number of a JSON value, by its dotted path. */
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

/** Where a result is plotted, in seconds: a window at its end, when its result is known. */
export function timeOf(row) {
  return Date.parse(row.window ? row.window.end : row.time) / 1000;
}

export class Series {
  #keys = new Map();
  #fields = new Map();
  /** Keys there was no room for. */
  left = 0;
  /** Time of the newest point, in seconds. */
  latest = -Infinity;

  /** Takes rows in any order; a later row of the same time replaces the earlier one. */
  add(rows) {
    for (const row of [...rows].sort((a, b) => a.change - b.change)) {
      const time = timeOf(row);
      const points = this.#points(row.key);
      if (!points || !Number.isFinite(time)) continue;
      const values = numbers(row.value);
      for (const field of Object.keys(values)) {
        if (this.#fields.size < FIELDS_MAX) this.#fields.set(field, true);
      }
      points.put(time, values);
      this.latest = Math.max(this.latest, time);
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

  /** Numeric fields, in the order they were first seen. */
  fields() {
    return [...this.#fields.keys()];
  }

  /** Keys in natural order: sensor-2 before sensor-10. */
  keys() {
    return [...this.#keys.keys()].sort(collator.compare);
  }

  /** The newest value of a key. */
  last(key, field) {
    const points = this.#keys.get(key);
    return points?.values.get(points.times().at(-1))?.[field];
  }

  /**
   * Columns for uPlot: all times, then each key's values. `null` interrupts a line, `undefined`
   * (another key's time) does not.
   */
  columns(keys, field, from) {
    const lines = keys.map((key) => this.#keys.get(key)?.line(field, from) ?? new Map());
    const times = [...new Set(lines.flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
    return [times, ...lines.map((line) => times.map((time) => line.get(time)))];
  }
}

const collator = new Intl.Collator("en", { numeric: true });

class Points {
  values = new Map();
  #times = [];
  #sorted = true;

  put(time, values) {
    if (!this.values.has(time)) {
      this.#sorted &&= !(time < this.#times.at(-1));
      this.#times.push(time);
    }
    this.values.set(time, values);
    if (this.#times.length > POINTS_MAX * 1.1) {
      const old = this.times().splice(0, this.#times.length - POINTS_MAX);
      old.forEach((time) => this.values.delete(time));
    }
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
      line.set(time, this.values.get(time)[field] ?? null);
    });
    return line;
  }
}

/** The median distance of the newest points. */
function step(times) {
  const recent = times.slice(-100);
  const steps = recent.slice(1).map((time, i) => time - recent[i]).sort((a, b) => a - b);
  return steps.length ? steps[steps.length >> 1] : Infinity;
}
