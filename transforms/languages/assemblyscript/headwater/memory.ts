// Memory outside the garbage collector's: one arena, emptied after each call. What it hands out is
// all that travels, so that a batch makes no objects of its own.

const CHUNK: usize = 256 * 1024;
// The address of the chunk before, then the bytes. The heap aligns to 16.
const HEAD: usize = 16;

let chunk: usize = 0;
let next: usize = 0;
let end: usize = 0;

export function allocate(size: usize): usize {
  const wanted = (size + 7) & ~7;
  assert(wanted >= size && wanted < 1 << 30, "too much memory asked for");
  if (end - next < wanted) {
    const bytes = chunk == 0 ? CHUNK : max(wanted, CHUNK);
    const larger = heap.alloc(bytes + HEAD);
    store<usize>(larger, chunk);
    chunk = larger;
    next = larger + HEAD;
    end = next + bytes;
    if (bytes < wanted) return allocate(size);
  }
  const at = next;
  next += wanted;
  return at;
}

export function release(): void {
  while (chunk != 0) {
    const before = load<usize>(chunk);
    if (before == 0) break;
    heap.free(chunk);
    chunk = before;
  }
  // The first is of the usual size, and stays.
  if (chunk != 0) {
    next = chunk + HEAD;
    end = next + CHUNK;
  }
  __collect();
}

/** The call's strings and lists: an address and a size. */
@unmanaged
export class Text {
  data: usize;
  size: usize;

  set(data: usize, size: usize): void {
    this.data = data;
    this.size = size;
  }

  setString(value: string): void {
    const size = <usize>String.UTF8.byteLength(value);
    const data = allocate(size);
    String.UTF8.encodeUnsafe(changetype<usize>(value), value.length, data, false, String.UTF8.ErrorMode.REPLACE);
    this.set(data, size);
  }

  toString(): string {
    return decode(this.data, this.size);
  }
}

export function decode(data: usize, size: usize): string {
  return String.UTF8.decodeUnsafe(data, size);
}

export function same(a: usize, aSize: usize, b: usize, bSize: usize): bool {
  return aSize == bSize && memory.compare(a, b, aSize) == 0;
}

// Names that were asked for, as UTF-8, so that asking again costs no conversion.
let names = new Map<string, ArrayBuffer>();

export function utf8(name: string): ArrayBuffer {
  if (names.has(name)) return names.get(name);
  if (names.size >= 256) names.clear();
  const bytes = String.UTF8.encode(name, false, String.UTF8.ErrorMode.REPLACE);
  names.set(name, bytes);
  return bytes;
}
