// The members of a JSON object that is being written.
import { Text, allocate } from "./memory";
import { NUMBER_BYTES_MAX, writeNumber } from "./number";

let data: usize = 0;
let size: usize = 0;
let room: usize = 0;
let comma = false;

export class Result {
  number(name: string, value: f64): void {
    this.name(name);
    if (!isFinite(value)) return ascii("null");
    reserve(NUMBER_BYTES_MAX);
    size += writeNumber(data + size, value);
  }

  integer(name: string, value: u64): void {
    this.name(name);
    ascii(value.toString());
  }

  text(name: string, value: string): void {
    this.name(name);
    quote(value);
  }

  /** An object in it, up to `close`. */
  open(name: string): void {
    this.name(name);
    ascii("{");
    comma = false;
  }

  close(): void {
    ascii("}");
    comma = true;
  }

  private name(name: string): void {
    if (comma) ascii(",");
    quote(name);
    ascii(":");
    comma = true;
  }
}

export function beginResult(): void {
  room = size = 0;
  comma = false;
  ascii("{");
}

export function endResult(to: usize): void {
  ascii("}");
  changetype<Text>(to).set(data, size);
}

/** A text as JSON writes it; not while a result is being written. */
export function written(plain: string): Text {
  room = size = 0;
  quote(plain);
  const text = changetype<Text>(allocate(offsetof<Text>()));
  text.set(data, size);
  return text;
}

function reserve(more: usize): void {
  if (room - size >= more) return;
  room = (room + more) * 2;
  const larger = allocate(room);
  memory.copy(larger, data, size);
  data = larger;
}

function byte(c: u8): void {
  reserve(1);
  store<u8>(data + size++, c);
}

function ascii(letters: string): void {
  for (let i = 0; i < letters.length; i++) byte(<u8>letters.charCodeAt(i));
}

function quote(plain: string): void {
  const text = changetype<Text>(allocate(offsetof<Text>()));
  text.setString(plain);
  byte(0x22);
  for (let i: usize = 0; i < text.size; i++) {
    const c = load<u8>(text.data + i);
    if (c < 0x20) {
      ascii("\\u00" + (c < 0x10 ? "0" : "") + c.toString(16));
      continue;
    }
    if (c == 0x22 || c == 0x5c) byte(0x5c);
    byte(c);
  }
  byte(0x22);
}
