// The event that `process` gets, and the events that it hands on.
import { reject, rejected } from "./call";
import { Settings } from "./settings";
import { Text, allocate } from "./memory";
import { number, text, withNumber, writtenSize } from "./json";

/** The record as it lies in memory. */
@unmanaged
class Record {
  topic: usize;
  topicSize: usize;
  key: usize;
  keySize: usize;
  time: u64;
  payload: usize;
  payloadSize: usize;
}

export const EVENT_BYTES: usize = offsetof<Record>();

export class Event {
  private record: Record = changetype<Record>(0);

  /** The MQTT topic it came from. */
  get topic(): string { return this.at(offsetof<Record>("topic")).toString(); }
  set topic(topic: string) { this.at(offsetof<Record>("topic")).setString(topic); }

  /** The key that it belongs to: order, windows and state are kept per key. */
  get key(): string { return this.at(offsetof<Record>("key")).toString(); }
  set key(key: string) { this.at(offsetof<Record>("key")).setString(key); }

  /** The event time in microseconds since the Unix epoch, UTC. */
  get time(): u64 { return this.record.time; }
  set time(time: u64) { this.record.time = time; }

  /** The content: JSON, unless the pipeline says otherwise. */
  get payload(): string { return this.at(offsetof<Record>("payload")).toString(); }
  set payload(payload: string) { this.at(offsetof<Record>("payload")).setString(payload); }

  /** Returns the number in a field of the payload, which has to be finite. */
  number(field: string): f64 { return number(this.record.payload, this.record.payloadSize, field); }

  /** Returns the text in a field of the payload. */
  text(field: string): string { return text(this.record.payload, this.record.payloadSize, field); }

  /**
   * Sets the number in a field, which is added if it is not there; the rest of the payload stays as it is, byte for
   * byte.
   */
  setNumber(field: string, value: f64): void {
    this.record.payload = withNumber(this.record.payload, this.record.payloadSize, field, value);
    this.record.payloadSize = writtenSize();
  }

  private at(offset: usize): Text { return changetype<Text>(changetype<usize>(this.record) + offset); }

  /** For the calls alone. */
  static over(event: Event, record: usize): void { event.record = changetype<Record>(record); }
  static copy(event: Event, to: usize): void { memory.copy(to, changetype<usize>(event.record), EVENT_BYTES); }
}

let out: usize = 0;
let outCount: usize = 0;
let outRoom: usize = 0;

/**
 * Hands an event on. `process` calls it once to pass the event on, not at all to drop it, several times to split it;
 * what is emitted is as it is then. An event that is rejected gives nothing, whatever it emitted before.
 */
export function emit(event: Event): void {
  if (rejected()) return;
  if (outCount == outRoom) {
    outRoom = max<usize>(outRoom * 2, 16);
    const larger = allocate(outRoom * EVENT_BYTES);
    memory.copy(larger, out, outCount * EVENT_BYTES);
    out = larger;
  }
  Event.copy(event, out + outCount++ * EVENT_BYTES);
}

/** Makes room for as many events as came, which is most often all that is needed. */
export function beginOut(room: usize): void {
  out = allocate(room * EVENT_BYTES);
  outRoom = room;
  outCount = 0;
}

/** Takes back what a rejected event emitted. */
export function cutOut(count: usize): void { outCount = count; }
export function outEvents(): usize { return out; }
export function outSize(): usize { return outCount; }

export let initWith: (settings: Settings) => void = (_: Settings) => {
  reject("there is no transform in the module: end its file with `transform(init, process);`");
};
export let processWith: (event: Event) => void = (_: Event) => {};

/** Makes the module of these two functions. */
export function transform(init: (settings: Settings) => void, process: (event: Event) => void): void {
  initWith = init;
  processWith = process;
}
