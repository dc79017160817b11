//! Macros that turn an expression of one lane into a function of all lanes, in a loop that vectorises.

macro_rules! lanes {
    ($out:ty; $($arg:ident: $ty:ty),+; $e:expr) => {{
        #[allow(clippy::needless_range_loop)]
        fn all_lanes(d: &mut [$out; 32], $($arg: &[$ty; 32]),+) {
            for lane in 0..32 {
                $(let $arg = $arg[lane];)+
                d[lane] = $e;
            }
        }
        all_lanes
    }};
}

macro_rules! w1 { ($a:ident => $e:expr) => { lanes!(u32; $a: u32; $e) as FnW1 }; }
macro_rules! w2 { ($a:ident, $b:ident => $e:expr) => { lanes!(u32; $a: u32, $b: u32; $e) as FnW2 }; }
macro_rules! w3 {
    ($a:ident, $b:ident, $c:ident => $e:expr) => { lanes!(u32; $a: u32, $b: u32, $c: u32; $e) as FnW3 };
}
macro_rules! d1 { ($a:ident => $e:expr) => { lanes!(u64; $a: u64; $e) as FnD1 }; }
macro_rules! d2 { ($a:ident, $b:ident => $e:expr) => { lanes!(u64; $a: u64, $b: u64; $e) as FnD2 }; }
macro_rules! d3 {
    ($a:ident, $b:ident, $c:ident => $e:expr) => { lanes!(u64; $a: u64, $b: u64, $c: u64; $e) as FnD3 };
}
macro_rules! wd { ($a:ident => $e:expr) => { lanes!(u32; $a: u64; $e) as FnWD }; }

/// The mask of lanes in which an expression of two operands holds.
macro_rules! cmp {
    ($ty:ty; $a:ident, $b:ident => $e:expr) => {{
        fn all_lanes(a: &[$ty; 32], b: &[$ty; 32]) -> u32 {
            let mut flags = [0u32; 32];
            for lane in 0..32 {
                let ($a, $b) = (a[lane], b[lane]);
                flags[lane] = u32::from($e) << lane;
            }
            flags.iter().fold(0, |mask, flag| mask | flag)
        }
        all_lanes
    }};
}

pub(crate) use {cmp, d1, d2, d3, lanes, w1, w2, w3, wd};
