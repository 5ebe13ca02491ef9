//! The bytes of a segment of the spill: frames, one a record.
//!
//! ```text
//! 16 marker │ u32 length │ u32 !length │ u64 FNV-1a of length and body │ body      all little endian
//! body: u16 length of the topic, topic, the record as the embedded log stores it
//! ```
//!
//! The marker is the segment's own and cannot be guessed: after damage the next frame is found by it, and what a sender put
//! into a record is never taken for a frame.

use std::ops::Range;

use kiro_ports::NewRecord;
use kiro_schemas::Micros;

use super::codec;

/// A segment's own bytes, before each of its frames.
pub(super) type Marker = [u8; 16];

const HEAD: usize = 32;

/// What a part of a segment is.
#[derive(Debug, Clone)]
pub(super) enum Piece {
    /// A frame.
    Record(NewRecord),
    /// Was a frame once, or never.
    Damaged(&'static str),
    /// The beginning of a frame; the rest was never written, so nobody was told that it is kept.
    Torn,
}

/// Writes the frame of a record.
pub(super) fn encode(marker: &Marker, at: Micros, record: &NewRecord, out: &mut Vec<u8>) {
    let stored = codec::encode(at, record.key.as_deref(), Some(&record.value), &record.headers);
    // Names of topics have 249 characters at most, and records far less than 4 GiB, before they come here.
    let topic = u16::try_from(record.topic.len()).unwrap_or(u16::MAX);
    let mut body = Vec::with_capacity(2 + record.topic.len() + stored.len());
    body.extend_from_slice(&topic.to_le_bytes());
    body.extend_from_slice(record.topic.as_bytes());
    body.extend_from_slice(&stored);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(marker);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(&digest(length, &body).to_le_bytes());
    out.extend_from_slice(&body);
}

fn digest(length: u32, body: &[u8]) -> u64 {
    codec::fnv1a_on(codec::fnv1a(&length.to_le_bytes()), body)
}

/// All pieces of a segment, one after the other from its first byte to its last.
pub(super) fn pieces(marker: &Marker, bytes: &[u8]) -> Vec<(Range<usize>, Piece)> {
    let mut all = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let (end, piece) = next(marker, bytes, at);
        all.push((at..end, piece));
        at = end;
    }
    all
}

fn next(marker: &Marker, bytes: &[u8], at: usize) -> (usize, Piece) {
    let rest = bytes.get(at..).unwrap_or_default();
    let damaged = |reason| (at + following(marker, rest), Piece::Damaged(reason));
    if rest.iter().all(|byte| *byte == 0) {
        return (bytes.len(), Piece::Torn);
    }
    let is_marked = rest.first_chunk::<16>().map_or_else(|| marker.starts_with(rest), |first| first == marker);
    if !is_marked {
        return damaged("no frame begins here");
    }
    let Some(head) = rest.first_chunk::<HEAD>() else { return (bytes.len(), Piece::Torn) };
    let [length, check] = [16, 20].map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let told = head.last_chunk().map_or(0, |told| u64::from_le_bytes(*told));
    let Some(end) = usize::try_from(length).ok().and_then(|length| HEAD.checked_add(length)).filter(|_| length == !check) else {
        return damaged("the head of the frame is not what was written");
    };
    let Some(body) = rest.get(HEAD..end) else { return (bytes.len(), Piece::Torn) };
    if digest(length, body) != told {
        return damaged("the bytes of the frame are not those that were written");
    }
    match decode(body) {
        Ok(record) => (at + end, Piece::Record(record)),
        Err(reason) => damaged(reason),
    }
}

/// Where the frame after the one at the beginning begins; the end when there is none.
fn following(marker: &Marker, rest: &[u8]) -> usize {
    let found = rest.windows(marker.len()).skip(1).position(|window| window == marker);
    found.map_or(rest.len(), |place| place + 1)
}

fn decode(body: &[u8]) -> Result<NewRecord, &'static str> {
    let (length, rest) = body.split_first_chunk().ok_or("the frame is too short")?;
    let (topic, stored) = rest.split_at_checked(u16::from_le_bytes(*length).into()).ok_or("the name of the topic is cut short")?;
    let topic = std::str::from_utf8(topic).map_err(|_bytes| "the name of the topic is no UTF-8")?.to_owned();
    let record = codec::decode(0, stored)?;
    let value = record.value.ok_or("the record has no value")?;
    Ok(NewRecord { topic, key: record.key, value, headers: record.headers })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kiro_ports::NewRecord;
    use kiro_schemas::Micros;
    use proptest::collection::vec;
    use proptest::prelude::{any, proptest};

    use super::{HEAD, Marker, Piece, encode, pieces};

    const MARKER: Marker = *b"0123456789abcdef";

    fn record(value: &[u8]) -> NewRecord {
        let headers = vec![("kiro-tenant".to_owned(), Bytes::from_static(b"acme"))];
        NewRecord { topic: "events".to_owned(), key: Some(Bytes::from_static(b"k")), value: Bytes::copy_from_slice(value), headers }
    }

    fn segment(values: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let mut ends = Vec::new();
        let mut bytes = Vec::new();
        for value in values {
            encode(&MARKER, Micros(7), &record(value), &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn values(bytes: &[u8]) -> Vec<Vec<u8>> {
        let all = pieces(&MARKER, bytes);
        all.into_iter().filter_map(|(_, piece)| if let Piece::Record(r) = piece { Some(r.value.to_vec()) } else { None }).collect()
    }

    /// The pieces lie one after the other and leave nothing out; a record is written in one way only.
    fn assert_whole(bytes: &[u8]) {
        let mut at = 0;
        for (range, piece) in pieces(&MARKER, bytes) {
            assert!(range.start == at && range.end > at, "{range:?} after {at}");
            at = range.end;
            if let Piece::Record(record) = piece {
                assert!(range.len() > HEAD && bytes[range].len() >= record.value.len());
            }
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn a_frame_within_a_record_is_no_frame() {
        let mut forged = Vec::new();
        encode(b"another's marker", Micros(7), &record(b"forged"), &mut forged);
        let (mut bytes, ends) = segment(&[forged, b"second".to_vec()]);
        assert_eq!(values(&bytes).len(), 2);
        bytes[20] ^= 1;
        let all = pieces(&MARKER, &bytes);
        assert!(
            matches!(&all[..], [(first, Piece::Damaged(_)), (_, Piece::Record(second))]
            if first.end == ends[0] && second.value == "second"),
            "{all:?}"
        );
    }

    proptest! {
        #[test]
        fn what_is_spilled_is_read(all in vec(vec(any::<u8>(), 0..60), 0..6), flip in any::<proptest::sample::Index>(), cut in any::<proptest::sample::Index>()) {
            let (bytes, ends) = segment(&all);
            assert_eq!(values(&bytes), all);
            if bytes.is_empty() {
                return Ok(());
            }
            // Cut anywhere: what is whole before the cut is there, the rest is torn, not damaged.
            let cut = cut.index(bytes.len());
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let pieces_of_cut = pieces(&MARKER, &bytes[..cut]);
            assert_eq!(values(&bytes[..cut]), all[..whole]);
            assert!(!pieces_of_cut.iter().any(|(_, piece)| matches!(piece, Piece::Damaged(_))), "{pieces_of_cut:?}");
            // One byte that is not as written: its frame is damaged, all others are there.
            let mut near = bytes.clone();
            let at = flip.index(bytes.len());
            near[at] ^= 0x55;
            let hit = ends.iter().filter(|end| **end <= at).count();
            let mut expected = all.clone();
            expected.remove(hit);
            assert_eq!(values(&near), expected);
            assert_eq!(pieces(&MARKER, &near).iter().filter(|(_, piece)| matches!(piece, Piece::Damaged(_))).count(), 1);
            assert_whole(&near);
        }

        #[test]
        fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..200), marked in any::<bool>()) {
            let bytes = if marked { [&MARKER[..], &bytes].concat() } else { bytes };
            assert_whole(&bytes);
        }
    }

    #[test]
    fn seeds_are_survived() {
        let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/spill_segment");
        let mut records = 0;
        for seed in std::fs::read_dir(seeds).expect("seeds").flatten() {
            let seed = std::fs::read(seed.path()).expect("a seed");
            assert_whole(&seed);
            records += values(&seed).len();
            for at in 0..seed.len() {
                let mut near = seed.clone();
                near[at] ^= 0xff;
                assert_whole(&near);
                assert_whole(&seed[..at]);
            }
        }
        assert!(records >= 4, "the seeds hold {records} records");
    }
}
