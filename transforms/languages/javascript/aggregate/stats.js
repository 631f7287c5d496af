import { aggregate, number, parse } from "./headwater.js";

export const { init, update, merge, finish } = aggregate(({ fields, ...others }) => {
  if (!Array.isArray(fields) || fields.some((field) => typeof field !== "string")) {
    throw new Error("`fields` is no list of texts: name the fields");
  }
  if (fields.length === 0) throw new Error("`fields` is empty: name at least one");
  if (new Set(fields).size < fields.length) throw new Error("`fields` has a name twice");
  for (const other in others) throw new Error(`\`${other}\` is unknown`);

  return {
    /** The state of a window without samples: no summary of any field. */
    start: () => ({ __proto__: null }),

    /** A field that is missing or no number is not counted; a sample with none is refused. */
    add: (state, sample) => {
      const object = parse(sample);
      const seen = fields.filter((field) => number(object, field) !== undefined);
      if (seen.length === 0) throw new Error(`no number in any of ${JSON.stringify(fields)}`);
      for (const field of seen) state[field] = including(state[field], object[field]);
    },

    merge: (a, b) => {
      const all = { __proto__: null, ...a };
      for (const field in b) all[field] = all[field] ? joined(all[field], b[field]) : b[field];
      return all;
    },

    finish: (state) => {
      const fields = Object.keys(state).sort();
      return Object.fromEntries(fields.map((field) => [field, report(state[field])]));
    },
  };
});

/** Welford, "Note on a method for calculating corrected sums of squares and products", 1962. */
const including = (summary, value) => {
  if (!summary) return { count: 1, mean: value, min: value, max: value, deviations: 0 };
  const before = value - summary.mean;
  const count = summary.count + 1;
  const mean = summary.mean + before / count;
  return {
    count,
    mean,
    min: Math.min(summary.min, value),
    max: Math.max(summary.max, value),
    deviations: summary.deviations + before * (value - mean),
  };
};

/** Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979. */
const joined = (a, b) => {
  const count = a.count + b.count;
  const share = b.count / count;
  const apart = b.mean - a.mean;
  return {
    count,
    mean: a.mean + apart * share,
    min: Math.min(a.min, b.min),
    max: Math.max(a.max, b.max),
    deviations: a.deviations + (b.deviations + apart * apart * a.count * share),
  };
};

const report = ({ count, mean, min, max, deviations }) => ({ count, mean, min, max, stddev: Math.sqrt(deviations / count) });
