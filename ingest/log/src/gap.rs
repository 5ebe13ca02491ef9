//! When a start does not fit what the log holds.

use kiro_ports::{Gap, Watermarks};
use kiro_schemas::TopicPartition;

/// Why a partition cannot start at an offset. `None` is the beginning, wherever that is.
pub(crate) fn check(at: &TopicPartition, start: Option<i64>, marks: Watermarks) -> Option<Gap> {
    let start = start?;
    let (found, reason) = if start > marks.high {
        let reason = format!("the tables stand at {start}, the log ends at {}: it was recreated or lost records", marks.high);
        (None, reason)
    } else if start < marks.low {
        let reason = format!("the tables stand at {start}, the log begins at {}: retention deleted what is between", marks.low);
        (Some(marks.low), reason)
    } else {
        return None;
    };
    Some(Gap { at: at.clone(), expected: start, found, reason })
}

#[cfg(test)]
mod tests {
    use kiro_ports::Watermarks;
    use kiro_schemas::TopicPartition;

    #[test]
    fn starts_between_the_watermarks_and_the_beginning_fit() {
        let at = TopicPartition::new("t", 0);
        let found = |start| super::check(&at, start, Watermarks { low: 5, high: 9 }).map(|gap| gap.found);
        assert_eq!([None, Some(5), Some(7), Some(9)].map(found), [None; 4]);
        assert_eq!([0, 1, 4].map(|start| found(Some(start))), [Some(Some(5)); 3]);
        assert_eq!(found(Some(10)), Some(None));
    }
}
