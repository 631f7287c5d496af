use proptest::prelude::*;

use super::*;

const LIMIT: usize = 200;

fn publish(version: Version, qos: u8, packet: u16, topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
    body.extend(topic.as_bytes());
    if qos > 0 {
        body.extend(packet.to_be_bytes());
    }
    if version == Version::V5 {
        body.push(0);
    }
    body.extend(payload);
    let mut frame = vec![0x30 | qos << 1];
    let mut rest = body.len();
    loop {
        let low = u8::try_from(rest % 128).unwrap();
        rest /= 128;
        frame.push(if rest > 0 { low | 0x80 } else { low });
        if rest == 0 {
            break;
        }
    }
    frame.extend(body);
    frame
}

fn decode(
    version: Version,
    chunks: impl IntoIterator<Item = impl AsRef<[u8]>>,
) -> Result<Vec<Incoming>, Error> {
    let mut decoder = Decoder::new(version, LIMIT);
    let mut packets = Vec::new();
    for chunk in chunks {
        decoder.buffer().extend_from_slice(chunk.as_ref());
        while let Some(packet) = decoder.next()? {
            packets.push(packet);
        }
    }
    Ok(packets)
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

proptest! {
    /// Sizes around the limit; every cut of the stream gives the same packets.
    #[test]
    fn cuts_of_the_stream_do_not_matter(
        version in version(),
        sizes in prop::collection::vec((0usize..400, 0u8..2), 1..8),
        cut in 1usize..300,
    ) {
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for (at, &(size, qos)) in sizes.iter().enumerate() {
            let packet = if qos == 0 { 0 } else { u16::try_from(at + 1).unwrap() };
            let frame = publish(version, qos, packet, "a/b", &vec![b'x'; size]);
            expected.push((packet, (frame.len() <= LIMIT).then_some(size)));
            stream.extend(frame);
        }
        let packets = decode(version, stream.chunks(cut)).unwrap();
        let seen: Vec<_> = packets
            .into_iter()
            .map(|packet| match packet {
                Incoming::Publish(publish) => (publish.packet, Some(publish.payload.len())),
                Incoming::Refused(Refused { ack, .. }) => (ack.map_or(0, Ack::packet), None),
                other => panic!("{other:?}"),
            })
            .collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn no_bytes_make_it_panic(
        version in version(),
        first in any::<u8>(),
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let framed = [vec![first, u8::try_from(bytes.len()).unwrap()], bytes.clone()].concat();
        for stream in [framed, bytes] {
            // An error ends the connection; only a panic would end the agent.
            drop(decode(version, [&stream]));
            let mut decoder = Decoder::new(version, LIMIT);
            decoder.buffer().extend_from_slice(&stream);
            drop(decoder.connack());
        }
    }
}

#[test]
fn an_oversized_payload_is_never_buffered() {
    let frame = publish(Version::V311, 1, 7, "big", &vec![0; 1_000_000]);
    let mut decoder = Decoder::new(Version::V311, LIMIT);
    let mut packets = 0;
    for chunk in frame.chunks(4096) {
        decoder.buffer().extend_from_slice(chunk);
        while decoder.next().unwrap().is_some() {
            packets += 1;
        }
        assert!(decoder.buffer().capacity() < 64 * 1024);
    }
    assert_eq!((packets, decoder.buffer().len()), (1, 0));
}

/// Refused with this acknowledgement, and the next packet is decoded all the same.
#[track_caller]
fn refuses(version: Version, frame: Vec<u8>, ack: Option<Ack>) {
    let next = publish(version, 0, 0, "t", b"next");
    let packets = decode(version, [frame.clone(), next]).unwrap();
    let [Incoming::Refused(refused), Incoming::Publish(next)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!((refused.ack, refused.bytes, &next.payload[..]), (ack, frame.len(), &b"next"[..]));
}

#[test]
fn a_malformed_publish_is_refused_and_the_next_packet_is_read() {
    for version in [Version::V311, Version::V5] {
        for (qos, ack) in [(0, None), (1, Some(Ack::PubAck(9))), (2, Some(Ack::PubRec(9)))] {
            for size in [1, 400] {
                let mut frame = publish(version, qos, 9, "?", &vec![0; size]);
                let at = frame.iter().position(|&byte| byte == b'?').unwrap();
                frame[at] = 0xff;
                refuses(version, frame, ack);
            }
            refuses(version, publish(version, qos, 9, "", b"an alias that nobody offered"), ack);
        }
        for size in [1, 400] {
            refuses(version, publish(version, 1, 0, "t", &vec![0; size]), None);
            refuses(version, publish(version, 3, 9, "t", &vec![0; size]), None);
        }
        refuses(version, vec![0x32, 0], None);
        refuses(version, vec![0x32, 4, 0, 200, b't', 0], None);
        refuses(version, vec![0x32, 3, 0, 1, b't'], None);
    }
    // Properties that are none.
    refuses(Version::V5, vec![0x32, 8, 0, 1, b't', 0, 9, 2, 0x7f, 0], Some(Ack::PubAck(9)));
}
