// The values that the functions of an aggregate get.
import { reject } from "./call";
import { Settings } from "./settings";
import { Result } from "./result";
import { decode } from "./memory";
import { findNumber, number, text } from "./json";

/** The record as it lies in memory. */
@unmanaged
class SampleRecord { time: u64; payload: usize; payloadSize: usize; }

export const SAMPLE_BYTES: usize = offsetof<SampleRecord>();

export class Sample {
  private record: SampleRecord = changetype<SampleRecord>(0);

  /** Event time in microseconds since the Unix epoch. */
  get time(): u64 { return this.record.time; }
  get payload(): string { return decode(this.record.payload, this.record.payloadSize); }

  /** The finite number in a field of the payload. */
  number(field: string): f64 { return number(this.record.payload, this.record.payloadSize, field); }

  /** The same, NaN where it is missing or none: only a payload that is no object is rejected. */
  findNumber(field: string): f64 { return findNumber(this.record.payload, this.record.payloadSize, field); }

  text(field: string): string { return text(this.record.payload, this.record.payloadSize, field); }

  /** For the calls alone. */
  static over(sample: Sample, record: usize): void { sample.record = changetype<SampleRecord>(record); }
}

/** A closed window, half open: `start` belongs to it, `end` does not. */
export class Window {
  key: string = "";
  start: u64 = 0;
  end: u64 = 0;
  /** Readings used, and how many of them came after it had first closed. */
  count: u64 = 0;
  late: u64 = 0;
  revision: u32 = 0;
}

/** The bytes that the agent keeps: a row of `@unmanaged` objects, all zeros at first. */
export class State {
  private data: usize = 0;
  private size: usize = 0;

  /** The one with this number. It has numbers in it only, no strings or other objects. */
  part<T>(index: i32): T {
    assert(<usize>index * offsetof<T>() + offsetof<T>() <= this.size, "no such part of the state");
    return changetype<T>(this.data + <usize>index * offsetof<T>());
  }

  /** For the calls alone. */
  static over(state: State, data: usize, size: usize): void {
    state.data = data;
    state.size = size;
  }
}

export let initWith: (settings: Settings) => void = (_: Settings) => {
  reject("there is no aggregate in the module: end its file with `aggregate(init, size, update, merge, finish);`");
};
export let sizeWith: () => i32 = () => 0;
export let updateWith: (state: State, sample: Sample) => void = (_: State, __: Sample) => {};
export let mergeWith: (state: State, other: State) => void = (_: State, __: State) => {};
export let finishWith: (window: Window, state: State, result: Result) => void = (_: Window, __: State, ___: Result) => {};

/**
 * Makes the module of these functions; `size` gives the bytes of a state, once `init` was called.
 * An `update` that rejects its sample leaves the state as it was.
 */
export function aggregate(
  init: (settings: Settings) => void,
  size: () => i32,
  update: (state: State, sample: Sample) => void,
  merge: (state: State, other: State) => void,
  finish: (window: Window, state: State, result: Result) => void,
): void {
  initWith = init;
  sizeWith = size;
  updateWith = update;
  mergeWith = merge;
  finishWith = finish;
}
