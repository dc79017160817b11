//! Where thoughts begin and end in a text that comes token by token.

/// The tag before thoughts.
pub const OPEN: &str = "<think>";
/// The tag after them.
pub const CLOSE: &str = "</think>";

/// The end of the thoughts that a sentence's end is looked for in.
const TAIL: usize = 64;

/// What became of the new tokens of a turn. Together the three counts are all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens sampled while a block of thoughts was open, less those that spell nothing but its closing tag.
    pub thinking_tokens: usize,
    /// Tokens sampled outside of thoughts, less those of opening tags.
    pub answer_tokens: usize,
    /// Tokens of tags, and of closings that a budget has forced.
    pub tag_tokens: usize,
    /// Whether a budget has forced a closing.
    pub budget_hit: bool,
}

/// Who chose a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The model, or somebody who speaks for it.
    Model,
    /// A budget that closes the thoughts.
    Closing,
}

/// Reads a turn's tokens by their text. Tags may be spread over tokens, or share them with other text.
///
/// A closing tag outside of thoughts and an opening tag inside of them are text like any other.
#[derive(Debug, Clone)]
pub(super) struct Thoughts {
    inside: bool,
    /// Bytes of the tag looked for that the text ends with. `<` is in a tag only as its beginning, so where
    /// the next character is wrong, a shorter part of the tag can only be that `<`.
    matched: usize,
    /// Tokens sampled so far that spell a part of those bytes and nothing else.
    partial: usize,
    /// The end of the open block's text.
    tail: String,
    usage: Usage,
}

impl Thoughts {
    /// Before the first token; `opened` says that the prompt has opened a block.
    pub(super) fn new(opened: bool) -> Self {
        Self { inside: opened, matched: 0, partial: 0, tail: String::new(), usage: Usage::default() }
    }

    /// Whether a block is open.
    pub(super) fn inside(&self) -> bool {
        self.inside
    }

    /// Bytes of the tag looked for that have come.
    pub(super) fn matched(&self) -> usize {
        self.matched
    }

    /// The end of the open block's text.
    pub(super) fn tail(&self) -> &str {
        &self.tail
    }

    /// The counts so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// A token and the text that it completes.
    pub(super) fn push(&mut self, piece: &str, origin: Origin) {
        let was_inside = self.inside;
        // Torn characters come late, before the text of the first token that does not continue them.
        let own = piece.trim_start_matches('\u{FFFD}');
        for torn in piece[..piece.len() - own.len()].chars() {
            self.extend(torn, false);
        }
        // Whether the token has spelled nothing but the tag.
        let mut pure = !own.is_empty();
        let mut opened = false;
        for (at, c) in own.char_indices() {
            pure &= self.extend(c, at == 0);
            let tag = if self.inside { CLOSE } else { OPEN };
            if self.matched == tag.len() {
                opened |= !self.inside;
                self.complete(was_inside);
                pure &= at + c.len_utf8() == own.len();
            }
        }
        let completed = self.matched == 0;
        self.partial += usize::from(pure && !completed && origin == Origin::Model);
        let Usage { thinking_tokens, answer_tokens, tag_tokens, .. } = &mut self.usage;
        *match origin {
            Origin::Closing => tag_tokens,
            Origin::Model if opened || pure && completed => tag_tokens,
            Origin::Model if was_inside => thinking_tokens,
            Origin::Model => answer_tokens,
        } += 1;
    }

    /// A character of the text; whether it continues the tag, which a token's `first` one may also begin.
    fn extend(&mut self, c: char, first: bool) -> bool {
        if self.inside {
            if self.tail.len() >= 2 * TAIL {
                let from = self.tail.floor_char_boundary(TAIL);
                self.tail.drain(..from);
            }
            self.tail.push(c);
        }
        let tag = if self.inside { CLOSE } else { OPEN };
        if tag[self.matched..].starts_with(c) {
            self.matched += 1;
            return self.matched > 1 || first;
        }
        self.partial = 0;
        self.matched = usize::from(c == '<');
        first && self.matched == 1
    }

    /// The tag is whole: its earlier tokens, counted as if they were text, were not.
    fn complete(&mut self, counted_inside: bool) {
        let Usage { thinking_tokens, answer_tokens, tag_tokens, .. } = &mut self.usage;
        *(if counted_inside { thinking_tokens } else { answer_tokens }) -= self.partial;
        *tag_tokens += self.partial;
        self.partial = 0;
        self.matched = 0;
        self.inside = !self.inside;
        self.tail.clear();
    }

    /// A budget has forced a closing.
    pub(super) fn hit(&mut self) {
        self.usage.budget_hit = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(opened: bool, pieces: &[&str]) -> (bool, [usize; 3]) {
        let mut thoughts = Thoughts::new(opened);
        for piece in pieces {
            thoughts.push(piece, Origin::Model);
        }
        let usage = thoughts.usage();
        assert_eq!(usage.thinking_tokens + usage.answer_tokens + usage.tag_tokens, pieces.len());
        (thoughts.inside(), [usage.thinking_tokens, usage.answer_tokens, usage.tag_tokens])
    }

    #[test]
    fn tokens_are_counted_where_they_were_sampled() {
        assert_eq!(read(false, &["a", "b"]), (false, [0, 2, 0]));
        assert_eq!(read(true, &["a", "b"]), (true, [2, 0, 0]));
        assert_eq!(read(true, &["a", "</think>", "b"]), (false, [1, 1, 1]));
        assert_eq!(read(false, &["<think>", "a", "</think>", "b"]), (false, [1, 1, 2]));
        // Twice, and they add up.
        let twice = ["<think>", "a", "</think>", "b", "<think>", "c", "d", "</think>", "e"];
        assert_eq!(read(false, &twice), (false, [3, 2, 4]));
        // Half a character has no text, and is a token all the same.
        assert_eq!(read(true, &["", "漢", "</think>", "", "字"]), (false, [2, 2, 1]));
        assert_eq!(read(true, &["", "\u{FFFD}</", "think>"]), (false, [1, 0, 2]));
    }

    #[test]
    fn tags_share_tokens_with_other_text() {
        assert_eq!(read(false, &["x<think>a", "b</think>c", "d"]), (false, [1, 1, 1]));
        assert_eq!(read(true, &["x<", "/think", ">\n\n", "d"]), (false, [2, 1, 1]));
        assert_eq!(read(false, &["<think></think>", "d"]), (false, [0, 1, 1]));
        assert_eq!(read(true, &["</think><think>", "d"]), (true, [1, 0, 1]));
    }

    #[test]
    fn what_is_no_tag_is_text() {
        assert_eq!(read(false, &["a", "</think>", "b"]), (false, [0, 3, 0]));
        assert_eq!(read(true, &["a", "<think>", "b"]), (true, [3, 0, 0]));
        assert_eq!(read(true, &["</", "thin", "</", "think", ">"]), (false, [2, 0, 3]));
        assert_eq!(read(true, &["<", "<", "/think>"]), (false, [1, 0, 2]));
        assert_eq!(read(true, &["</", "thing", ">"]), (true, [3, 0, 0]));
        assert_eq!(read(true, &["</think", " >"]), (true, [2, 0, 0]));
    }

    #[test]
    fn a_tag_may_be_split_anywhere() {
        // Each bit is a cut before the byte of that number.
        for cuts in 0..1_usize << (CLOSE.len() - 1) {
            let mut pieces = vec!["a"];
            let mut from = 0;
            for at in 1..=CLOSE.len() {
                if at == CLOSE.len() || cuts >> (at - 1) & 1 == 1 {
                    pieces.push(&CLOSE[from..at]);
                    from = at;
                }
            }
            let tags = pieces.len() - 1;
            pieces.push("b");
            assert_eq!(read(true, &pieces), (false, [1, 1, tags]), "{pieces:?}");
        }
    }

    #[test]
    fn the_tail_is_the_end_of_the_open_block() {
        let mut thoughts = Thoughts::new(false);
        thoughts.push("before<think>", Origin::Model);
        assert_eq!(thoughts.tail(), "");
        for _ in 0..200 {
            thoughts.push("é漢", Origin::Model);
        }
        assert!(thoughts.tail().len() <= 2 * TAIL + 4 && thoughts.tail().ends_with("é漢é漢"));
        thoughts.push("</think>after", Origin::Model);
        assert_eq!((thoughts.tail(), thoughts.matched()), ("", 0));
    }
}
