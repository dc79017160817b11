//! What the text of a PTX module says of itself.

use std::collections::BTreeSet;

/// Names of the kernels that a module defines.
///
/// Comments are not looked at; a kernel's name is the word after `.entry`.
pub fn entries(text: &str) -> BTreeSet<&str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let words = code.flat_map(|line| line.split(|c: char| c.is_whitespace() || "(){};,".contains(c)));
    let mut words = words.filter(|word| !word.is_empty());
    let mut names = BTreeSet::new();
    while let Some(word) = words.next() {
        if word == ".entry" {
            names.extend(words.next());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::entries;

    proptest! {
        #[test]
        fn any_text_is_read(text in any::<String>()) {
            prop_assert!(entries(&text).into_iter().all(|name| !name.is_empty() && text.contains(name)));
        }

        #[test]
        fn every_kernel_is_found(names in prop::collection::btree_set("[a-z_][a-z0-9_$]{0,12}", 0..6)) {
            let module: String = names
                .iter()
                .map(|name| format!("// .entry no_{name}(\n.visible .entry {name}(.param .u64 a){{ call f, (a); }}\n"))
                .collect();
            prop_assert_eq!(entries(&module), names.iter().map(String::as_str).collect());
        }
    }

    #[test]
    fn kernels_are_found_and_functions_are_not() {
        let text = "
            .version 7.8
            // .entry commented(
            .visible .entry first_0(
                .param .u64 .ptr first_0_param_0
            )
            .func (.param .b32 r) helper(.param .b32 a) { ret; }
            .visible .entry
                second_1()
            .entry third{ }
        ";
        assert_eq!(entries(text).into_iter().collect::<Vec<_>>(), ["first_0", "second_1", "third"]);
        assert!(entries("").is_empty());
        assert!(entries(".entry").is_empty());
    }
}
