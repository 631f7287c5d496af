// The types of headwater.js, for editors and TypeScript. Times are microseconds since the Unix epoch, UTC.

export interface Event {
  /** The MQTT topic it came from. */
  topic: string;
  /** What it belongs to: order, windows and state are kept per key. */
  key: string;
  time: number;
  /** JSON, unless the pipeline says otherwise. */
  payload: Uint8Array;
}

export interface Sample {
  time: number;
  payload: Uint8Array;
}

/** Half open: `start` belongs to it, `end` does not. */
export interface Window {
  key: string;
  window: { start: number; end: number };
  /** Readings used. */
  count: bigint | number;
  /** Of these, readings that came after the window had first closed. */
  late: bigint | number;
  /** 0 the first time, then one more with each time late readings change the result. */
  revision: number;
}

/** What `JSON.parse` gave, and nobody has looked at. */
export type Settings = { [name: string]: unknown };

export interface Aggregate<State> {
  /** The state of a window without samples: anything that JSON can say. */
  start(): State;
  /** Takes one more sample into the state, or throws and leaves the state as it was. */
  add(state: State, sample: Sample): void;
  /** Two partial states as one. */
  merge(a: State, b: State): State;
  /** The result of a closed window: anything that JSON can say. */
  finish(state: State, window: Window): unknown;
}

export function transform(configure: (settings: Settings) => (event: Event) => Event | Event[] | null | undefined | void): {
  init(config: string): void;
  process(events: Event[]): unknown;
};

export function aggregate<State>(configure: (settings: Settings) => Aggregate<State>): {
  init(config: string): void;
  update(groups: unknown[]): unknown;
  merge(a: Uint8Array, b: Uint8Array): Uint8Array;
  finish(windows: unknown[]): Uint8Array[];
};

/** The payload of an event or a sample as a JSON object. */
export function parse(from: { payload: Uint8Array }): { [name: string]: unknown };

/** The number in a field of a parsed payload; `undefined` if it is missing or no finite number. */
export function number(object: { [name: string]: unknown }, field: string): number | undefined;

/** The event with another number in the field; all else stays as it is, byte for byte. */
export function mapNumber(event: Event, field: string, map: (number: number) => number): Event;

/** The event with that number in the field, which is added if it is not there; all else stays as it is, byte for byte. */
export function setNumber(event: Event, field: string, number: number): Event;

/** UTF-8 to text. */
export function text(utf8: Uint8Array): string;

/** Text to UTF-8. */
export function bytes(written: string): Uint8Array;

/** Lines in the agent's log. */
export const log: Record<"debug" | "info" | "warn" | "error", (...parts: unknown[]) => void>;
