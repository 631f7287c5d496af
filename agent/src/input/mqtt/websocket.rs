//! MQTT over WebSocket (MQTT 5, section 6; RFC 6455): the bytes of binary frames, as a stream.
//!
//! Tungstenite supplies key and frame headers. Its connection is not used, since it buffers a message
//! before it hands out the first byte: the oversized PUBLISH that [`wire`](super::wire) drops as it arrives
//! would have to fit into memory first.
//!
//! **Bounds**: one read of [`READ_BYTES`], one frame of [`FRAME_BYTES_MAX`] on its way out, [`PONG_BYTES_MAX`]
//! of answers to pings, and [`HEAD_BYTES_MAX`] of the answer to the handshake.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Room for one read.
const READ_BYTES: usize = 16 * 1024;
/// Payload of a frame that we send.
const FRAME_BYTES_MAX: usize = 64 * 1024;
/// Payload of a control frame (RFC 6455, section 5.5).
const CONTROL_BYTES_MAX: u64 = 125;
/// Unwritten answers to pings, beyond which pings are not answered.
const PONG_BYTES_MAX: usize = 128 * 1024;
/// The server's answer to the handshake.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the server answered {0:?}; check the path of the url")]
    Answer(String),
    #[error("the server's answer has no {0}; is it a broker?")]
    Missing(&'static str),
}

impl Error {
    /// Whether only a change of configuration helps; a proxy before a broker that is away says 5xx.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Io(_) => false,
            Self::Answer(status) => !status.contains(" 5"),
            Self::Missing(_) => true,
        }
    }
}

/// A stream within the frames of another.
#[derive(Debug)]
pub(super) struct WebSocket<S> {
    inner: S,
    /// Read and not yet looked at.
    input: Box<[u8]>,
    filled: std::ops::Range<usize>,
    /// Bytes of the present frame's payload that are still to come.
    left: u64,
    /// Frames to write.
    out: BytesMut,
    closed: bool,
    masks: RandomState,
    frames: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Asks the server to go over to WebSocket and `mqtt`.
    pub(super) async fn open(mut stream: S, address: &str, path: &str) -> Result<Self, Error> {
        let key = generate_key();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut input = vec![0; READ_BYTES.max(HEAD_BYTES_MAX)].into_boxed_slice();
        let mut end = 0;
        let head = loop {
            if let Some(at) = input[..end].windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            let read = if end < HEAD_BYTES_MAX { stream.read(&mut input[end..]).await? } else { 0 };
            if read == 0 {
                return Err(Error::Missing("end"));
            }
            end += read;
        };
        check_answer(&String::from_utf8_lossy(&input[..head]), &key)?;
        Ok(Self {
            inner: stream,
            input,
            filled: head + 4..end,
            left: 0,
            out: BytesMut::new(),
            closed: false,
            masks: RandomState::new(),
            frames: 0,
        })
    }

    /// Reads on into `input`; whether there was anything.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.input.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        let mut room = ReadBuf::new(&mut self.input[self.filled.end..]);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut room))?;
        let read = room.filled().len();
        self.filled.end += read;
        Poll::Ready(Ok(read > 0))
    }

    /// Takes a frame's header, and a control frame as a whole; false when more must be read first.
    fn take_header(&mut self) -> io::Result<bool> {
        let bytes = &self.input[self.filled.clone()];
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(io::Error::other)?;
        let Some((header, length)) = parsed else { return Ok(false) };
        let at = usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        if header.mask.is_some() || header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(invalid("a frame that no server may send"));
        }
        match header.opcode {
            OpCode::Data(Data::Binary | Data::Continue) => self.left = length,
            OpCode::Data(_) => return Err(invalid("a frame that is not binary")),
            OpCode::Control(_) if length > CONTROL_BYTES_MAX => {
                return Err(invalid("a control frame over 125 bytes"));
            }
            OpCode::Control(control) => {
                let end = at + length as usize;
                let Some(payload) = bytes.get(at..end) else { return Ok(false) };
                let payload = payload.to_vec();
                match control {
                    Control::Ping if self.out.len() < PONG_BYTES_MAX => self.put(Control::Pong, &payload),
                    Control::Close => self.closed = true,
                    _ => {}
                }
                self.filled.start += end;
                return Ok(true);
            }
        }
        self.filled.start += at;
        Ok(true)
    }

    /// Puts a frame behind what is to be written; masked, as what a client sends must be.
    fn put(&mut self, opcode: impl Into<Opcode>, payload: &[u8]) {
        self.frames += 1;
        let mask = (self.masks.hash_one(self.frames) as u32).to_be_bytes();
        let Opcode(opcode) = opcode.into();
        let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
        let mut frame = Vec::with_capacity(payload.len() + 14);
        header.format(payload.len() as u64, &mut frame).expect("a Vec takes all that is written");
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.out.extend_from_slice(&frame);
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Data and control frames alike.
struct Opcode(OpCode);

impl From<Control> for Opcode {
    fn from(control: Control) -> Self {
        Self(OpCode::Control(control))
    }
}

impl From<Data> for Opcode {
    fn from(data: Data) -> Self {
        Self(OpCode::Data(data))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.left == 0 {
                if self.take_header()? {
                    // A ping's answer goes out when it can; the reader does not wait for it.
                    if let Poll::Ready(Err(error)) = self.as_mut().poll_flush(cx) {
                        return Poll::Ready(Err(error));
                    }
                    continue;
                }
            } else if !self.filled.is_empty() {
                let here = usize::try_from(self.left).unwrap_or(usize::MAX);
                let count = here.min(self.filled.len()).min(buf.remaining());
                let start = self.filled.start;
                buf.put_slice(&self.input[start..start + count]);
                self.filled.start += count;
                self.left -= count as u64;
                return Poll::Ready(Ok(()));
            }
            if !ready!(self.poll_fill(cx))? {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_drain(cx))?;
        let count = buf.len().min(FRAME_BYTES_MAX);
        self.put(Data::Binary, &buf[..count]);
        match self.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What RFC 6455, section 4.1, and MQTT want to see.
fn check_answer(head: &str, key: &str) -> Result<(), Error> {
    let (status, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    if !status.starts_with("HTTP/1.1 101") {
        return Err(Error::Answer(status.chars().take(200).collect()));
    }
    let holds = |name: &str, value: &str, exactly: bool| {
        fields.lines().filter_map(|field| field.split_once(':')).any(|(found, given)| {
            let given = given.trim();
            let equal = if exactly { given == value } else { given.eq_ignore_ascii_case(value) };
            found.trim().eq_ignore_ascii_case(name) && equal
        })
    };
    if !holds("upgrade", "websocket", false) {
        return Err(Error::Missing("upgrade to websocket"));
    }
    if !holds("sec-websocket-accept", &derive_accept_key(key.as_bytes()), true) {
        return Err(Error::Missing("proof that it understood the handshake"));
    }
    if !holds("sec-websocket-protocol", "mqtt", false) {
        return Err(Error::Missing("subprotocol mqtt"));
    }
    Ok(())
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the broker sent {what}"))
}

#[cfg(test)]
mod tests;
