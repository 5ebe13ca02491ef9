//! lcov's tracefiles: lines of `KEY:values`, a record a source file; the folder of the file is its package.
//!
//! # Source
//! `geninfo(1)`, lcov 2: `DA:line,hits`, `BRDA:line,block,branch,taken`, totals `LF LH BRF BRH`, `end_of_record`. The totals count
//! a line once that `DA` repeats, so they are believed where they stand.

use std::io::BufRead;

use memchr::memchr;

use super::{Counts, Coverage, Share};
use crate::error::{Error, Fail, Place, Result};
use crate::text::clip;
use crate::{Limits, input};

/// The record of one source file.
#[derive(Debug, Default)]
struct Record {
    file: Option<String>,
    /// Counted line by line.
    counted: Counts,
    /// As the record tells it: found and hit lines, found and hit branches.
    told: [Option<u64>; 4],
}

impl Record {
    fn counts(&self) -> Counts {
        let share = |found: Option<u64>, hit: Option<u64>, counted: Share| match (found, hit) {
            (Some(total), Some(covered)) => Share { covered: covered.min(total), total },
            _ => counted,
        };
        let [found, hit, branches_found, branches_hit] = self.told;
        Counts { lines: share(found, hit, self.counted.lines), branches: share(branches_found, branches_hit, self.counted.branches) }
    }

    /// Takes a line; whether the record ends with it.
    fn take(&mut self, line: &[u8]) -> std::result::Result<bool, Fail> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        let Some((key, values)) = text.split_once(':') else {
            return match text {
                "" => Ok(false),
                "end_of_record" => Ok(true),
                _ if text.starts_with('#') => Ok(false),
                _ => Err(Fail::broken(format!("{:?} is no line of a tracefile", clip(text, 60)))),
            };
        };
        let number =
            |text: &str| text.trim().parse::<u64>().map_err(|_no| Fail::broken(format!("{key} has no number: {:?}", clip(values, 60))));
        match key {
            "SF" => self.file = Some(values.to_owned()),
            "DA" => {
                let hits = values.split(',').nth(1).unwrap_or_default().trim();
                // Old tools write counts that ran over as negative numbers: such a line was run.
                let is_hit = hits.parse::<f64>().map_err(|_no| Fail::broken(format!("DA has no count: {:?}", clip(values, 60))))? != 0.0;
                self.counted.lines.add(u64::from(is_hit), 1);
            }
            "BRDA" => {
                let taken = values.rsplit(',').next().unwrap_or_default().trim();
                self.counted.branches.add(u64::from(!matches!(taken, "-" | "0" | "")), 1);
            }
            "LF" => self.told[0] = Some(number(values)?),
            "LH" => self.told[1] = Some(number(values)?),
            "BRF" => self.told[2] = Some(number(values)?),
            "BRH" => self.told[3] = Some(number(values)?),
            _ => {}
        }
        Ok(false)
    }
}

/// Reads a tracefile.
pub(crate) fn read(bytes: &mut dyn BufRead, limits: Limits) -> Result<Coverage> {
    let mut coverage = Coverage::new(limits);
    let (mut place, mut record, mut carry, mut records) = (Place::START, Record::default(), Vec::new(), 0_u64);
    let mut line = |line: &[u8], place: Place| {
        if record.take(line).map_err(|fail| fail.at(place))? {
            let record = std::mem::take(&mut record);
            let Some(file) = &record.file else { return Err(Fail::broken("a record ends that names no file (SF)").at(place)) };
            let folder = file.rsplit_once(['/', '\\']).map_or(".", |(folder, _)| folder);
            coverage.add(folder, record.counts());
            records += 1;
        }
        Ok(())
    };
    input::pieces(bytes, |mut piece| {
        while let Some(end) = memchr(b'\n', piece) {
            let (whole, rest) = piece.split_at(end + 1);
            if carry.is_empty() {
                line(whole, place)?;
            } else {
                carry.extend_from_slice(whole);
                line(&carry, place)?;
            }
            let length = if carry.is_empty() { whole.len() } else { carry.len() };
            place = Place { line: place.line + 1, offset: place.offset + length as u64 };
            carry.clear();
            piece = rest;
        }
        carry.extend_from_slice(piece);
        let too_large = |what, limit: u64| Err(Error::TooLarge { place, what, limit });
        if carry.len() > limits.piece_bytes {
            return too_large("a line is too long", limits.piece_bytes as u64);
        }
        if place.offset > limits.total_bytes {
            return too_large("it is too large", limits.total_bytes);
        }
        Ok(())
    })?;
    line(&carry, place)?;
    let is_open = record.file.is_some();
    match records {
        _ if is_open => Err(Fail::broken("it ends within a record").at(place)),
        0 => Err(Fail::broken("it has no record").at(place)),
        _ => Ok(coverage),
    }
}
