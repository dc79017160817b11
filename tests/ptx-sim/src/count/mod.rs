//! What a run would cost.

mod banks;
mod sectors;
mod tally;

pub(crate) use banks::wavefronts;
pub(crate) use sectors::{SECTOR, Sectors};
pub(crate) use tally::Tally;

use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Derives the sum field by field.
macro_rules! summed {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)+ }

        impl AddAssign<&$name> for $name {
            fn add_assign(&mut self, other: &$name) {
                $(add(&mut self.$field, &other.$field);)+
            }
        }

        impl AddAssign for $name {
            fn add_assign(&mut self, other: $name) {
                *self += &other;
            }
        }

        impl Sum for $name {
            fn sum(&mut self, other: &Self) {
                *self += other;
            }
        }
    };
}

trait Sum {
    fn sum(&mut self, other: &Self);
}

impl Sum for u64 {
    fn sum(&mut self, other: &Self) {
        *self += other;
    }
}

impl<K: Ord + Copy, V: Sum + Clone + Default> Sum for BTreeMap<K, V> {
    fn sum(&mut self, other: &Self) {
        for (&key, value) in other {
            self.entry(key).or_default().sum(value);
        }
    }
}

fn add<T: Sum>(into: &mut T, from: &T) {
    into.sum(from);
}

summed! {
    /// Instructions by kind.
    pub struct KindCounts {
        /// Moves, integer arithmetic, logic, comparisons, selections.
        pub integer: u64,
        /// Floating-point arithmetic but for the two kinds below.
        pub float: u64,
        /// Fused multiply-adds of numbers.
        pub fma: u64,
        /// Approximations, square roots and divisions.
        pub special: u64,
        /// Conversions.
        pub convert: u64,
        /// Loads and stores of all spaces.
        pub memory: u64,
        /// Atomics and reductions on memory.
        pub atomic: u64,
        /// Matrix products, and loads and stores of their fragments.
        pub tensor: u64,
        /// Asynchronous copies, their groups and waits.
        pub copy: u64,
        /// Shuffles, votes and other exchanges in a warp.
        pub shuffle: u64,
        /// Barriers of all kinds, fences, sleeps.
        pub barrier: u64,
        /// Branches, calls, returns.
        pub branch: u64,
    }
}

impl KindCounts {
    /// All instructions.
    pub fn total(&self) -> u64 {
        let Self { integer, float, fma, special, convert, memory, atomic, tensor, copy, shuffle, .. } = self;
        integer
            + float
            + fma
            + special
            + convert
            + memory
            + atomic
            + tensor
            + copy
            + shuffle
            + self.barrier
            + self.branch
    }
}

summed! {
    /// Loads from, or stores to, global memory.
    pub struct GlobalCounts {
        /// Instructions of a warp.
        pub requests: u64,
        /// Bytes that their lanes ask for.
        pub bytes: u64,
        /// Sectors of 32 bytes that they touch, each counted once per request.
        pub sectors: u64,
        /// Sectors that would hold the distinct bytes of each request, were they packed.
        pub ideal_sectors: u64,
        /// Sectors of which a request uses all 32 bytes.
        pub full_sectors: u64,
    }
}

impl GlobalCounts {
    /// Which part of the requested sectors is used in full; 1 without any.
    pub fn full_fraction(&self) -> f64 {
        if self.sectors == 0 { 1.0 } else { self.full_sectors as f64 / self.sectors as f64 }
    }
}

summed! {
    /// Loads from, or stores to, shared memory.
    pub struct SharedCounts {
        /// Instructions of a warp.
        pub requests: u64,
        /// Bytes that their lanes ask for.
        pub bytes: u64,
        /// Passes that they need beyond those of an access without bank conflicts.
        pub replays: u64,
    }
}

summed! {
    /// What a launch does with one allocation.
    pub struct AllocationCounts {
        /// Bytes of the allocation.
        pub bytes: u64,
        /// Distinct sectors that loads and copies read.
        pub load_sectors: u64,
        /// Distinct sectors that stores write.
        pub store_sectors: u64,
    }
}

summed! {
    /// Everything that is counted. Counts of several launches may be added; what is distinct is then distinct
    /// per launch, and the bytes of an allocation count once per launch that touches it.
    pub struct Counts {
        /// Launches.
        pub launches: u64,
        /// CTAs executed.
        pub ctas: u64,
        /// Warps executed.
        pub warps: u64,
        /// Instructions that warps execute, by kind.
        pub warp_instructions: KindCounts,
        /// Instructions that threads execute, by kind: those whose guard holds.
        pub thread_instructions: KindCounts,
        /// Branches at which lanes of a warp part.
        pub divergent_branches: u64,
        /// Loads from global memory.
        pub global_loads: GlobalCounts,
        /// Stores to global memory.
        pub global_stores: GlobalCounts,
        /// Reads of global memory by `cp.async`.
        pub global_copies: GlobalCounts,
        /// Distinct sectors read, over all allocations.
        pub unique_load_sectors: u64,
        /// Distinct sectors written, over all allocations.
        pub unique_store_sectors: u64,
        /// By address of the allocation, for those that are touched.
        pub per_allocation: BTreeMap<u64, AllocationCounts>,
        /// Loads from shared memory, `ldmatrix` included.
        pub shared_loads: SharedCounts,
        /// Stores to shared memory, `cp.async` and `stmatrix` included.
        pub shared_stores: SharedCounts,
        /// Bytes that `cp.async` brings, zero fill not counted.
        pub copy_bytes: u64,
        /// Bytes that bulk and tensor copies bring.
        pub bulk_bytes: u64,
        /// Atomic operations of threads on global memory.
        pub global_atomics: u64,
        /// Atomic operations of threads on shared memory.
        pub shared_atomics: u64,
        /// Loads from local memory by warps: spills, and arrays that registers don't hold.
        pub local_loads: u64,
        /// Stores to local memory by warps.
        pub local_stores: u64,
        /// Multiplications and additions of matrix products.
        pub mma_flops: u64,
        /// CTA barriers that warps arrive at.
        pub barriers: u64,
    }
}
