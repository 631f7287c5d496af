// Count, mean, minimum, maximum and standard deviation of fields of the payload.
import { Result, Sample, Settings, State, Window, aggregate, reject } from "./headwater";
export * from "./headwater/aggregate";

/**
 * The summary of one field. `deviations` is the sum of the squared differences from the mean: kept so, it loses
 * no digits where a sum of squares would.
 */
@unmanaged
class Summary {
  count: u64;
  mean: f64;
  min: f64;
  max: f64;
  deviations: f64;
}

let fields: string[] = [];

function init(settings: Settings): void {
  fields = settings.texts("fields").sort();
  if (fields.length == 0) reject("`fields` is empty: name at least one");
  for (let i = 1; i < fields.length; i++) {
    if (fields[i] == fields[i - 1]) reject("`fields` has `" + fields[i] + "` twice");
  }
}

/** Returns the size of a state: a summary for each field, in the order of their names. */
function size(): i32 {
  return fields.length * offsetof<Summary>();
}

/** Takes a sample in. A field that is missing or no number is not counted; a sample with none is refused. */
function update(state: State, sample: Sample): void {
  let found = false;
  for (let i = 0; i < fields.length; i++) {
    const number = sample.findNumber(fields[i]);
    if (isNaN(number)) continue;
    add(state.part<Summary>(i), number);
    found = true;
  }
  if (!found) reject("no number in any of the fields");
}

/** Takes one more number in, after Welford, "Note on a method for calculating corrected sums of squares and products", 1962. */
function add(all: Summary, number: f64): void {
  if (all.count++ == 0) {
    all.mean = all.min = all.max = number;
    return;
  }
  const before = number - all.mean;
  all.mean += before / <f64>all.count;
  all.deviations += before * (number - all.mean);
  all.min = min(all.min, number);
  all.max = max(all.max, number);
}

function merge(state: State, other: State): void {
  for (let i = 0; i < fields.length; i++) join(state.part<Summary>(i), other.part<Summary>(i));
}

/**
 * Takes another summary in, after Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample
 * variances", 1979.
 */
function join(all: Summary, other: Summary): void {
  if (other.count == 0) return;
  if (all.count == 0) {
    all.min = all.max = other.min;
    all.mean = other.mean;
  }
  const count = all.count + other.count;
  const share = <f64>other.count / <f64>count;
  const apart = other.mean - all.mean;
  all.deviations += other.deviations + apart * apart * <f64>all.count * share;
  all.mean += apart * share;
  all.count = count;
  all.min = min(all.min, other.min);
  all.max = max(all.max, other.max);
}

function finish(window: Window, state: State, result: Result): void {
  for (let i = 0; i < fields.length; i++) {
    const all = state.part<Summary>(i);
    if (all.count == 0) continue;
    result.open(fields[i]);
    result.integer("count", all.count);
    result.number("mean", all.mean);
    result.number("min", all.min);
    result.number("max", all.max);
    result.number("stddev", sqrt(all.deviations / <f64>all.count));
    result.close();
  }
}

aggregate(init, size, update, merge, finish);
