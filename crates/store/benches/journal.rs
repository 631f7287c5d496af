//! What a durable append costs, as ratios: to a plain file with `fdatasync`, and in bytes
//! written to the disk for each byte of payload (what wears flash).
//!
//! `cargo bench -p headwater-store --bench journal --profile dev` needs no second build; the folder is
//! made below `TMPDIR`, which must be on the disk to measure, best one that nothing else writes to
//! (a loop-mounted image). `-- 10 100` measures these groups only.
//!
//! Recorded on a loop-mounted ext4 image on a shared virtual disk, 2 cores under other load,
//! 200-byte readings (228 bytes with topic and length in the plain file), profile `dev`:
//!
//! ```text
//! group  appends/s  of plain file  written/payload  plain file's  disk/payload
//!     1        639           2.35            64.45         85.52          4.96
//!    10       7053           1.55            12.92         13.83          1.62
//!   100      56417           1.55             2.87          2.36          1.33
//!  1000     135976           0.59             1.60          1.25          1.28
//! 10000     308916           0.62             1.44          1.14          1.27
//! ```

#![expect(clippy::unwrap_used, reason = "a failed measurement is no measurement")]

use headwater_flow::{Message, MqttDelivery, Timestamp};
use headwater_store::{Config, Store, StoreMetrics};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PAYLOAD_BYTES: usize = 200;
const LONGEST: Duration = Duration::from_secs(3);
const GROUPS_MAX: usize = 20_000;

fn main() {
    println!("group  appends/s  of plain file  written/payload  plain file's  disk/payload");
    let asked: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let groups = if asked.is_empty() { vec![1, 10, 100, 1000, 10_000] } else { asked };
    for group in groups {
        let folder = tempfile::tempdir().unwrap();
        let plain = measure(group, folder.path(), &mut plain_file(&folder.path().join("plain")));
        let state = folder.path().join("state");
        let config = Config { redelivery_window: 0, ballast_bytes: 1 << 20, ..Config::new(state.clone()) };
        let store = Store::open(&config, &StoreMetrics::default()).unwrap();
        let journal = measure(group, folder.path(), &mut |messages| {
            store.append(messages).unwrap();
        });
        let disk = disk_bytes(&state) as f64 / journal.payload_bytes;
        println!(
            "{group:>5} {:>10.0} {:>14.2} {:>16.2} {:>13.2} {disk:>13.2}",
            journal.rate,
            journal.rate / plain.rate,
            journal.written,
            plain.written,
        );
    }
    println!("memory at the end: {} KiB resident", resident_kib());
}

struct Measured {
    /// Messages a second.
    rate: f64,
    /// Bytes the process wrote to disk for each byte of payload.
    written: f64,
    payload_bytes: f64,
}

fn measure(group: usize, path: &Path, append: &mut dyn FnMut(&[Message])) -> Measured {
    let (began, before) = (Instant::now(), written_bytes(path));
    let mut groups = 0;
    while began.elapsed() < LONGEST && groups < GROUPS_MAX {
        append(&(0..group).map(message).collect::<Vec<_>>());
        groups += 1;
    }
    let payload_bytes = (groups * group * PAYLOAD_BYTES) as f64;
    Measured {
        rate: (groups * group) as f64 / began.elapsed().as_secs_f64(),
        written: (written_bytes(path) - before) as f64 / payload_bytes,
        payload_bytes,
    }
}

/// The least a journal could do: length, bytes, sync.
fn plain_file(path: &Path) -> impl FnMut(&[Message]) {
    let mut file = File::create(path).unwrap();
    move |messages| {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend_from_slice(&(message.payload.len() as u32).to_le_bytes());
            bytes.extend_from_slice(message.topic.as_bytes());
            bytes.extend_from_slice(&message.payload);
        }
        file.write_all(&bytes).unwrap();
        file.sync_data().unwrap();
    }
}

fn message(number: usize) -> Message {
    Message {
        input: Arc::from("plant"),
        topic: format!("plant/line-{}/telemetry", number % 10),
        payload: (0..PAYLOAD_BYTES).map(|at| (at ^ number) as u8).collect(),
        properties: Vec::new(),
        received: Timestamp(1_700_000_000_000_000),
        delivery: MqttDelivery { qos: 1, retain: false, session: 3, packet: number as u16 },
    }
}

/// Bytes written to the device by all that use it, the file system's journal included. What
/// `/proc/self/io` counts is whole page-cache folios of up to megabytes, not what is written.
fn written_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(path).unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).unwrap();
    stat.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512
}

fn resident_kib() -> u64 {
    field("/proc/self/status", "VmRSS:")
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(path).unwrap();
    if !meta.is_dir() {
        return meta.blocks() * 512;
    }
    std::fs::read_dir(path).unwrap().map(|entry| disk_bytes(&entry.unwrap().path())).sum()
}
