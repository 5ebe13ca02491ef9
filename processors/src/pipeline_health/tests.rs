//! Exact quantiles and retraction.

use proptest::prelude::*;

use super::Sample;

#[test]
fn quantiles_interpolate() {
    let mut sample = Sample::default();
    assert_eq!(sample.quantile(0.5), None);
    for value in [40, 10, 20, 30] {
        sample.add(value);
    }
    assert_eq!(sample.quantile(0.5), Some(25.0));
    assert_eq!(sample.quantile(1.0), Some(40.0));
}

proptest! {
    #[test]
    fn what_is_taken_back_was_never_there(kept in prop::collection::vec(0_i64..100, 0..40), gone in prop::collection::vec(0_i64..100, 0..40), q in 0.0_f64..1.0) {
        let (mut one, mut other) = (Sample::default(), Sample::default());
        for value in &kept {
            one.add(*value);
        }
        for value in gone.iter().chain(&kept) {
            other.add(*value);
        }
        for value in &gone {
            other.remove(*value);
        }
        prop_assert_eq!(one.quantile(q), other.quantile(q));
    }
}
