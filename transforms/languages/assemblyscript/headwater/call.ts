// The parts that all calls share, by the canonical ABI of the component model: reasons, answers, the log.
import { Text, allocate } from "./memory";
import { forget } from "./json";

let reason: string = "";
let isRejected = false;

/**
 * Sends the event or sample at hand to the dead letters with this reason; in `init`, it makes a fault of the
 * configuration. The first reason counts.
 */
export function reject(why: string): void {
  if (isRejected) return;
  reason = why;
  isRejected = true;
}

export function rejected(): bool {
  return isRejected;
}

export function begin(): void {
  isRejected = false;
  forget();
}

let ready = false;

/** Ends `init`. */
export function initialized(): void {
  ready = !isRejected;
}

/** Begins a call; false, and rejected, before an `init` that succeeded. */
export function started(): bool {
  begin();
  if (!ready) reject("called before `init`");
  return ready;
}

export enum Level { debug, info, warn, error }

@external("headwater:module/logging@0.1.0", "log")
declare function agentLog(level: i32, line: usize, size: usize): void;

/** Writes a line in the agent's log. */
export function log(level: Level, line: string): void {
  if (!isRejected) write(level, line);
}

function write(level: Level, line: string): void {
  const text = changetype<Text>(allocate(8));
  text.setString(line);
  agentLog(level, text.data, text.size);
}

/** Ends the call at a failed assertion. Its message reaches the dead letters by the log, since a trap has none. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const why = message === null ? "aborted" : message;
  const place = file === null ? "" : ` in ${file}:${line}:${column}`;
  write(Level.error, why + place);
  unreachable();
}

/** Rejections of a call, in the order of their indexes. */
@unmanaged
export class Rejections {
  data: usize;
  size: usize;

  static upTo(count: usize): Rejections {
    const all = changetype<Rejections>(allocate(8));
    all.data = allocate(count * 12);
    all.size = 0;
    return all;
  }

  /** Adds the reason at hand for the input of that index. */
  add(index: u32): void {
    const at = this.data + this.size * 12;
    store<u32>(at, index);
    changetype<Text>(at + 4).setString(reason);
    this.size++;
  }
}

const answer = memory.data(20, 4);

export function answerWith(data: usize, size: usize, rejections: usize = 0, count: usize = 0): usize {
  store<u32>(answer, 0);
  changetype<Text>(answer + 4).set(data, size);
  changetype<Text>(answer + 12).set(rejections, count);
  return answer;
}

export function answerFailed(): usize {
  store<u32>(answer, 1);
  changetype<Text>(answer + 4).setString(reason);
  return answer;
}

export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  const data = allocate(size);
  if (oldSize != 0) memory.copy(data, old, min(oldSize, size));
  return data;
}
