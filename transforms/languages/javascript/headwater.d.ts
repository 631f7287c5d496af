// The types of headwater.js, for editors and TypeScript. Times are microseconds since the Unix epoch, UTC; a thrown error
// rejects the event or sample at hand.

export interface Event {
  /** The MQTT topic it came from. */
  topic: string;
  /** The key that it belongs to: order, windows and state are kept per key. */
  key: string;
  /** The event time. */
  time: number;
  /** The content: JSON, unless the pipeline says otherwise. */
  payload: Uint8Array;
}

/** An event of one window. */
export interface Sample {
  time: number;
  payload: Uint8Array;
}

/** A closed window, half open: `start` belongs to it, `end` does not. */
export interface Window {
  key: string;
  window: { start: number; end: number };
  /** The number of samples used. */
  count: bigint | number;
  /** The number of samples among them that came after the window had first closed. */
  late: bigint | number;
  /** 0 the first time, then one more each time late samples change the result. */
  revision: number;
}

/** The module's settings as `JSON.parse` gives them, not checked yet. */
export type Settings = { [name: string]: unknown };

export interface Aggregate<State> {
  /** Returns the state of a window without samples: anything that JSON can say. */
  start(): State;
  /** Takes one more sample into the state, or throws and leaves the state as it was. */
  add(state: State, sample: Sample): void;
  /** Makes one state of two of the same key. */
  merge(a: State, b: State): State;
  /** Returns the result of a closed window: anything that JSON can say. */
  finish(state: State, window: Window): unknown;
}

/**
 * Makes the module's exports of a function from the settings to the function for one event, which returns that event,
 * nothing, or an array of events.
 */
export function transform(configure: (settings: Settings) => (event: Event) => Event | Event[] | null | undefined | void): {
  init(config: string): void;
  process(events: Event[]): unknown;
};

/** Makes the module's exports of a function from the settings to the four functions of an aggregate. */
export function aggregate<State>(configure: (settings: Settings) => Aggregate<State>): {
  init(config: string): void;
  update(groups: unknown[]): unknown;
  merge(a: Uint8Array, b: Uint8Array): Uint8Array;
  finish(windows: unknown[]): Uint8Array[];
};

/** Returns the payload of an event or a sample as a JSON object; throws if it is none. */
export function parse(from: { payload: Uint8Array }): { [name: string]: unknown };

/** Returns the number in a field of a parsed payload; `undefined` if it is missing or no finite number. */
export function number(object: { [name: string]: unknown }, field: string): number | undefined;

/**
 * Returns the event with another number in the field; all else stays as it is, byte for byte. Throws if the field is
 * missing, there twice or no number, or the new one is not finite.
 */
export function mapNumber(event: Event, field: string, map: (number: number) => number): Event;

/**
 * Returns the event with that number in the field, which is added if it is not there; all else stays as it is, byte for
 * byte. Throws if the field is there twice or the number is not finite.
 */
export function setNumber(event: Event, field: string, number: number): Event;

/** Returns the text of UTF-8. */
export function text(utf8: Uint8Array): string;

/** Returns the UTF-8 of a text. */
export function bytes(written: string): Uint8Array;

/** Lines in the agent's log. */
export const log: Record<"debug" | "info" | "warn" | "error", (...parts: unknown[]) => void>;
