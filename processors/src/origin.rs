//! Where subjects come from: tenants and sources, kept once; and which of them are ours.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::hashing::Hashing;

/// Which part of the tenants and sources a fold keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// This shard, from 0.
    pub index: u32,
    /// How many there are.
    pub count: u32,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 0, count: 1 }
    }
}

impl Shard {
    /// Whether a source of a tenant belongs to this shard; the same in every process and version.
    ///
    /// # Source
    /// FNV-1a, 64 bits (draft-eastlake-fnv), over tenant, a zero byte and source.
    #[must_use]
    pub fn holds(self, tenant: &str, source: &str) -> bool {
        if self.count <= 1 {
            return true;
        }
        let bytes = tenant.bytes().chain([0]).chain(source.bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        hash % u64::from(self.count) == u64::from(self.index)
    }
}

impl Shard {
    /// Whether what crosses the sources of a tenant belongs to this shard: one shard has it.
    #[must_use]
    pub fn holds_tenant(self, tenant: &str) -> bool {
        self.holds(tenant, "")
    }
}

/// A source of a tenant.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) tenant: Arc<str>,
    pub(crate) source: Arc<str>,
    /// Whether its subjects are written here.
    pub(crate) is_ours: bool,
    /// Whether what crosses the sources of its tenant is folded here.
    pub(crate) is_tenant_ours: bool,
}

/// All sources that were seen.
#[derive(Debug)]
pub(crate) struct Origins {
    list: Vec<Origin>,
    index: HashTable<usize>,
    hashing: Hashing,
    shard: Shard,
}

impl Origins {
    pub(crate) fn new(hashing: Hashing, shard: Shard) -> Self {
        Self { list: Vec::new(), index: HashTable::new(), hashing, shard }
    }

    /// The number of a source; `recent` is the number that the row before had.
    pub(crate) fn number(&mut self, tenant: &str, source: &str, recent: usize) -> usize {
        let is_same = |origin: &Origin| &*origin.source == source && &*origin.tenant == tenant;
        if self.list.get(recent).is_some_and(is_same) {
            return recent;
        }
        let hash = self.hashing.of((tenant, source));
        let list = &self.list;
        if let Some(found) = self.index.find(hash, |i| is_same(&list[*i])) {
            return *found;
        }
        let number = self.list.len();
        let (is_ours, is_tenant_ours) = (self.shard.holds(tenant, source), self.shard.holds_tenant(tenant));
        self.list.push(Origin { tenant: tenant.into(), source: source.into(), is_ours, is_tenant_ours });
        let (list, hashing) = (&self.list, &self.hashing);
        self.index.insert_unique(hash, number, |i| hashing.of((&*list[*i].tenant, &*list[*i].source)));
        number
    }

    pub(crate) fn get(&self, number: usize) -> &Origin {
        &self.list[number]
    }

    pub(crate) const fn shard(&self) -> Shard {
        self.shard
    }
}
