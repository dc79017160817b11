//! The laws, a table per op family.
//!
//! Rules of these tables:
//! * A law is an equation that holds by what its ops mean; whether it pays is the cost model's business.
//! * No left side has more than four ops: a law, not a pass in disguise.
//! * A law is marked with what it does to the bits: an *exact* one changes none.
//! * Every law has its test in `tests/laws`, which executes both sides; the build fails without it.

mod attention;
mod ffn;
mod head;
mod linear;
mod norm;
mod scan;

use std::sync::OnceLock;

use super::law::{Class, Law, Parsed, When};

const fn law(name: &'static str, class: Class, left: &'static str, right: &'static str) -> Law {
    Law { name, class, left, right, when: &[] }
}

const fn law_when(
    name: &'static str,
    class: Class,
    left: &'static str,
    right: &'static str,
    when: &'static [When],
) -> Law {
    Law { name, class, left, right, when }
}

/// Every law, by family.
pub fn table() -> impl Iterator<Item = &'static Law> {
    [norm::LAWS, linear::LAWS, ffn::LAWS, scan::LAWS, attention::LAWS, head::LAWS].into_iter().flatten()
}

/// Every law with its sides read, in the order of the tables.
///
/// # Panics
/// When a line of a table cannot be read, which a test rules out.
pub fn parsed() -> &'static [Parsed] {
    static LAWS: OnceLock<Vec<Parsed>> = OnceLock::new();
    LAWS.get_or_init(|| table().map(|law| Parsed::of(*law).unwrap_or_else(|what| panic!("{what}"))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saturate::law::ops;

    #[test]
    fn every_law_reads_and_is_small() {
        for parsed in parsed() {
            let count = ops(&parsed.left);
            assert!((1..=4).contains(&count), "law `{}` has {count} ops on its left", parsed.law.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = table().map(|law| law.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
