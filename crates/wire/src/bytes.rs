//! Numbers and texts as bytes: a varint is LEB128 of at most ten bytes, a text its length and UTF-8.

use crate::record::RecordError;

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A byte that says whether it is there, and the number.
pub(crate) fn put_optional(out: &mut Vec<u8>, value: Option<u64>) {
    out.push(value.is_some().into());
    if let Some(value) = value {
        put_varint(out, value);
    }
}

/// The bytes that are not read yet.
pub(crate) struct ByteReader<'a>(pub(crate) &'a [u8]);

impl<'a> ByteReader<'a> {
    pub(crate) fn byte(&mut self) -> Result<u8, RecordError> {
        let (&byte, rest) = self.0.split_first().ok_or(RecordError("it ends too early"))?;
        self.0 = rest;
        Ok(byte)
    }

    pub(crate) fn array<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], RecordError> {
        let (array, rest) = self.0.split_first_chunk().ok_or(RecordError("it ends too early"))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn varint(&mut self) -> Result<u64, RecordError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordError("a number is over 64 bits"))
    }

    pub(crate) fn small(&mut self) -> Result<u32, RecordError> {
        u32::try_from(self.varint()?).map_err(|_| RecordError("a number is over 32 bits"))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, RecordError> {
        let length = usize::try_from(self.varint()?).map_err(|_| RecordError("a length is too great"))?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(RecordError("it ends too early"))?;
        self.0 = rest;
        utf8(bytes)
    }

    pub(crate) fn optional(&mut self) -> Result<Option<u64>, RecordError> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.varint().map(Some),
            _ => Err(RecordError("a field is neither there nor not")),
        }
    }

    /// All that is left.
    pub(crate) fn rest(self) -> Result<&'a str, RecordError> {
        utf8(self.0)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, RecordError> {
    str::from_utf8(bytes).map_err(|_| RecordError("a text is not UTF-8"))
}
