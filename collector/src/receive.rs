//! Makes a batch of a request: what its headers promise, its body within bounds, decoded.
//!
//! A body is read under two bounds, bytes as sent and time; it is decoded under two more, bytes and
//! the decoder's own memory. Nothing here touches the store.

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use headwater_wire::BatchKey;

use crate::Config;
use crate::batch::{Batch, BatchError};

/// Memory one zstd frame may ask of its reader: 2^23, what RFC 8878 tells every reader to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Why a request brings no batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("failed to authorize: the bearer token is missing or wrong")]
    Token,
    #[error("failed to read Idempotency-Key: {0}")]
    Key(&'static str),
    #[error("failed to read the body: Content-Type must be application/x-ndjson")]
    Type,
    #[error("failed to read the body: Content-Encoding must be zstd, gzip or absent")]
    Encoding,
    #[error("failed to read the body: it has more than {0} bytes")]
    TooLarge(usize),
    #[error("failed to read the body in time")]
    TooSlow,
    #[error("failed to read the body: the connection broke")]
    Cut,
    #[error("failed to decode the body: {0}")]
    Decode(String),
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// What a request's headers promise.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) key: BatchKey,
    pub(crate) encoding: Encoding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Identity,
    Gzip,
    Zstd,
}

/// Reads the headers: all that can be refused without a look at the body.
pub(crate) fn head(config: &Config, headers: &HeaderMap) -> Result<Head, Refusal> {
    authorize(config, headers)?;
    let content_type = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-ndjson") {
        return Err(Refusal::Type);
    }
    let encoding = match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None => Encoding::Identity,
        Some(name) if name.eq_ignore_ascii_case(b"identity") => Encoding::Identity,
        Some(name) if name.eq_ignore_ascii_case(b"gzip") => Encoding::Gzip,
        Some(name) if name.eq_ignore_ascii_case(b"zstd") => Encoding::Zstd,
        Some(_) => return Err(Refusal::Encoding),
    };
    if headers.get_all("idempotency-key").iter().count() > 1 {
        return Err(Refusal::Key("there is more than one"));
    }
    let key = text(headers, "idempotency-key").ok_or(Refusal::Key("it is missing"))?;
    let key = BatchKey::from_header(key).map_err(Refusal::Key)?;
    let length = text(headers, header::CONTENT_LENGTH.as_str()).and_then(|l| l.parse::<u64>().ok());
    if length.is_some_and(|length| length > config.encoded_bytes_max as u64) {
        return Err(Refusal::TooLarge(config.encoded_bytes_max));
    }
    Ok(Head { key, encoding })
}

fn authorize(config: &Config, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(token) = &config.token else {
        return Ok(());
    };
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
    });
    given.filter(|given| token.is(given)).map(|_| ()).ok_or(Refusal::Token)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Reads the body as it was sent.
pub(crate) async fn body(config: &Config, body: Body) -> Result<Vec<u8>, Refusal> {
    tokio::time::timeout(config.body_timeout, frames(body, config.encoded_bytes_max))
        .await
        .unwrap_or(Err(Refusal::TooSlow))
}

async fn frames(mut body: Body, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| Refusal::Cut)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > bytes_max {
            return Err(Refusal::TooLarge(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Decodes and checks. Blocks for as long as the CPU needs.
pub(crate) fn batch(config: &Config, head: Head, sent: Vec<u8>) -> Result<Batch, Refusal> {
    let decoded = decode(head.encoding, sent, config.decoded_bytes_max)?;
    Ok(Batch::parse(head.key, &decoded)?)
}

fn decode(encoding: Encoding, sent: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    match encoding {
        Encoding::Identity if sent.len() > bytes_max => Err(Refusal::TooLarge(bytes_max)),
        Encoding::Identity => Ok(sent),
        Encoding::Gzip => read(flate2::read::MultiGzDecoder::new(&sent[..]), bytes_max),
        Encoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&sent[..])
                .map_err(|error| Refusal::Decode(error.to_string()))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(|error| Refusal::Decode(error.to_string()))?;
            read(decoder, bytes_max)
        }
    }
}

fn read(decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let mut decoded = Vec::new();
    // One byte more than allowed tells too much from just enough.
    decoder
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut decoded)
        .map_err(|error| Refusal::Decode(error.to_string()))?;
    if decoded.len() > bytes_max { Err(Refusal::TooLarge(bytes_max)) } else { Ok(decoded) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zstd_of(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).unwrap()
    }

    fn gzip_of(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn takes_a_body_of_exactly_the_bound_and_refuses_one_byte_more() {
        let (fits, over) = (vec![b'a'; 1000], vec![b'a'; 1001]);
        for (encoding, encode) in [
            (Encoding::Identity, <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>),
            (Encoding::Gzip, gzip_of),
            (Encoding::Zstd, zstd_of),
        ] {
            assert_eq!(decode(encoding, encode(&fits), 1000).unwrap(), fits);
            let refused = decode(encoding, encode(&over), 1000);
            assert!(matches!(refused, Err(Refusal::TooLarge(1000))), "{encoding:?}: {refused:?}");
        }
    }

    #[test]
    fn stops_decoding_at_the_bound() {
        /// Never ends, and may be read so far.
        struct Bomb(usize);
        impl Read for Bomb {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.0 = self.0.checked_sub(buffer.len()).expect("read on beyond the bound");
                Ok(buffer.len())
            }
        }
        let refused = read(Bomb(1001), 1000);
        assert!(matches!(refused, Err(Refusal::TooLarge(1000))), "{refused:?}");
    }

    #[test]
    fn refuses_garbage_and_cut_bodies() {
        let mut cut = zstd_of(b"hello hello hello");
        cut.truncate(cut.len() - 2);
        let mut trailing = gzip_of(b"hello");
        trailing.extend_from_slice(b"garbage after the end");
        for (encoding, sent) in [
            (Encoding::Zstd, cut),
            (Encoding::Zstd, b"nonsense".to_vec()),
            (Encoding::Gzip, b"nonsense".to_vec()),
            (Encoding::Gzip, trailing),
        ] {
            assert!(matches!(decode(encoding, sent, 1000), Err(Refusal::Decode(_))), "{encoding:?}");
        }
    }

    #[test]
    fn refuses_a_frame_that_asks_for_a_large_window() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(26).unwrap();
        encoder.write_all(&vec![7; 1000]).unwrap();
        let sent = encoder.finish().unwrap();
        assert!(matches!(decode(Encoding::Zstd, sent, 1 << 20), Err(Refusal::Decode(_))));
    }
}
