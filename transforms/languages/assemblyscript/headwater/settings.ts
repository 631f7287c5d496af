// The module's settings, in `init`. A setting that nobody asks for is a fault of the configuration.
import { count, find, firstItem, isTwice, member, nextItem, object, textOf, Member } from "./json";
import { begin, reject } from "./call";
import { parseNumber } from "./number";
import { allocate, decode } from "./memory";

export class Settings {
  private asked: string[] = [];

  /** Returns a setting that is a text. Without the default `otherwise`, it has to be there. */
  text(name: string, otherwise: string | null = null): string {
    const one = this.find(name, otherwise === null);
    if (one === null) return otherwise === null ? "" : otherwise;
    return asText(name, textOf(one));
  }

  /** Returns a setting that is a finite number. Without the default `otherwise`, it has to be there. */
  number(name: string, otherwise: f64 = NaN): f64 {
    const one = this.find(name, isNaN(otherwise));
    const value = one === null ? otherwise : parseNumber(one.value, one.valueSize);
    if (one !== null && !isFinite(value)) reject(`setting \`${name}\` is not a number`);
    return value;
  }

  /** Returns a setting that is a whole number from 0 to `most`; `otherwise` is the default. */
  whole(name: string, otherwise: u32, most: u32): u32 {
    const value = this.number(name, otherwise);
    if (value >= 0 && value <= most && value == Math.floor(value)) return <u32>value;
    reject(`setting \`${name}\` is not a whole number from 0 to ${most}`);
    return otherwise;
  }

  /** Returns the index of a text among the choices, of which the first is the default. */
  choice(name: string, choices: string[]): i32 {
    const wanted = this.text(name, choices[0]);
    const number = choices.indexOf(wanted);
    if (number < 0) reject(`setting \`${name}\` cannot be \`${wanted}\``);
    return number;
  }

  /** Returns a setting that is a list of texts, and has to be there. */
  texts(name: string): string[] {
    const all: string[] = [];
    const one = this.find(name, true);
    if (one === null) return all;
    if (load<u8>(one.value) != 0x5b) {
      reject(`setting \`${name}\` is not a list`);
      return all;
    }
    const item = changetype<Member>(allocate(offsetof<Member>()));
    for (let more = firstItem(one, item); more; more = nextItem(item)) all.push(asText(name, textOf(item)));
    return all;
  }

  private find(name: string, needed: bool): Member | null {
    this.asked.push(name);
    const one = find(name);
    if (one === null && isTwice()) reject(`setting \`${name}\` is there twice`);
    else if (one === null && needed) reject(`setting \`${name}\` is missing`);
    return one;
  }

  /** Hands the settings to `init`; a fault is what is rejected then. */
  static read(data: usize, size: usize, init: (settings: Settings) => void): void {
    begin();
    if (!object(data, size)) return;
    const settings = new Settings();
    init(settings);
    for (let i: usize = 0; i < count(); i++) {
      const name = decode(member(i).name, member(i).nameSize);
      if (!settings.asked.includes(name)) reject(`unknown setting \`${name}\``);
    }
  }
}

function asText(name: string, value: string | null): string {
  if (value === null) reject(`setting \`${name}\` is not a text`);
  return value === null ? "" : value;
}
