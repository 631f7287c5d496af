// Numbers to and from text, exactly: the double nearest to the digits, and the shortest digits that
// read back as the same double.
import { Big } from "./big";

/** More than the longest takes: -1.7976931348623157e+308. */
export const NUMBER_BYTES_MAX: usize = 40;

/** More digits than that cannot change the nearest double, but for whether there are any. */
const DIGITS_MAX = 800;

const above = new Big(), below = new Big(), rest = new Big(), scale = new Big(), sum = new Big();

/** NaN for JSON that is no number, Infinity for one that no double holds. */
export function parseNumber(data: usize, size: usize): f64 {
  const end = data + size;
  const negative = load<u8>(data) == 0x2d;
  if (negative) data++;
  if (load<u8>(data) - 0x30 >= 10) return NaN;
  // Clinger, "How to read floating point numbers accurately", 1990: exact where both parts are.
  let short: u64 = 0;
  let digits = 0, exponent = 0;
  let point = false;
  rest.set(0);
  let at = data;
  for (; at < end; at++) {
    const c = load<u8>(at);
    if (c == 0x2e) {
      point = true;
      continue;
    }
    if (c - 0x30 >= 10) break;
    if (point) exponent--;
    if (digits == 0 && c == 0x30) continue;
    digits++;
    if (digits <= 19) {
      short = short * 10 + (c - 0x30);
    } else if (digits <= DIGITS_MAX) {
      if (digits == 20) rest.set(short);
      rest.scale(10, c - 0x30);
    } else {
      exponent++;
      if (c != 0x30) dropped = true;
    }
  }
  if (digits <= 19) rest.set(short);
  if (at < end) exponent += written(at + 1, end);
  let value: f64;
  if (short == 0 && digits == 0) value = 0;
  else if (digits <= 19 && short <= 1 << 53 && abs(exponent) <= 22) {
    value = exponent < 0 ? <f64>short / power(-exponent) : <f64>short * power(exponent);
  } else {
    value = nearest(digits, exponent);
  }
  dropped = false;
  return negative ? -value : value;
}

// True if a digit other than 0 was left out.
let dropped = false;

/** The exponent that is written, within bounds that no double reaches. */
function written(at: usize, end: usize): i32 {
  let negative = false;
  let exponent = 0;
  for (; at < end; at++) {
    const c = load<u8>(at);
    if (c == 0x2d) negative = true;
    else if (c != 0x2b) exponent = min(exponent * 10 + (c - 0x30), 100000000);
  }
  return negative ? -exponent : exponent;
}

const POWERS: StaticArray<f64> = [
  1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
  1e19, 1e20, 1e21, 1e22,
];

function power(exponent: i32): f64 {
  return POWERS[exponent];
}

/** `rest` times ten to the `exponent`, by long division, to the nearest double. */
function nearest(digits: i32, exponent: i32): f64 {
  digits = min(digits, DIGITS_MAX);
  if (digits + exponent > 310) return Infinity;
  if (digits + exponent < -330) return 0;
  scale.set(1).power(-exponent);
  rest.power(exponent);
  // A quotient of 55 or 56 bits, the last of which is worth two to the `unit`.
  const unit = rest.bits() - scale.bits() - 55;
  if (unit < 0) rest.shift(-unit);
  else scale.shift(unit);
  let quotient: u64 = 0;
  scale.shift(56);
  for (let i = 0; i <= 56; i++) {
    quotient <<= 1;
    if (rest.compare(scale) >= 0) {
      rest.subtract(scale);
      quotient |= 1;
    }
    rest.scale(2);
  }
  const inexact: u64 = dropped || rest.bits() != 0 ? 1 : 0;
  // What does not fit into the mantissa, of a subnormal more; ties go to the even one.
  const drop = max(64 - <i32>clz(quotient) - 53, -1074 - unit);
  if (drop > 63) return 0;
  const half = <u64>1 << (drop - 1);
  const lost = (quotient & ((half << 1) - 1)) << 1 | inexact;
  let mantissa = quotient >> drop;
  if (lost > half << 1 || (lost == half << 1 && (mantissa & 1) == 1)) mantissa++;
  return NativeMath.scalbn(<f64>mantissa, unit + drop);
}

// Digits as they come out of `shortest`.
const figures = memory.data(32);
let first = 0;

/**
 * Steele and White, "How to print floating-point numbers accurately", 1990: the shortest digits that
 * read back as the same number; how many, and in `first` the exponent of the first.
 */
function shortest(value: f64): i32 {
  const bits = reinterpret<u64>(value);
  const biased = <i32>(bits >> 52);
  const fraction = bits & ((<u64>1 << 52) - 1);
  const mantissa = biased == 0 ? fraction : fraction | (<u64>1 << 52);
  const exponent = max(biased, 1) - 1075;
  const edge = fraction == 0 && biased > 1;
  const wide = edge ? 2 : 1;
  const even = (mantissa & 1) == 0 ? 0 : 1;
  rest.set(mantissa).shift(max(exponent, 0) + wide);
  scale.set(1).shift(max(-exponent, 0) + wide);
  below.set(1).shift(max(exponent, 0));
  above.set(1).shift(max(exponent, 0) + wide - 1);
  // Log10 of the number, rounded up, at most one too small.
  first = <i32>Math.ceil((<f64>(exponent + 64 - <i32>clz(mantissa)) - 1) * 0.30102999566398114 - 1e-10);
  scale.power(first);
  if (first < 0) {
    rest.power(-first);
    below.power(-first);
    above.power(-first);
  }
  if (sum.sum(rest, above).compare(scale) >= even) first++;
  else grow();
  first--;
  let size = 0;
  for (let more = true; more; grow()) {
    let digit = 0;
    for (; rest.compare(scale) >= 0; digit++) rest.subtract(scale);
    const low = rest.compare(below) < 1 - even;
    const high = sum.sum(rest, above).compare(scale) >= even;
    const half = sum.sum(rest, rest).compare(scale);
    // The nearer of the two where both would do, the even one at the same distance.
    if (high && (!low || half > 0 || (half == 0 && (digit & 1) == 1))) digit++;
    store<u8>(figures + size++, 0x30 + digit);
    more = !low && !high;
  }
  return size;
}

function grow(): void {
  rest.scale(10);
  below.scale(10);
  above.scale(10);
}

/** Writes a number as serde_json does, so that results are the same bytes in every language; returns its size. */
export function writeNumber(start: usize, value: f64): usize {
  let to = start;
  if (reinterpret<i64>(value) < 0) to = put(to, 0x2d);
  if (value == 0) return put(put(put(to, 0x30), 0x2e), 0x30) - start;
  const size = shortest(abs(value));
  if (first >= 16 || first < -5) {
    to = put(to, load<u8>(figures));
    if (size > 1) to = put(to, 0x2e);
    memory.copy(to, figures + 1, size - 1);
    to = put(to + size - 1, 0x65);
    to = put(to, first < 0 ? 0x2d : 0x2b);
    const exponent = abs(first);
    if (exponent >= 100) to = put(to, <u8>(0x30 + exponent / 100));
    if (exponent >= 10) to = put(to, <u8>(0x30 + (exponent / 10) % 10));
    return put(to, <u8>(0x30 + exponent % 10)) - start;
  }
  if (first < 0) to = put(put(to, 0x30), 0x2e);
  for (let i = -1; i > first; i--) to = put(to, 0x30);
  for (let i = 0; i < size || i <= first; i++) {
    to = put(to, i < size ? load<u8>(figures + i) : 0x30);
    if (i != first) continue;
    to = put(to, 0x2e);
    if (i >= size - 1) to = put(to, 0x30);
  }
  return to - start;
}

function put(to: usize, c: u8): usize {
  store<u8>(to, c);
  return to + 1;
}
