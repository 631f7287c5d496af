//! Asks the agent's own HTTP.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use headwater_agent::agent::ADMIN_ADDRESS_FILE;

/// An answer is cut here, which makes it a broken one.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Longest silence.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Where the agent with that state folder answers.
pub(super) fn address(state: &Path) -> anyhow::Result<SocketAddr> {
    let file = state.join(ADMIN_ADDRESS_FILE);
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("failed to read {}: has the agent ever run?", file.display()))?;
    text.trim().parse().with_context(|| format!("failed to read an address from {}", file.display()))
}

/// The body of a 200. A small request to the agent's own address needs no client library.
pub(super) fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    ask(address, &format!("GET {path} HTTP/1.0\r\nHost: headwater\r\n\r\n"), PATIENCE)
}

/// The same of a POST, with the key that lets a caller change something.
pub(super) fn post(
    address: SocketAddr,
    path: &str,
    key: &str,
    body: &str,
    patience: Duration,
) -> anyhow::Result<String> {
    let length = body.len();
    let head = format!("Authorization: Bearer {key}\r\nContent-Length: {length}");
    ask(address, &format!("POST {path} HTTP/1.0\r\nHost: headwater\r\n{head}\r\n\r\n{body}"), patience)
}

fn ask(address: SocketAddr, request: &str, patience: Duration) -> anyhow::Result<String> {
    let answer = exchange(address, request, patience).with_context(|| {
        format!("no agent runs at {address}: start it, or name the configuration it runs with")
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the agent's answer is no HTTP")?;
    anyhow::ensure!(head.starts_with("HTTP/1.0 200 "), "the agent at {address} answered {head:?}: {body}");
    Ok(body.to_owned())
}

fn exchange(address: SocketAddr, request: &str, patience: Duration) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
