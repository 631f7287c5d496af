//! The body of a batch.
//!
//! A body is made once for each batch and kept for all its attempts. After a restart it is made
//! again from the same lines; should the compression differ then, what it decodes to does not,
//! and that is what a collector compares.

use super::config::Compression;
use std::io::{self, Write};

/// Fast enough for a small device; higher ones gain some percent on JSON and cost a multiple.
const ZSTD_LEVEL: i32 = 3;

/// NDJSON: every line with its line feed, compressed.
///
/// # Errors
///
/// When the compressor cannot get its memory.
pub(super) fn body(lines: &[Vec<u8>], compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => write(lines, Vec::with_capacity(size(lines))),
        Compression::Gzip => {
            write(lines, flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default()))?.finish()
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
            // What a bad link changes on the way, the receiver must not take for ours.
            encoder.include_checksum(true)?;
            // Lets it take tables that fit the batch instead of those for an endless stream.
            encoder.set_pledged_src_size(Some(size(lines) as u64))?;
            write(lines, encoder)?.finish()
        }
    }
}

/// Bytes of the lines before compression, line feeds included.
pub(super) fn size(lines: &[Vec<u8>]) -> usize {
    lines.iter().map(|line| line.len() + 1).sum()
}

fn write<W: Write>(lines: &[Vec<u8>], mut to: W) -> io::Result<W> {
    for line in lines {
        to.write_all(line)?;
        to.write_all(b"\n")?;
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn decoded(body: &[u8], compression: Compression) -> Vec<u8> {
        let mut out = Vec::new();
        match compression {
            Compression::None => out.extend_from_slice(body),
            Compression::Gzip => _ = flate2::read::GzDecoder::new(body).read_to_end(&mut out).unwrap(),
            Compression::Zstd => out = zstd::decode_all(body).unwrap(),
        }
        out
    }

    #[test]
    fn every_compression_decodes_to_one_line_a_result() {
        let lines: Vec<Vec<u8>> = (0..500).map(|n| format!(r#"{{"value":{n}}}"#).into_bytes()).collect();
        let plain = body(&lines, Compression::None).unwrap();
        assert_eq!(plain.len(), size(&lines));
        assert!(plain.starts_with(b"{\"value\":0}\n{\"value\":1}\n") && plain.ends_with(b"\n"));
        for compression in [Compression::Gzip, Compression::Zstd] {
            let body = body(&lines, compression).unwrap();
            assert!(body.len() < plain.len());
            assert_eq!(decoded(&body, compression), plain, "{compression:?}");
        }
    }

    #[test]
    fn a_flipped_bit_of_a_compressed_body_is_noticed() {
        let lines: Vec<_> = (0..100).map(|id| format!("{{\"id\":{id}}}").into_bytes()).collect();
        let right = decoded(&body(&lines, Compression::None).unwrap(), Compression::None);
        let sent = body(&lines, Compression::Zstd).unwrap();
        for bit in 0..sent.len() * 8 {
            let mut flipped = sent.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = zstd::decode_all(&flipped[..]);
            assert!(read.is_err() || read.unwrap() == right, "bit {bit}");
        }
    }
}
