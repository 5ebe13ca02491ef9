//! The bytes of a stored record.
//!
//! ```text
//! 1 version │ i64 recorded_at µs │ key │ value │ u32 count │ count × (name, value)      all little endian
//! key, value: 0 = none, or 1, u32 length, bytes      name, value of a header: u32 length, bytes
//! ```

use bytes::Bytes;
use kiro_ports::{Headers, NewRecord, Record};
use kiro_schemas::Micros;

const VERSION: u8 = 1;

/// How many bytes of key, value and headers a record has.
pub(super) fn size(record: &NewRecord) -> usize {
    let headers: usize = record.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    record.key.as_ref().map_or(0, Bytes::len) + record.value.len() + headers
}

/// Writes a record.
pub(super) fn encode(recorded_at: Micros, key: Option<&[u8]>, value: Option<&[u8]>, headers: &Headers) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len));
    out.push(VERSION);
    out.extend_from_slice(&recorded_at.0.to_le_bytes());
    for part in [key, value] {
        match part {
            None => out.push(0),
            Some(bytes) => {
                out.push(1);
                put(&mut out, bytes);
            }
        }
    }
    out.extend_from_slice(&length(headers.len()).to_le_bytes());
    for (name, value) in headers {
        put(&mut out, name.as_bytes());
        put(&mut out, value);
    }
    out
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes.len()).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Records are limited to far less than 4 GiB before they come here.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Reads a record; the error says what is wrong with the bytes.
pub(super) fn decode(offset: i64, bytes: &[u8]) -> Result<Record, &'static str> {
    let mut rest = Reader { all: Bytes::copy_from_slice(bytes), at: 0 };
    if rest.byte()? != VERSION {
        return Err("an unknown version of the record");
    }
    let recorded_at = Micros(i64::from_le_bytes(rest.array()?));
    let key = rest.optional()?;
    let value = rest.optional()?;
    let count = rest.length()?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = std::str::from_utf8(&rest.block()?).map_err(|_bytes| "a header's name is no UTF-8")?.to_owned();
        headers.push((name, rest.block()?));
    }
    if rest.at != rest.all.len() {
        return Err("bytes after its end");
    }
    Ok(Record { offset, recorded_at, key, value, headers })
}

/// A digest of bytes.
///
/// # Source
/// FNV-1a, 64 bits: draft-eastlake-fnv section 2. Stored data depends on it: it never changes.
pub(super) fn fnv1a(bytes: &[u8]) -> u64 {
    fnv1a_on(0xcbf2_9ce4_8422_2325, bytes)
}

/// The digest of what `before` is the digest of, and these bytes after it.
pub(super) fn fnv1a_on(before: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(before, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

struct Reader {
    all: Bytes,
    at: usize,
}

impl Reader {
    fn take(&mut self, count: usize) -> Result<Bytes, &'static str> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.all.len()).ok_or("it is cut short")?;
        let part = self.all.slice(self.at..end);
        self.at = end;
        Ok(part)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        self.take(N)?.as_ref().try_into().map_err(|_length| "it is cut short")
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.array::<1>()?[0])
    }

    fn length(&mut self) -> Result<usize, &'static str> {
        usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_wide| "a length is too large")
    }

    fn block(&mut self) -> Result<Bytes, &'static str> {
        let length = self.length()?;
        self.take(length)
    }

    fn optional(&mut self) -> Result<Option<Bytes>, &'static str> {
        match self.byte()? {
            0 => Ok(None),
            1 => self.block().map(Some),
            _ => Err("a mark is neither 0 nor 1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kiro_schemas::Micros;
    use proptest::collection::vec;
    use proptest::option::of;
    use proptest::prelude::{any, proptest};

    use super::{decode, encode, fnv1a};

    #[test]
    fn digests_stay_what_they_are_from_version_to_version() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            at in any::<i64>(), key in of(vec(any::<u8>(), 0..40)), value in of(vec(any::<u8>(), 0..200)),
            headers in vec(("[a-zé-]{0,9}", vec(any::<u8>(), 0..20)), 0..4),
        ) {
            let headers: Vec<_> = headers.into_iter().map(|(n, v)| (n, Bytes::from(v))).collect();
            let bytes = encode(Micros(at), key.as_deref(), value.as_deref(), &headers);
            let back = decode(7, &bytes).expect("own bytes");
            assert_eq!((back.offset, back.recorded_at), (7, Micros(at)));
            assert_eq!((back.key.as_deref(), back.value.as_deref()), (key.as_deref(), value.as_deref()));
            assert_eq!(back.headers, headers);
            for cut in 0..bytes.len() {
                assert!(decode(7, &bytes[..cut]).is_err(), "cut at {cut}");
            }
        }

        #[test]
        fn what_is_decoded_is_encoded_the_same(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/embedded_record");
            for seed in std::fs::read_dir(seeds).expect("seeds").flatten() {
                let seed = std::fs::read(seed.path()).expect("a seed");
                let mut near = seed.clone();
                if !near.is_empty() {
                    near[at.index(seed.len())] = byte;
                }
                for bytes in [seed, near] {
                    if let Ok(record) = decode(7, &bytes) {
                        let again = encode(record.recorded_at, record.key.as_deref(), record.value.as_deref(), &record.headers);
                        assert_eq!(again, bytes);
                    }
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..100)) {
            drop(decode(0, &bytes));
        }
    }
}
