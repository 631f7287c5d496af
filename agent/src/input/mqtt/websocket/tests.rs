use proptest::prelude::*;
use tokio::io::DuplexStream;

use super::*;

/// The other end has read the request, and answers with what `answer` makes of the key.
async fn open(answer: impl Fn(&str) -> String) -> (Result<WebSocket<DuplexStream>, Error>, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let serve = async {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(theirs.read_u8().await.unwrap());
        }
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET /mqtt HTTP/1.1\r\nHost: h:1\r\n"), "{request}");
        assert!(request.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{request}");
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        theirs.write_all(answer(key).as_bytes()).await.unwrap();
        theirs
    };
    tokio::join!(WebSocket::open(ours, "h:1", "/mqtt"), serve)
}

fn good(key: &str) -> String {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: WebSocket\r\n\
         sec-websocket-accept: {accept}\r\nsec-websocket-protocol: mqtt\r\n\r\n"
    )
}

fn frame(opcode: impl Into<Opcode>, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let header = FrameHeader { is_final, opcode: opcode.into().0, ..FrameHeader::default() };
    header.format(payload.len() as u64, &mut frame).unwrap();
    frame.extend(payload);
    frame
}

/// What a server makes of our frames: opcodes and payloads.
fn unmasked(mut bytes: &[u8]) -> Vec<(OpCode, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let mut cursor = Cursor::new(bytes);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
        let mask = header.mask.expect("a client masks");
        let (at, length) = (cursor.position() as usize, length as usize);
        let payload = bytes[at..at + length].iter().zip(mask.iter().cycle());
        frames.push((header.opcode, payload.map(|(byte, mask)| byte ^ mask).collect()));
        bytes = &bytes[at + length..];
    }
    frames
}

#[derive(Clone, Debug)]
enum Sent {
    Whole(usize),
    InTwo(usize),
    Ping(usize),
}

fn sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        3 => (0usize..70_000).prop_map(Sent::Whole),
        1 => (2usize..70_000).prop_map(Sent::InTwo),
        1 => (0usize..=125).prop_map(Sent::Ping),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// However frames and writes are cut, the bytes are the same, and each ping has its answer.
    #[test]
    fn frames_do_not_show(script in prop::collection::vec(sent(), 1..8), cut in 1usize..5_000) {
        let (mut stream, mut expected, mut pings) = (Vec::new(), Vec::new(), Vec::new());
        for (at, sent) in script.iter().enumerate() {
            let bytes = |length: usize| vec![at as u8; length];
            match *sent {
                Sent::Whole(length) => {
                    stream.extend(frame(Data::Binary, true, &bytes(length)));
                    expected.extend(bytes(length));
                }
                Sent::InTwo(length) => {
                    stream.extend(frame(Data::Binary, false, &bytes(length / 2)));
                    stream.extend(frame(Control::Ping, true, b"between"));
                    pings.push(b"between".to_vec());
                    stream.extend(frame(Data::Continue, true, &bytes(length - length / 2)));
                    expected.extend(bytes(length));
                }
                Sent::Ping(length) => {
                    stream.extend(frame(Control::Ping, true, &bytes(length)));
                    pings.push(bytes(length));
                }
            }
        }
        stream.extend(frame(Control::Close, true, &[]));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (got, answers) = runtime.block_on(async {
            let (socket, mut theirs) = open(good).await;
            let mut socket = socket.unwrap();
            let send = async {
                for chunk in stream.chunks(cut) {
                    theirs.write_all(chunk).await.unwrap();
                    tokio::task::yield_now().await;
                }
                theirs
            };
            let mut got = Vec::new();
            let (read, mut theirs) = tokio::join!(socket.read_to_end(&mut got), send);
            read.unwrap();
            drop(socket);
            let mut answers = Vec::new();
            theirs.read_to_end(&mut answers).await.unwrap();
            (got, answers)
        });
        prop_assert!(got == expected);
        let pongs: Vec<_> = unmasked(&answers).into_iter().map(|(_, payload)| payload).collect();
        prop_assert_eq!(pongs, pings);
    }
}

#[tokio::test]
async fn what_is_written_arrives_masked_in_binary_frames() {
    let (socket, mut theirs) = open(good).await;
    let mut socket = socket.unwrap();
    let bytes: Vec<u8> = (0..200_000u32).map(|number| number as u8).collect();
    socket.write_all(&bytes).await.unwrap();
    socket.flush().await.unwrap();
    drop(socket);
    let mut seen = Vec::new();
    theirs.read_to_end(&mut seen).await.unwrap();
    let frames = unmasked(&seen);
    assert!(frames.iter().all(|(opcode, payload)| {
        *opcode == OpCode::Data(Data::Binary) && payload.len() <= FRAME_BYTES_MAX
    }));
    assert!(frames.into_iter().flat_map(|(_, payload)| payload).eq(bytes));
}

#[tokio::test]
async fn a_frame_of_any_length_is_handed_out_as_it_arrives() {
    let (socket, mut theirs) = open(good).await;
    let mut socket = socket.unwrap();
    let mut header = Vec::new();
    let binary = FrameHeader { opcode: OpCode::Data(Data::Binary), ..FrameHeader::default() };
    binary.format(1 << 40, &mut header).unwrap();
    theirs.write_all(&header).await.unwrap();
    for _ in 0..100 {
        theirs.write_all(&[7; 10_000]).await.unwrap();
        let mut seen = [0; 10_000];
        socket.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, [7; 10_000]);
    }
    assert_eq!(socket.input.len(), READ_BYTES);
}

#[tokio::test]
async fn what_no_broker_sends_is_an_error() {
    let mut masked = Vec::new();
    let header = FrameHeader { mask: Some([1; 4]), ..FrameHeader::default() };
    header.format(0, &mut masked).unwrap();
    let long = frame(Control::Ping, true, &[0; 126]);
    for bytes in [frame(Data::Text, true, b"text"), masked, long, vec![0x83, 0], vec![0xc2, 0]] {
        let (socket, mut theirs) = open(good).await;
        theirs.write_all(&bytes).await.unwrap();
        let read = socket.unwrap().read_u8().await;
        assert!(read.is_err_and(|error| error.kind() != io::ErrorKind::UnexpectedEof), "{bytes:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_no_broker_s_is_named() {
    let cases: [(&str, &str, &str, bool); 5] = [
        ("101 Switching Protocols", "404 Not Found", "404 Not Found", true),
        ("101 Switching Protocols", "502 Bad Gateway", "502 Bad Gateway", false),
        ("upgrade: WebSocket", "x: y", "upgrade to websocket", true),
        ("sec-websocket-accept: ", "sec-websocket-accept: x", "proof", true),
        ("sec-websocket-protocol: mqtt", "x: y", "subprotocol mqtt", true),
    ];
    for (from, to, words, is_refusal) in cases {
        let (socket, _) = open(|key| good(key).replace(from, to)).await;
        let error = socket.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.is_refusal(), is_refusal, "{error}");
    }
    let (socket, _) = open(|_| "x".repeat(HEAD_BYTES_MAX)).await;
    assert!(matches!(socket, Err(Error::Missing("end"))));
}
