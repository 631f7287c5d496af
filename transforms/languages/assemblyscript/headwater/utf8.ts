// The check that bytes are UTF-8: no stray or missing ones, nothing longer than needed, no surrogates.

export function isUtf8(s: usize, end: usize): bool {
  while (s < end) {
    const c = load<u8>(s++);
    if (c < 0x80) continue;
    const more: usize = c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 0;
    if (more == 0 || end - s < more) return false;
    const second = load<u8>(s);
    const low: u8 = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    const high: u8 = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    if (second < low || second > high) return false;
    for (let i: usize = 1; i < more; i++) {
      if ((load<u8>(s + i) & 0xc0) != 0x80) return false;
    }
    s += more;
  }
  return true;
}
