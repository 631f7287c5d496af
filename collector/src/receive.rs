//! Makes a batch of a request: reads its headers, receives its body, decodes and checks it.
//!
//! **Limits.** A body is received under two limits, bytes as sent and time. It is decoded under two
//! more, decoded bytes and the memory of the decoder. Nothing here touches the store.

use std::future::poll_fn;
use std::io::Read;
use std::pin::Pin;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, header};
use headwater_wire::BatchKey;

use crate::CollectorConfig;
use crate::batch::{BatchError, ReceivedBatch};

/// Most memory that one zstd frame may ask of its reader, as a power of 2: RFC 8878 tells every reader
/// to support 2^23 bytes.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// An error that keeps a request from becoming a batch.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
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

/// The headers of a request that brings a batch.
#[derive(Debug)]
pub(crate) struct BatchHead {
    pub(crate) key: BatchKey,
    pub(crate) encoding: BodyEncoding,
}

/// The `Content-Encoding` of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEncoding {
    Identity,
    Gzip,
    Zstd,
}

/// Reads the headers, and refuses all that can be refused without the body.
pub(crate) fn read_head(config: &CollectorConfig, headers: &HeaderMap) -> Result<BatchHead, ReceiveError> {
    authorize(config, headers)?;
    let content_type = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-ndjson") {
        return Err(ReceiveError::Type);
    }
    let encoding = match headers.get(header::CONTENT_ENCODING).map(|value| value.as_bytes()) {
        None => BodyEncoding::Identity,
        Some(name) if name.eq_ignore_ascii_case(b"identity") => BodyEncoding::Identity,
        Some(name) if name.eq_ignore_ascii_case(b"gzip") => BodyEncoding::Gzip,
        Some(name) if name.eq_ignore_ascii_case(b"zstd") => BodyEncoding::Zstd,
        Some(_) => return Err(ReceiveError::Encoding),
    };
    if headers.get_all("idempotency-key").iter().count() > 1 {
        return Err(ReceiveError::Key("there is more than one"));
    }
    let key = text(headers, "idempotency-key").ok_or(ReceiveError::Key("it is missing"))?;
    let key = BatchKey::from_header(key).map_err(ReceiveError::Key)?;
    let length = text(headers, header::CONTENT_LENGTH.as_str()).and_then(|l| l.parse::<u64>().ok());
    if length.is_some_and(|length| length > config.encoded_bytes_max as u64) {
        return Err(ReceiveError::TooLarge(config.encoded_bytes_max));
    }
    Ok(BatchHead { key, encoding })
}

fn authorize(config: &CollectorConfig, headers: &HeaderMap) -> Result<(), ReceiveError> {
    let Some(token) = &config.token else {
        return Ok(());
    };
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let given = given.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
    });
    given.filter(|given| token.matches(given)).map(|_| ()).ok_or(ReceiveError::Token)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Receives the bytes of a body as they were sent.
pub(crate) async fn receive_body(config: &CollectorConfig, body: Body) -> Result<Vec<u8>, ReceiveError> {
    tokio::time::timeout(config.body_timeout, receive_frames(body, config.encoded_bytes_max))
        .await
        .unwrap_or(Err(ReceiveError::TooSlow))
}

async fn receive_frames(mut body: Body, bytes_max: usize) -> Result<Vec<u8>, ReceiveError> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(data) = frame.map_err(|_| ReceiveError::Cut)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > bytes_max {
            return Err(ReceiveError::TooLarge(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Decodes and checks the body of a batch. Blocks for as long as the CPU needs.
pub(crate) fn decode_batch(
    config: &CollectorConfig,
    head: BatchHead,
    sent: Vec<u8>,
) -> Result<ReceivedBatch, ReceiveError> {
    let decoded = decode(head.encoding, sent, config.decoded_bytes_max)?;
    Ok(ReceivedBatch::parse(head.key, &decoded)?)
}

fn decode(encoding: BodyEncoding, sent: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, ReceiveError> {
    match encoding {
        BodyEncoding::Identity if sent.len() > bytes_max => Err(ReceiveError::TooLarge(bytes_max)),
        BodyEncoding::Identity => Ok(sent),
        BodyEncoding::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(&sent[..]), bytes_max),
        BodyEncoding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&sent[..])
                .map_err(|error| ReceiveError::Decode(error.to_string()))?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(|error| ReceiveError::Decode(error.to_string()))?;
            read_bounded(decoder, bytes_max)
        }
    }
}

fn read_bounded(decoder: impl Read, bytes_max: usize) -> Result<Vec<u8>, ReceiveError> {
    let mut decoded = Vec::new();
    // One byte beyond the limit tells a body that is too large from one that just fits.
    decoder
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut decoded)
        .map_err(|error| ReceiveError::Decode(error.to_string()))?;
    if decoded.len() > bytes_max { Err(ReceiveError::TooLarge(bytes_max)) } else { Ok(decoded) }
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
    fn takes_a_body_of_exactly_the_limit_and_refuses_one_byte_more() {
        let fits = vec![b'a'; 1000];
        let over = vec![b'a'; 1001];
        for (encoding, encode) in [
            (BodyEncoding::Identity, <[u8]>::to_vec as fn(&[u8]) -> Vec<u8>),
            (BodyEncoding::Gzip, gzip_of),
            (BodyEncoding::Zstd, zstd_of),
        ] {
            assert_eq!(decode(encoding, encode(&fits), 1000).unwrap(), fits);
            let refused = decode(encoding, encode(&over), 1000);
            assert!(matches!(refused, Err(ReceiveError::TooLarge(1000))), "{encoding:?}: {refused:?}");
        }
    }

    #[test]
    fn stops_decoding_at_the_limit() {
        /// An endless input that panics once more than this many bytes are read.
        struct EndlessInput(usize);
        impl Read for EndlessInput {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                self.0 = self.0.checked_sub(buffer.len()).expect("no read beyond the limit");
                Ok(buffer.len())
            }
        }
        let refused = read_bounded(EndlessInput(1001), 1000);
        assert!(matches!(refused, Err(ReceiveError::TooLarge(1000))), "{refused:?}");
    }

    #[test]
    fn refuses_garbage_and_cut_bodies() {
        let mut cut = zstd_of(b"hello hello hello");
        cut.truncate(cut.len() - 2);
        let mut trailing = gzip_of(b"hello");
        trailing.extend_from_slice(b"garbage after the end");
        for (encoding, sent) in [
            (BodyEncoding::Zstd, cut),
            (BodyEncoding::Zstd, b"nonsense".to_vec()),
            (BodyEncoding::Gzip, b"nonsense".to_vec()),
            (BodyEncoding::Gzip, trailing),
        ] {
            assert!(matches!(decode(encoding, sent, 1000), Err(ReceiveError::Decode(_))), "{encoding:?}");
        }
    }

    #[test]
    fn refuses_a_frame_that_asks_for_a_large_window() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(26).unwrap();
        encoder.write_all(&vec![7; 1000]).unwrap();
        let sent = encoder.finish().unwrap();
        assert!(matches!(decode(BodyEncoding::Zstd, sent, 1 << 20), Err(ReceiveError::Decode(_))));
    }
}
