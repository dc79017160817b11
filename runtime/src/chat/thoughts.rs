//! Thoughts that a cut answer has left open.

use crate::text::{CLOSE, Part, Reader};

/// A text whose thoughts end: where they are open, a closing tag is put behind them.
///
/// A template takes what stands before the tag for thoughts, so where an answer has begun there is none.
pub(super) fn closed(text: &str) -> String {
    let mut reader = Reader::default();
    let pieces = reader.push(text);
    let answered = pieces.iter().any(|(part, text)| *part == Part::Answer && !text.trim().is_empty());
    if reader.inside() && !answered {
        let thoughts = &text[..text.len() - reader.matched()];
        format!("{}\n{CLOSE}\n\n", thoughts.trim_end())
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_thoughts_are_closed() {
        assert_eq!(closed("<think>\na \n"), "<think>\na\n</think>\n\n");
        assert_eq!(closed(" <think>\na </thi"), " <think>\na\n</think>\n\n");
        assert_eq!(closed("<think>a</think>\n<think>b"), "<think>a</think>\n<think>b\n</think>\n\n");
        for whole in ["", "a", "<think>a</think>", "<think>a</think>b", "<thi", "a <think>b"] {
            assert_eq!(closed(whole), whole);
        }
    }
}
