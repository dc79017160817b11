//! Where a text may be cut without cutting a sentence.

/// What ends a sentence: Latin, Greek, CJK, Devanagari, Arabic, Urdu, Armenian, Ethiopic, Burmese, Khmer, Tibetan.
const ENDS: &str = ".!?…;。！？｡．।॥؟۔։።፧။។།";

/// Of those, the ones that are also written inside of numbers and words, so what follows must be seen.
const AMBIGUOUS: &str = ".．;";

/// What may stand between a sentence's end and the cut.
const CLOSERS: &str = "\"'”’»)]」』）】*";

/// Whether a text ends with a line or a sentence.
pub(super) fn ends_sentence(text: &str) -> bool {
    let words = text.trim_end();
    if text[words.len()..].contains('\n') {
        return true;
    }
    let sentence = words.trim_end_matches(|c| CLOSERS.contains(c));
    let mut back = sentence.chars().rev();
    let Some(end) = back.next().filter(|c| ENDS.contains(*c)) else { return false };
    // `3.` may become `3.14`, unless a space has come.
    let open = AMBIGUOUS.contains(end) && sentence.len() == text.len();
    !(open && back.next().is_some_and(char::is_numeric))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_in_many_scripts() {
        for end in
            ["So it is.", "Is it?", "Yes!", "Well…", "好。", "好！", "好？", "ठीक है।", "هل هذا؟", "ہاں۔"]
        {
            assert!(ends_sentence(end), "{end}");
            assert!(ends_sentence(&format!("{end} ")), "{end} and a space");
        }
        for end in ["\n", "a\n", "a\n\n  ", "(He said \"yes.\")", "「好。」", "**So.**", "it is 3. "] {
            assert!(ends_sentence(end), "{end}");
        }
    }

    #[test]
    fn other_places_are_not_ends() {
        for middle in ["", " ", "a", "a, ", "a\nb", "it is 3.", "٣.", "“", ")", "好，", "a:"] {
            assert!(!ends_sentence(middle), "{middle}");
        }
    }
}
