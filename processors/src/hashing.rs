//! Digests of keys and rows. They live in memory only, so that their seeds may be random.

use std::hash::{BuildHasher, Hash, Hasher};

use hashbrown::DefaultHashBuilder;
use kiro_schemas::Value;

/// Two seeded hash functions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hashing {
    first: DefaultHashBuilder,
    second: DefaultHashBuilder,
}

impl Hashing {
    /// A digest of a key, wide enough that two keys never meet.
    pub(crate) fn key<'v>(&self, values: impl Iterator<Item = &'v Value<'v>>) -> u128 {
        let (mut first, mut second) = (self.first.build_hasher(), self.second.build_hasher());
        second.write_u64(0x9e37_79b9_7f4a_7c15);
        for value in values {
            write(value, &mut first);
            write(value, &mut second);
        }
        (u128::from(first.finish()) << 64) | u128::from(second.finish())
    }

    /// A digest of the values of a row.
    pub(crate) fn row(&self, values: &[Value<'_>]) -> u64 {
        let mut state = self.first.build_hasher();
        for value in values {
            write(value, &mut state);
        }
        state.finish()
    }

    /// A digest of anything.
    pub(crate) fn of(&self, value: impl Hash) -> u64 {
        self.first.hash_one(value)
    }
}

fn write(value: &Value<'_>, state: &mut impl Hasher) {
    std::mem::discriminant(value).hash(state);
    match value {
        Value::Null => {}
        Value::Text(text) => text.hash(state),
        Value::Int(v) => v.hash(state),
        Value::Float(v) => v.to_bits().hash(state),
        Value::Bool(v) => v.hash(state),
        Value::Time(v) => v.hash(state),
        Value::Map(pairs) => pairs.hash(state),
    }
}
