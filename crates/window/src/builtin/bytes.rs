//! Numbers in a state: little endian, whole ones in as few bytes as they need (LEB128).

/// The bytes that are left to read. Every attempt to read past the end gives `None`.
#[derive(Clone, Copy)]
pub(super) struct StateBytes<'a>(pub(super) &'a [u8]);

impl<'a> StateBytes<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn tag(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(super) fn fixed(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(super) fn float(&mut self) -> Option<f64> {
        self.fixed().map(f64::from_bits)
    }

    pub(super) fn whole(&mut self) -> Option<u64> {
        let mut whole = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            whole |= bits << shift;
            if byte < 0x80 {
                return Some(whole);
            }
        }
        None
    }

    /// Reads a count of items that take a byte or more each.
    pub(super) fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.whole()?).ok()?;
        (count <= self.0.len()).then_some(count)
    }
}

pub(super) fn put_float(out: &mut Vec<u8>, float: f64) {
    out.extend(float.to_le_bytes());
}

pub(super) fn put_whole(out: &mut Vec<u8>, mut whole: u64) {
    while whole >= 0x80 {
        out.push(whole.to_le_bytes()[0] | 0x80);
        whole >>= 7;
    }
    out.push(whole.to_le_bytes()[0]);
}
