// The calls of the world `aggregate`, which the module's file exports.
import { Rejections, answerFailed, answerWith, begin, initialized, reject, rejected, started } from "./call";
import {
  SAMPLE_BYTES, Sample, State, Window, finishWith, initWith, mergeWith, sizeWith, updateWith,
} from "./sample";
import { Settings } from "./settings";
import { Text, allocate, decode, release } from "./memory";
import { Result, beginResult, endResult } from "./result";
export { cabi_realloc } from "./call";

/** The records as they lie in memory: a group, the answer of `update` for it, and a closed window. */
@unmanaged
class Group { key: usize; keySize: usize; start: u64; end: u64; state: usize; stateSize: usize; samples: usize; count: usize; }
@unmanaged
class Updated { state: usize; stateSize: usize; rejected: usize; rejectedCount: usize; }
@unmanaged
class Closed {
  key: usize; keySize: usize; start: u64; end: u64; state: usize; stateSize: usize;
  count: u64; late: u64; revision: u32;
}

// A state is only good for the settings that it was made with: it begins with their hash (FNV-1a).
let madeWith: u64 = 0;
const HASH: usize = 8;
// The size of a state, without the hash.
let bytes: usize = 0;

export function init(data: usize, size: usize): usize {
  madeWith = 0xcbf29ce484222325;
  for (let i: usize = 0; i < size; i++) madeWith = (madeWith ^ load<u8>(data + i)) * 0x100000001b3;
  Settings.read(data, size, initWith);
  initialized();
  if (rejected()) return answerFailed();
  bytes = sizeWith();
  return answerWith(0, 0);
}

/** Copies a state; zeros where there is none yet; 0, and rejected, where the bytes are no state. */
function opened(data: usize, size: usize): usize {
  const copy = allocate(HASH + bytes);
  memory.fill(copy, 0, HASH + bytes);
  store<u64>(copy, madeWith);
  if (size == 0) return copy;
  if (size != HASH + bytes) reject(`the state has ${size} bytes, not ${HASH + bytes}`);
  else if (load<u64>(data) != madeWith) reject("the state was made with other settings");
  if (rejected()) return 0;
  memory.copy(copy, data, size);
  return copy;
}

const sample = new Sample(), state = new State(), other = new State();

function updated(group: Group, answer: Updated): void {
  begin();
  const kept = opened(group.state, group.stateSize);
  if (kept == 0) return;
  const before = allocate(bytes);
  const rejections = Rejections.upTo(group.count);
  State.over(state, kept + HASH, bytes);
  for (let i: usize = 0; i < group.count; i++) {
    begin();
    memory.copy(before, kept + HASH, bytes);
    Sample.over(sample, group.samples + i * SAMPLE_BYTES);
    updateWith(state, sample);
    if (!rejected()) continue;
    memory.copy(kept + HASH, before, bytes);
    rejections.add(<u32>i);
  }
  begin();
  answer.state = kept;
  answer.stateSize = HASH + bytes;
  answer.rejected = rejections.data;
  answer.rejectedCount = rejections.size;
}

export function update(groups: usize, count: usize): usize {
  if (!started()) return answerFailed();
  const all = allocate(count * offsetof<Updated>());
  for (let i: usize = 0; i < count; i++) {
    updated(changetype<Group>(groups + i * offsetof<Group>()), changetype<Updated>(all + i * offsetof<Updated>()));
    if (rejected()) return answerFailed();
  }
  return answerWith(all, count);
}

export function merge(a: usize, aSize: usize, b: usize, bSize: usize): usize {
  if (!started()) return answerFailed();
  const kept = opened(a, aSize);
  const added = opened(b, bSize);
  if (rejected()) return answerFailed();
  State.over(state, kept + HASH, bytes);
  State.over(other, added + HASH, bytes);
  mergeWith(state, other);
  return rejected() ? answerFailed() : answerWith(kept, HASH + bytes);
}

export function finish(windows: usize, count: usize): usize {
  if (!started()) return answerFailed();
  const all = allocate(count * offsetof<Text>());
  for (let i: usize = 0; i < count; i++) {
    begin();
    const closed = changetype<Closed>(windows + i * 56);
    const kept = opened(closed.state, closed.stateSize);
    if (rejected()) return answerFailed();
    const window = new Window();
    window.key = decode(closed.key, closed.keySize);
    window.start = closed.start;
    window.end = closed.end;
    window.count = closed.count;
    window.late = closed.late;
    window.revision = closed.revision;
    State.over(state, kept + HASH, bytes);
    beginResult();
    finishWith(window, state, new Result());
    if (rejected()) return answerFailed();
    endResult(all + i * offsetof<Text>());
  }
  return answerWith(all, count);
}

export function cabi_post_init(_: usize): void { release(); }
export function cabi_post_update(_: usize): void { release(); }
export function cabi_post_merge(_: usize): void { release(); }
export function cabi_post_finish(_: usize): void { release(); }
