//! Seeded mutations of seeds, so that ordinary tests look around them too.

/// A seeded generator: `SplitMix64`.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = usize::try_from((z ^ (z >> 31)) >> 1).unwrap_or(usize::MAX);
        z % end.max(1)
    }
}

/// Pieces that parsers stumble over.
const PIECES: &[&[u8]] = &[
    b"",
    b"\0",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\n",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e999",
    b"NaN",
    b"99999999999999999999",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"\\ud800",
    b"&a ",
    b"*a",
    b"!!map ",
    b"$1",
    b"'",
    b"--",
    b"/*",
    b"0000-00-00T00:00:00Z",
    b"9999-12-31T23:59:60+23:59",
    b"%zz",
    b"\xf0\x9f\x92\xa9",
];

/// One to four small changes.
#[must_use]
pub fn mutate(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.below(4) {
        let (at, end) = (dice.below(bytes.len() + 1), dice.below(bytes.len() + 1));
        let (from, to) = (at.min(end), at.max(end));
        match dice.below(6) {
            0 if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << dice.below(8);
            }
            1 => drop(bytes.splice(at..at, PIECES[dice.below(PIECES.len())].iter().copied())),
            2 => drop(bytes.splice(from..(from + 8).min(to), PIECES[dice.below(PIECES.len())].iter().copied())),
            3 => drop(bytes.drain(from..to.min(from + 64))),
            4 => {
                let part = bytes[from..to.min(from + 256)].to_vec();
                drop(bytes.splice(at..at, part));
            }
            _ => bytes.truncate(at),
        }
    }
    bytes
}
