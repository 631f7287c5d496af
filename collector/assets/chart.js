// The plot: a thin layer over uPlot that redraws columns and reports the position of the cursor.

const HEIGHT_MIN = 200;
const COLOURS = {
  light: ["#0b7285", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#1971c2", "#b08900", "#862e9c", "#087f5b", "#c92a2a", "#495057", "#66a80f"],
  dark: ["#3bc9db", "#ff922b", "#b197fc", "#69db7c", "#f783ac", "#74c0fc", "#ffd43b", "#da77f2", "#38d9a9", "#ff8787", "#ced4da", "#a9e34b"],
};

/** Most lines in the plot: as many as there are colours that can be told apart. */
export const SERIES_MAX = COLOURS.light.length;

export class Chart {
  #element;
  #plot;
  #shape = "";
  #slots = new Map();
  #note;

  /** Draws into `element`. `onCursor` gets the index of the column under the cursor, or null. */
  constructor(element, onCursor) {
    this.#element = element;
    this.onCursor = onCursor;
    this.#note = Object.assign(document.createElement("p"), { className: "note" });
    element.append(this.#note);
    new ResizeObserver(() => this.#plot?.setSize(this.#size())).observe(element);
  }

  /** Returns the colour of a key, which it keeps for as long as it is drawn. */
  colour(key) {
    const slot = this.#slots.get(key);
    return slot === undefined ? undefined : COLOURS[theme()][slot];
  }

  #assign(keys) {
    for (const key of [...this.#slots.keys()]) {
      if (!keys.includes(key)) this.#slots.delete(key);
    }
    const taken = new Set(this.#slots.values());
    for (const key of keys) {
      if (this.#slots.has(key)) continue;
      const free = COLOURS.light.findIndex((_, slot) => !taken.has(slot));
      this.#slots.set(key, free);
      taken.add(free);
    }
  }

  draw(keys, columns, from, to) {
    this.#assign(keys);
    this.#note.textContent = columns[0].length ? "" : "No numbers in this time";
    this.range = [from, to];
    const shape = JSON.stringify([theme(), keys]);
    if (shape !== this.#shape) {
      this.#shape = shape;
      this.#plot?.destroy();
      this.#plot = new uPlot(this.#options(keys), columns, this.#element);
    } else {
      this.#plot.setData(columns);
    }
  }

  #size() {
    return { width: this.#element.clientWidth, height: Math.max(HEIGHT_MIN, this.#element.clientHeight) };
  }

  #options(keys) {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: colour("--dim"),
      grid: { stroke: colour("--grid"), width: 1 },
      ticks: { stroke: colour("--grid"), width: 1, size: 5 },
      font: "12px system-ui, sans-serif",
    };
    const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
    const seconds = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
    const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
    const label = (time, step) => {
      const date = new Date(time * 1000);
      const midnight = date.getHours() === 0 && date.getMinutes() === 0 && step >= 3600;
      return (midnight || step >= 86400 ? day : step < 60 ? seconds : clock).format(date);
    };
    return {
      ...this.#size(),
      scales: { x: { time: true, range: () => this.range } },
      axes: [
        { ...axis, values: (_, splits, __, ___, step) => splits.map((time) => label(time, step)), space: 80 },
        { ...axis, size: 64, values: (_, splits) => splits.map(plain) },
      ],
      legend: { show: false },
      cursor: { points: { size: 7 }, drag: { x: false, y: false } },
      hooks: { setCursor: [(plot) => this.onCursor(plot.cursor.idx ?? null)] },
      series: [
        {},
        ...keys.map((key) => ({
          label: key,
          stroke: this.colour(key),
          width: 1.75,
          points: { show: (plot) => plot.data[0].length < 60, size: 4 },
        })),
      ],
    };
  }
}

const axisNumber = new Intl.NumberFormat("en", { maximumSignificantDigits: 6, notation: "compact" });

function plain(value) {
  return value === null ? "" : axisNumber.format(value);
}

/** Returns the current theme of the page: light or dark. */
export function theme() {
  return document.documentElement.dataset.theme === "dark" ? "dark" : "light";
}
