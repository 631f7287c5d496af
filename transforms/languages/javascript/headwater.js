// The SDK for Headwater modules in JavaScript and TypeScript: the calls of the contract, which come in batches, become
// one function per event. An event that cannot be used is a thrown error: it goes to the dead letters with its message.
//
// The agent may throw an instance away at any moment: data that must last belongs in an aggregate's state. There is no
// network, no file and no clock, so that a recomputation gives the same result.

import { log as write } from "headwater:module/logging@0.1.0";

/** Lines in the agent's log. */
export const log = {
  debug: (...parts) => write("debug", parts.join(" ")),
  info: (...parts) => write("info", parts.join(" ")),
  warn: (...parts) => write("warn", parts.join(" ")),
  error: (...parts) => write("error", parts.join(" ")),
};
globalThis.console ??= { ...log, log: log.info };

// The engine would end the call for these, without a word.
const noClock = () => {
  throw new Error("there is no clock: take the time of the event");
};
globalThis.Date = class extends Date {
  static now = noClock;
  constructor(...given) {
    super(...(given.length ? given : noClock()));
  }
};
globalThis.performance = { now: noClock };

/**
 * Makes the module's exports of a function from the settings to the function for one event, which returns that event,
 * nothing (`undefined` or `null`), or an array of events.
 */
export const transform = (configure) => {
  let each;
  return {
    init: (config) => void (each = refusing(() => configure(JSON.parse(shallow(config))))),
    process: (batch) => {
      const events = [];
      const rejected = sift(batch, (event) => {
        // All of them are checked before the first is taken: an event that is rejected gives none.
        for (const made of listed(each(event)).map(checked)) events.push(made);
      });
      return { events, rejected };
    },
  };
};

/** Makes the module's exports of a function from the settings to `start`, `add`, `merge` and `finish`. */
export const aggregate = (configure) => {
  let all;
  const read = (state) => (state.length ? JSON.parse(shallow(text(state)), revive) : all.start());
  return {
    init: (config) => void (all = refusing(() => configure(JSON.parse(shallow(config))))),
    update: (groups) =>
      refusing(() =>
        groups.map((group) => {
          const state = read(group.state);
          const rejected = sift(group.samples, (sample) => all.add(state, sample));
          return { state: keep(state), rejected };
        }),
      ),
    merge: (a, b) => refusing(() => keep(all.merge(read(a), read(b)))),
    finish: (windows) => refusing(() => windows.map((window) => bytes(JSON.stringify(all.finish(read(window.state), window))))),
  };
};

/** Returns the payload of an event or a sample as a JSON object. */
export const parse = ({ payload }) => object(text(payload));

/** Returns the number in a field of a parsed payload; `undefined` if it is missing or no finite number. */
export const number = (object, field) => {
  const value = Object.hasOwn(object, field) ? object[field] : undefined;
  return Number.isFinite(value) ? value : undefined;
};

/** Returns the event with another number in the field; all else stays as it is, byte for byte. */
export const mapNumber = (event, field, map) => {
  const raw = latin1(event.payload);
  const value = object(decoded(raw));
  const found = places(raw, value, field);
  if (found.length === 0) throw new Error(`field \`${field}\` is missing`);
  if (found.length > 1) throw new Error(`field \`${field}\` is there twice`);
  const [{ start, end }] = found;
  const number = value[field];
  if (!Number.isFinite(number)) {
    throw new Error(`field \`${field}\` is not a number: ${decoded(raw.slice(start, end)).slice(0, 40)}`);
  }
  return spliced(event, raw, start, end, finite(field, map(number)));
};

/**
 * Returns the event with that number in the field, which is added if it is not there; all else stays as it is, byte for
 * byte.
 */
export const setNumber = (event, field, number) => {
  const written = finite(field, number);
  const raw = latin1(event.payload);
  const value = object(decoded(raw));
  const found = places(raw, value, field);
  if (found.length > 1) throw new Error(`field \`${field}\` is there twice`);
  for (const { start, end } of found) return spliced(event, raw, start, end, written);
  const comma = Object.keys(value).length ? "," : "";
  const end = raw.lastIndexOf("}");
  return spliced(event, raw, end, end, `${comma}${encoded(JSON.stringify(field))}:${written}`);
};

/** Returns the text of UTF-8. */
export const text = (utf8) => decoded(latin1(utf8));

/** Returns the UTF-8 of a text. */
export const bytes = (written) => Uint8Array.fromBase64(btoa(encoded(written)));

// Libraries expect to find these.
globalThis.TextDecoder ??= class {
  decode = text;
};
globalThis.TextEncoder ??= class {
  encode = bytes;
};

const spliced = (event, raw, start, end, written) => ({
  ...event,
  payload: Uint8Array.fromBase64(btoa(raw.slice(0, start) + written + raw.slice(end))),
});

const finite = (field, number) => {
  if (Number.isFinite(number)) return `${number}`;
  throw new Error(`field \`${field}\` would become ${number}`);
};

/** The events that an author's function returned. */
const listed = (made) => (Array.isArray(made) ? made : made ? [made] : []);

const checked = (event) => {
  const { topic, key, time, payload } = event;
  const texts = typeof topic === "string" && topic.isWellFormed() && typeof key === "string" && key.isWellFormed();
  if (texts && Number.isSafeInteger(time) && time >= 0 && payload instanceof Uint8Array) return event;
  throw new Error("made no event: `topic` and `key` are texts, `time` whole microseconds, `payload` a Uint8Array");
};

/** Calls the function with each input, and returns the rejections. */
const sift = (inputs, each) => {
  const rejected = [];
  for (let index = 0; index < inputs.length; index++) {
    try {
      each(inputs[index]);
    } catch (error) {
      rejected.push({ index, reason: reason(error) });
    }
  }
  return rejected;
};

/** Returns what the call returns, and makes an error the contract's, which is a thrown string. */
const refusing = (call) => {
  try {
    return call();
  } catch (error) {
    throw reason(error);
  }
};

const reason = (error) => (error?.constructor === Error ? error.message : String(error));

// JSON has no word for these numbers, and a state must not lose them.
const keep = (state) => {
  const written = JSON.stringify(state);
  return bytes(written.includes("null") || written.includes("-0") ? JSON.stringify(state, name) : written);
};
const name = (_, value) =>
  typeof value === "number" && (!Number.isFinite(value) || Object.is(value, -0)) ? { $number: Object.is(value, -0) ? "-0" : `${value}` } : value;
const revive = (_, value) => (value?.$number === undefined ? value : Number(value.$number));

// Bytes as a text of a character each: the engine's own loops take them there and back, ours would be slow.
const latin1 = (utf8) => atob(utf8.toBase64());
const encoded = (written) => (/[^\0-\x7f]/.test(written) ? unescape(encodeURIComponent(written)) : written);
const decoded = (raw) => {
  if (!/[^\0-\x7f]/.test(raw)) return raw;
  try {
    return decodeURIComponent(escape(raw));
  } catch {
    throw new Error("not UTF-8");
  }
};

// The parser calls itself at each level, and the stack is the agent's to bound.
const NESTING_MAX = 200;
const shallow = (written) => {
  if (written.length <= 2 * NESTING_MAX) return written;
  let depth = 0;
  for (const [mark] of written.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{}]/g)) {
    if (mark === "[" || mark === "{") depth++;
    else if (mark === "]" || mark === "}") depth--;
    if (depth > NESTING_MAX) throw new Error(`nested more than ${NESTING_MAX} levels deep`);
  }
  return written;
};

const object = (written) => {
  let value;
  try {
    value = JSON.parse(shallow(written));
  } catch (error) {
    throw new Error(`not a JSON object: ${error.message}`);
  }
  if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
  throw new Error(`not a JSON object: ${written.slice(0, 40)}`);
};

/** Returns the places in the bytes of the values of the object's members of that name. */
const places = (raw, value, field) => {
  if (!Object.hasOwn(value, field)) return [];
  const wanted = encoded(field);
  const quoted = `"${wanted}"`;
  const at = raw.indexOf(quoted);
  if (at === raw.lastIndexOf(quoted) && !raw.includes("\\")) {
    // Without escapes it is nowhere else.
    const start = after(/\s*:\s*/y, raw, at + quoted.length);
    return [{ start, end: ending(raw, start) }];
  }
  const key = /[\s{,]*"([^"\\]*(?:\\.[^"\\]*)*)"\s*:\s*/y;
  const found = [];
  for (let named; (named = key.exec(raw)); ) {
    const start = key.lastIndex;
    const end = ending(raw, start);
    const name = named[1].includes("\\") ? encoded(JSON.parse(`"${decoded(named[1])}"`)) : named[1];
    if (name === wanted) found.push({ start, end });
    key.lastIndex = end;
  }
  return found;
};

/** Returns the end of the value that starts there. */
const ending = (raw, start) => {
  if (raw[start] === "{" || raw[start] === "[") return skip(raw, start);
  return after(/"[^"\\]*(?:\\.[^"\\]*)*"|[^\s,}]+/y, raw, start);
};

const after = (pattern, raw, start) => {
  pattern.lastIndex = start;
  pattern.test(raw);
  return pattern.lastIndex;
};

/** Returns the end of the list or object that starts there. */
const skip = (raw, start) => {
  const mark = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{}]/g;
  mark.lastIndex = start;
  for (let depth = 0; ; ) {
    const [found] = mark.exec(raw);
    if (found === "{" || found === "[") depth++;
    else if ((found === "}" || found === "]") && --depth === 0) return mark.lastIndex;
  }
};
