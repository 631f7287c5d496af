// JSON payloads, read without building a tree and without recursion: whatever the payload, the
// memory it takes is a small multiple of its size. What passes is what RFC 8259 says, however deep.
import { Text, allocate, decode, same, utf8 } from "./memory";
import { reject } from "./call";
import { isUtf8 } from "./utf8";
import { written as asText } from "./result";
import { parseNumber, writeNumber, NUMBER_BYTES_MAX } from "./number";

/** A member: where its name is, without escapes, and its value, as it is written. */
@unmanaged
export class Member {
  name: usize;
  nameSize: usize;
  value: usize;
  valueSize: usize;
}

// The object that was read last, which most often is asked again.
let members: usize = 0;
let memberCount: usize = 0;
let room: usize = 0;
let lastData: usize = 0;
let lastSize: usize = 0;

// The reader: the next byte, and where there are no more.
let at: usize = 0;
let end: usize = 0;

export function forget(): void {
  lastData = 0;
  room = 0;
}

export function count(): usize {
  return memberCount;
}

export function member(index: usize): Member {
  return changetype<Member>(members + index * offsetof<Member>());
}

/** Reads the payload, unless it was the last to be read; false, and rejected, if it is no object. */
export function object(data: usize, size: usize): bool {
  if (data == lastData && size == lastSize && size != 0) return true;
  forget();
  if (!isUtf8(data, data + size)) {
    reject("not UTF-8");
    return false;
  }
  at = data;
  end = data + size;
  memberCount = 0;
  if (!readObject()) {
    reject(`not a JSON object: byte ${at - data}`);
    return false;
  }
  lastData = data;
  lastSize = size;
  return true;
}

export enum Found { once, missing, twice }
let found: Found = Found.missing;

/** The one member of the name, or null, and in `found` why. */
export function find(name: string): Member | null {
  const bytes = utf8(name);
  const data = changetype<usize>(bytes);
  const size = <usize>bytes.byteLength;
  let one: Member | null = null;
  found = Found.missing;
  for (let i: usize = 0; i < memberCount; i++) {
    const each = member(i);
    if (!same(each.name, each.nameSize, data, size)) continue;
    if (one !== null) {
      found = Found.twice;
      return null;
    }
    found = Found.once;
    one = each;
  }
  return one;
}

export function isTwice(): bool {
  return found == Found.twice;
}

function fieldOf(data: usize, size: usize, field: string): Member | null {
  if (!object(data, size)) return null;
  const one = find(field);
  if (one === null) reject(`field \`${field}\` is ` + (isTwice() ? "there twice" : "missing"));
  return one;
}

export function number(data: usize, size: usize, field: string): f64 {
  const one = fieldOf(data, size, field);
  if (one === null) return NaN;
  const value = parseNumber(one.value, one.valueSize);
  if (!isFinite(value)) {
    let cut: usize = 0;
    for (let i = 0; i < 40 && cut < one.valueSize; i++) {
      do cut++; while (cut < one.valueSize && (load<u8>(one.value + cut) & 0xc0) == 0x80);
    }
    reject(`field \`${field}\` is not a number: ${decode(one.value, cut)}`);
    return NaN;
  }
  return value;
}

/** NaN where there is none; only a payload that is no object is rejected. */
export function findNumber(data: usize, size: usize, field: string): f64 {
  const one = object(data, size) ? find(field) : null;
  const value = one === null ? NaN : parseNumber(one.value, one.valueSize);
  return isFinite(value) ? value : NaN;
}

export function text(data: usize, size: usize, field: string): string {
  const one = fieldOf(data, size, field);
  if (one === null) return "";
  const value = textOf(one);
  if (value === null) reject(`field \`${field}\` is not a text`);
  return value === null ? "" : value;
}

/** Null for what is no text. */
export function textOf(one: Member): string | null {
  if (load<u8>(one.value) != 0x22 || !unescape(one.value + 1, one.valueSize - 2)) return null;
  return decode(plain, plainSize);
}

/** The items of a member that is a list, each in `item`. */
export function firstItem(list: Member, item: Member): bool {
  at = list.value + 1;
  end = list.value + list.valueSize;
  return readItem(item);
}

export function nextItem(item: Member): bool {
  blank();
  return take(0x2c) && readItem(item);
}

function readItem(item: Member): bool {
  blank();
  item.value = at;
  if (!value()) return false;
  item.valueSize = at - item.value;
  return true;
}

/** The payload with another number; its size is `writtenSize()`. */
export function withNumber(data: usize, size: usize, field: string, value: f64): usize {
  writtenBytes = size;
  if (!object(data, size)) return data;
  const one = find(field);
  if (isTwice()) {
    reject(`field \`${field}\` is there twice`);
    return data;
  }
  if (!isFinite(value)) {
    reject(`field \`${field}\` would become ` + (isNaN(value) ? "NaN" : value < 0 ? "-inf" : "inf"));
    return data;
  }
  // What comes in: the digits, behind the name of a field that is added before the last brace.
  const name = one === null ? asText(field) : changetype<Text>(0);
  const most = (one === null ? name.size + 2 : 0) + NUMBER_BYTES_MAX;
  let from = data + size, to = from;
  if (one === null) {
    do from--; while (load<u8>(from) != 0x7d);
    to = from;
  } else {
    from = one.value;
    to = from + one.valueSize;
  }
  const before = from - data, after = data + size - to;
  const written = allocate(before + most + after);
  memory.copy(written, data, before);
  let next = written + before;
  if (one === null) {
    if (memberCount != 0) store<u8>(next++, 0x2c);
    memory.copy(next, name.data, name.size);
    next += name.size;
    store<u8>(next++, 0x3a);
  }
  next += writeNumber(next, value);
  memory.copy(next, to, after);
  writtenBytes = next - written + after;
  return written;
}

let writtenBytes: usize = 0;

export function writtenSize(): usize {
  return writtenBytes;
}

function readObject(): bool {
  if (!need(0x7b)) return false;
  blank();
  let more = !take(0x7d);
  while (more) {
    blank();
    const name = at + 1;
    if (!quoted()) return false;
    const one = added();
    one.name = name;
    one.nameSize = at - 1 - name;
    if (escaped) {
      if (!unescape(name, one.nameSize)) return false;
      one.name = plain;
      one.nameSize = plainSize;
    }
    if (!need(0x3a)) return false;
    blank();
    one.value = at;
    if (!value()) return false;
    one.valueSize = at - one.value;
    blank();
    more = take(0x2c);
    if (!more && !take(0x7d)) return false;
  }
  blank();
  return at == end;
}

function added(): Member {
  if (memberCount == room) {
    const larger = allocate(max<usize>(room * 2, 16) * offsetof<Member>());
    memory.copy(larger, members, memberCount * offsetof<Member>());
    room = max<usize>(room * 2, 16);
    members = larger;
  }
  return member(memberCount++);
}

function value(): bool {
  // A bit for each that is open, innermost last, set for an object.
  let open: usize = 0;
  let depth: usize = 0;
  while (true) {
    blank();
    const c = peek();
    let entered = false;
    if (c == 0x7b || c == 0x5b) {
      if (open == 0) open = allocate((end - at) / 8 + 1);
      const bit: u8 = 1 << <u8>(depth & 7);
      const byte = load<u8>(open + (depth >> 3));
      store<u8>(open + (depth >> 3), c == 0x7b ? byte | bit : byte & ~bit);
      depth++;
      at++;
      entered = true;
    } else if (!(c == 0x22 ? quoted() : c == 0x74 ? word(0x65757274, 4)
        : c == 0x66 ? take(0x66) && word(0x65736c61, 4) : c == 0x6e ? word(0x6c6c756e, 4) : numeral())) {
      return false;
    }
    // Out of all that ends here.
    while (true) {
      if (depth == 0) return true;
      const inObject = ((load<u8>(open + ((depth - 1) >> 3)) >> <u8>((depth - 1) & 7)) & 1) == 1;
      blank();
      if (take(inObject ? 0x7d : 0x5d)) {
        depth--;
        entered = false;
        continue;
      }
      if (!entered && !take(0x2c)) return false;
      if (inObject) {
        blank();
        if (!quoted() || !need(0x3a)) return false;
      }
      break;
    }
  }
}

// 0 at the end, which no JSON begins with.
function peek(): u8 {
  return at < end ? load<u8>(at) : 0;
}

function take(c: u8): bool {
  if (peek() != c) return false;
  at++;
  return true;
}

function need(c: u8): bool {
  blank();
  return take(c);
}

function blank(): void {
  while (true) {
    const c = peek();
    if (c != 0x20 && c != 0x0a && c != 0x0d && c != 0x09) return;
    at++;
  }
}

function word(letters: u32, size: usize): bool {
  if (end - at < size || load<u32>(at) != letters) return false;
  at += size;
  return true;
}

function figures(): bool {
  const first = at;
  while (peek() - 0x30 < 10) at++;
  return at > first;
}

function numeral(): bool {
  take(0x2d);
  if (!take(0x30) && !figures()) return false;
  if (take(0x2e) && !figures()) return false;
  if (!take(0x65) && !take(0x45)) return true;
  if (!take(0x2b)) take(0x2d);
  return figures();
}

function hex(c: u8): i32 {
  if (c - 0x30 < 10) return c - 0x30;
  c |= 0x20;
  return c >= 0x61 && c <= 0x66 ? c - 0x61 + 10 : -1;
}

let escaped = false;

function quoted(): bool {
  escaped = false;
  if (!take(0x22)) return false;
  while (true) {
    const c = peek();
    if (c < 0x20) return false;
    at++;
    if (c == 0x22) return true;
    if (c != 0x5c) continue;
    escaped = true;
    const letter = peek();
    at++;
    if (letter == 0x75) {
      for (let i = 0; i < 4; i++, at++) {
        if (hex(peek()) < 0) return false;
      }
    } else if (meant(letter) == 0) {
      return false;
    }
  }
}

/** Returns the character that the letter after a backslash stands for; 0 if there is none. */
function meant(letter: u8): u8 {
  switch (letter) {
    case 0x22: case 0x5c: case 0x2f: return letter;
    case 0x62: return 8;
    case 0x66: return 12;
    case 0x6e: return 10;
    case 0x72: return 13;
    case 0x74: return 9;
    default: return 0;
  }
}

let plain: usize = 0;
let plainSize: usize = 0;

/** A checked string without its escapes, into `plain`; false for half a surrogate pair. */
function unescape(raw: usize, size: usize): bool {
  const end = raw + size;
  plain = allocate(size);
  let to = plain;
  while (raw < end) {
    let c: u32 = load<u8>(raw++);
    if (c != 0x5c) {
      store<u8>(to++, c);
      continue;
    }
    const letter = load<u8>(raw++);
    if (letter != 0x75) {
      store<u8>(to++, meant(letter));
      continue;
    }
    c = unit(raw);
    raw += 4;
    if (c >= 0xd800 && c < 0xe000) {
      if (c >= 0xdc00 || end - raw < 6 || load<u16>(raw) != 0x755c) return false;
      const low = unit(raw + 2);
      if (low < 0xdc00 || low >= 0xe000) return false;
      c = 0x10000 + (((c - 0xd800) << 10) | (low - 0xdc00));
      raw += 6;
    }
    to = encoded(to, c);
  }
  plainSize = to - plain;
  return true;
}

function unit(raw: usize): u32 {
  return (hex(load<u8>(raw)) << 12) | (hex(load<u8>(raw + 1)) << 8) | (hex(load<u8>(raw + 2)) << 4) | hex(load<u8>(raw + 3));
}

function encoded(to: usize, c: u32): usize {
  if (c < 0x80) {
    store<u8>(to++, c);
    return to;
  }
  if (c < 0x800) {
    store<u8>(to++, 0xc0 | (c >> 6));
  } else {
    if (c < 0x10000) {
      store<u8>(to++, 0xe0 | (c >> 12));
    } else {
      store<u8>(to++, 0xf0 | (c >> 18));
      store<u8>(to++, 0x80 | ((c >> 12) & 0x3f));
    }
    store<u8>(to++, 0x80 | ((c >> 6) & 0x3f));
  }
  store<u8>(to++, 0x80 | (c & 0x3f));
  return to;
}
