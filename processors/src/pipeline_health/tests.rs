//! Exact quantiles and retraction.

use kiro_schemas::Value;
use proptest::prelude::*;

use super::Sample;

#[test]
fn quantiles_interpolate() {
    let mut sample = Sample::default();
    assert_eq!(sample.quantile(0.5), Value::Null);
    for value in [40, 10, 20, 30] {
        sample.add(value);
    }
    assert_eq!(sample.quantile(0.5), Value::Float(25.0));
    assert_eq!(sample.quantile(1.0), Value::Float(40.0));
}

proptest! {
    #[test]
    fn what_is_taken_back_was_never_there(kept in prop::collection::vec(0_i64..100, 0..40), gone in prop::collection::vec(0_i64..100, 0..40), q in 0.0_f64..1.0) {
        let (mut one, mut other) = (Sample::default(), Sample::default());
        kept.iter().for_each(|v| one.add(*v));
        gone.iter().chain(&kept).for_each(|v| other.add(*v));
        gone.iter().for_each(|v| other.remove(*v));
        prop_assert_eq!(one.quantile(q), other.quantile(q));
    }
}
