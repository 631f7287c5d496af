//! Dead letters for people. What devices and modules wrote is shown without what a terminal obeys.

use std::fmt::Write as _;

use headwater_agent::flow::{StoredLetter, Timestamp};

/// Above the rows.
pub(super) const HEAD: &str =
    "number  refused                      pipeline/stage              topic or key            reason";

/// Characters of a reason in a row.
const REASON_MAX: usize = 100;
/// Bytes of a payload that are shown.
const PAYLOAD_MAX: usize = 4096;
/// Why `expect` holds.
const TO_STRING: &str = "writing to a String cannot fail";

/// One line; an asterisk where it was given to a replay.
pub(super) fn row(kept: &StoredLetter) -> String {
    let letter = &kept.letter;
    let mark = if kept.replayed { '*' } else { ' ' };
    let place = format!("{}/{}", letter.pipeline, letter.stage);
    let what = if letter.topic.is_empty() { &letter.key } else { &letter.topic };
    let time = Timestamp(letter.time).to_string();
    let (place, what) = (plain(&place, usize::MAX), plain(what, usize::MAX));
    let reason = plain(&letter.reason, REASON_MAX);
    format!("{:>6}{mark} {time:<28} {place:<27} {what:<23} {reason}", kept.number)
}

/// All of it, a line a field, and its bytes.
pub(super) fn whole(kept: &StoredLetter) -> String {
    let letter = &kept.letter;
    let mut text = String::new();
    let mut field = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            writeln!(text, "{name:<12} {}", plain(&value, usize::MAX)).expect(TO_STRING);
        }
    };
    field("number", Some(kept.number.to_string()));
    field("refused", Some(Timestamp(letter.time).to_string()));
    field("pipeline", Some(letter.pipeline.clone()));
    field("stage", Some(letter.stage.clone()));
    field("reason", Some(letter.reason.clone()));
    field("module", letter.module.clone());
    field("input", Some(letter.input.clone()));
    field("topic", Some(letter.topic.clone()));
    field("key", Some(letter.key.clone()));
    field("arrived", Some(letter.received).filter(|time| time.0 > 0).map(|time| time.to_string()));
    field("event time", letter.event_time.map(|time| time.to_string()));
    field(
        "window",
        letter.window.map(|window| {
            format!(
                "{} to {}, {} readings, revision {}",
                window.start, window.end, window.count, window.revision
            )
        }),
    );
    field("replay of", letter.replay_of.map(|number| number.to_string()));
    field("replayed", Some(if kept.replayed { "yes" } else { "no" }.to_owned()));
    field("bytes", Some(letter.payload.len().to_string()));
    text.push('\n');
    let shown = &letter.payload[..letter.payload.len().min(PAYLOAD_MAX)];
    match std::str::from_utf8(shown) {
        Ok(words) => writeln!(text, "{}", plain(words, usize::MAX)).expect(TO_STRING),
        Err(_) => shown.chunks(16).enumerate().for_each(|(line, bytes)| dump(&mut text, line * 16, bytes)),
    }
    if letter.payload.len() > PAYLOAD_MAX {
        let more = letter.payload.len() - PAYLOAD_MAX;
        writeln!(text, "… and {more} bytes more: `--json` has them all").expect(TO_STRING);
    }
    text
}

fn dump(text: &mut String, at: usize, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x} ")).collect();
    let shown = |byte: &u8| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' };
    let words: String = bytes.iter().map(shown).collect();
    writeln!(text, "{at:08x}  {hex:<48} {words}").expect(TO_STRING);
}

/// At most so many characters, those that move a cursor or end a line written as escapes.
fn plain(text: &str, characters_max: usize) -> String {
    let mut plain = String::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        if index == characters_max {
            plain.push('…');
            break;
        }
        if character.is_control() { plain.extend(character.escape_default()) } else { plain.push(character) }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_agent::flow::DeadLetter;

    fn kept(reason: &str, payload: &[u8]) -> StoredLetter {
        let letter = DeadLetter {
            pipeline: "p".to_owned(),
            stage: "decode".to_owned(),
            reason: reason.to_owned(),
            topic: "plant/a".to_owned(),
            payload: payload.to_vec(),
            ..DeadLetter::default()
        };
        StoredLetter { number: 7, replayed: true, letter }
    }

    #[test]
    fn a_row_is_one_line_that_no_terminal_obeys() {
        let row = row(&kept(&("\x1b[2J\n".to_owned() + &"x".repeat(500)), b""));
        assert!(row.starts_with("     7* 1970-01-01T00:00:00Z") && row.contains("p/decode"), "{row}");
        assert!(row.ends_with("xx…") && row.len() < 250 && !row.contains(['\x1b', '\n']), "{row}");
    }

    #[test]
    fn bytes_that_are_no_text_are_dumped_and_many_are_cut() {
        assert!(whole(&kept("no", b"{\"a\":1}\x07")).ends_with("\n{\"a\":1}\\u{7}\n"));
        let dumped = whole(&kept("no", b"0123456789abcdef\xff "));
        assert!(dumped.contains("00000010  ff 20 ") && dumped.ends_with(". \n"), "{dumped}");
        assert!(whole(&kept("no", &[b'x'; 5000])).contains("904 bytes more"));
    }
}
