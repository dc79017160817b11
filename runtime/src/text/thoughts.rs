//! Where thoughts begin and end in a text that comes token by token.

/// The tag before thoughts.
pub const OPEN: &str = "<think>";
/// The tag after them.
pub const CLOSE: &str = "</think>";

/// The end of the thoughts that a sentence's end is looked for in.
const TAIL: usize = 64;

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Thoughts.
    Thought,
    /// Text outside of them.
    Answer,
    /// A tag, or as much of a closing one as the text ends with.
    Tag,
    /// White space between a closing tag and what follows.
    Gap,
}

/// Tells thoughts, answer and tags from each other in a text that comes in pieces.
///
/// A block may begin anywhere outside of thoughts. A closing tag there and an opening tag inside of thoughts are
/// text like any other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reader {
    inside: bool,
    /// Bytes of the tag looked for that the text ends with. `<` is in a tag only as its beginning, so where
    /// the next character is wrong, a shorter part of the tag can only be that `<`.
    matched: usize,
    /// Whether only white space has come since a closing tag.
    gap: bool,
}

/// What one more character means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    /// Bytes before it that could have become a tag and are text.
    released: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It is text.
    Text,
    /// It is white space after a closing tag.
    Gap,
    /// It may be part of a tag.
    Held,
    /// It is the last one of a tag.
    Tag,
}

impl Reader {
    /// Before the first piece; `opened` says that the prompt has opened a block.
    pub(crate) fn new(opened: bool) -> Self {
        Self { inside: opened, ..Self::default() }
    }

    /// Whether a block is open.
    pub(crate) fn inside(&self) -> bool {
        self.inside
    }

    /// Bytes at the end of the text that are held back, as they may become a tag.
    pub(crate) fn matched(&self) -> usize {
        self.matched
    }

    /// What is now certain, in order.
    pub(crate) fn push(&mut self, text: &str) -> Vec<(Part, String)> {
        let mut pieces = Vec::new();
        for c in text.chars() {
            let (place, tag) = (self.place(), self.tag());
            let step = self.step(c);
            add(&mut pieces, place, &tag[..step.released]);
            let mut bytes = [0; 4];
            let c = c.encode_utf8(&mut bytes);
            match step.kind {
                Kind::Text => add(&mut pieces, place, c),
                Kind::Gap => add(&mut pieces, Part::Gap, c),
                Kind::Held => {}
                Kind::Tag => add(&mut pieces, Part::Tag, tag),
            }
        }
        pieces
    }

    /// What is held back, where no more comes. The part of a closing tag that a cut has left is no thought.
    pub(crate) fn finish(&mut self) -> Option<(Part, String)> {
        let held = &self.tag()[..self.matched];
        let part = if self.inside { Part::Tag } else { Part::Answer };
        self.matched = 0;
        (!held.is_empty()).then(|| (part, held.to_owned()))
    }

    fn step(&mut self, c: char) -> Step {
        let tag = self.tag();
        if tag[self.matched..].starts_with(c) {
            self.matched += 1;
            let whole = self.matched == tag.len();
            if whole {
                *self = Self { inside: !self.inside, matched: 0, gap: self.inside };
            }
            return Step { released: 0, kind: if whole { Kind::Tag } else { Kind::Held } };
        }
        let released = std::mem::replace(&mut self.matched, usize::from(c == '<'));
        self.gap &= released == 0 && c.is_whitespace();
        let kind = match (self.matched, self.gap) {
            (1, _) => Kind::Held,
            (_, true) => Kind::Gap,
            (_, false) => Kind::Text,
        };
        Step { released, kind }
    }

    /// The tag looked for.
    fn tag(&self) -> &'static str {
        if self.inside { CLOSE } else { OPEN }
    }

    /// What text is here.
    fn place(&self) -> Part {
        if self.inside { Part::Thought } else { Part::Answer }
    }
}

/// Adds text to pieces; as long as a part goes on it is one piece.
fn add(pieces: &mut Vec<(Part, String)>, part: Part, text: &str) {
    match pieces.last_mut() {
        _ if text.is_empty() => {}
        Some((last, piece)) if *last == part => piece.push_str(text),
        _ => pieces.push((part, text.to_owned())),
    }
}

/// What became of the new tokens of a turn. Together the three counts are all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens sampled while a block of thoughts was open, less those that spell nothing but its closing tag.
    pub thinking_tokens: usize,
    /// Tokens sampled outside of thoughts, less those of tags.
    pub answer_tokens: usize,
    /// Tokens of tags with the white space after closing ones, and of closings that a budget has forced. Where the text
    /// ends with a part of a closing tag, those of that part, too.
    pub tag_tokens: usize,
    /// Whether a budget has forced a closing and the thoughts are as long as the budget. Where it has only completed a tag
    /// that the model was writing, they may be shorter.
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

/// Counts a turn's tokens by their text. Tags may be spread over tokens, or share them with other text.
#[derive(Debug, Clone)]
pub(super) struct Thoughts {
    reader: Reader,
    /// Tokens sampled so far that spell a part of what is held back and nothing else. They are counted as if a closing tag
    /// went on, and an opening one did not.
    partial: usize,
    /// The end of the open block's text.
    tail: String,
    usage: Usage,
}

impl Thoughts {
    /// Before the first token; `opened` says that the prompt has opened a block.
    pub(super) fn new(opened: bool) -> Self {
        Self { reader: Reader::new(opened), partial: 0, tail: String::new(), usage: Usage::default() }
    }

    /// Whether a block is open.
    pub(super) fn inside(&self) -> bool {
        self.reader.inside()
    }

    /// Bytes of the tag looked for that have come.
    pub(super) fn matched(&self) -> usize {
        self.reader.matched()
    }

    /// The end of the open block's text, without what may become its closing tag.
    pub(super) fn tail(&self) -> &str {
        &self.tail
    }

    /// The tokens of thoughts, should a closing tag that has begun turn out to be none.
    pub(super) fn spent(&self) -> usize {
        self.usage.thinking_tokens + if self.inside() { self.partial } else { 0 }
    }

    /// The counts so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// A token and the text that it completes.
    pub(super) fn push(&mut self, piece: &str, origin: Origin) {
        let was_inside = self.inside();
        // Torn characters come late, before the text of the first token that does not continue them.
        let own = piece.trim_start_matches('\u{FFFD}');
        for torn in piece[..piece.len() - own.len()].chars() {
            self.read(torn);
        }
        // Whether the token has spelled nothing but one tag, or a part of it.
        let mut pure = !own.is_empty();
        let mut opened = false;
        let mut begun = false;
        for (at, c) in own.char_indices() {
            let Step { released, kind } = self.read(c);
            pure &= match kind {
                Kind::Text => false,
                Kind::Held => !begun && (at == 0 || released == 0),
                Kind::Gap | Kind::Tag => true,
            };
            begun |= kind != Kind::Held;
            opened |= kind == Kind::Tag && self.inside();
        }
        let held = self.matched() > 0;
        self.partial += usize::from(pure && held && origin == Origin::Model);
        let Usage { thinking_tokens, answer_tokens, tag_tokens, .. } = &mut self.usage;
        *match origin {
            Origin::Closing => tag_tokens,
            Origin::Model if opened || pure && (was_inside || !held) => tag_tokens,
            Origin::Model if was_inside => thinking_tokens,
            Origin::Model => answer_tokens,
        } += 1;
    }

    /// A character of the text; earlier tokens of a tag are counted anew once it is known whether it is one.
    fn read(&mut self, c: char) -> Step {
        let was_inside = self.inside();
        let step = self.reader.step(c);
        let Usage { thinking_tokens, answer_tokens, tag_tokens, .. } = &mut self.usage;
        if step.released > 0 {
            let partial = std::mem::take(&mut self.partial);
            if was_inside {
                *tag_tokens -= partial;
                *thinking_tokens += partial;
            }
        }
        if step.kind == Kind::Tag {
            let partial = std::mem::take(&mut self.partial);
            if !was_inside {
                *answer_tokens -= partial;
                *tag_tokens += partial;
            }
            self.tail.clear();
        } else if was_inside {
            if self.tail.len() >= 2 * TAIL {
                let from = self.tail.floor_char_boundary(TAIL);
                self.tail.drain(..from);
            }
            self.tail.push_str(&CLOSE[..step.released]);
            self.tail.extend((step.kind == Kind::Text).then_some(c));
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The parts of a text that comes in pieces, with what is left at the end.
    fn parts<'p>(opened: bool, pieces: impl IntoIterator<Item = &'p str>) -> Vec<(Part, String)> {
        let mut reader = Reader::new(opened);
        let mut parts = Vec::new();
        for (part, text) in pieces.into_iter().flat_map(|piece| reader.push(piece)).collect::<Vec<_>>() {
            add(&mut parts, part, &text);
        }
        if let Some((part, text)) = reader.finish() {
            add(&mut parts, part, &text);
        }
        parts
    }

    #[test]
    fn a_text_has_thoughts_answers_and_tags() {
        use Part::{Answer, Gap, Tag, Thought};
        let is = |opened, text: &str, wanted: &[(Part, &str)]| {
            let wanted: Vec<_> = wanted.iter().map(|(part, text)| (*part, (*text).to_owned())).collect();
            assert_eq!(parts(opened, [text]), wanted, "{text}");
        };
        is(
            false,
            " <think>a <b</think>\n c",
            &[(Answer, " "), (Tag, OPEN), (Thought, "a <b"), (Tag, CLOSE), (Gap, "\n "), (Answer, "c")],
        );
        is(false, "a <think>b", &[(Answer, "a "), (Tag, OPEN), (Thought, "b")]);
        is(false, "a</think>b", &[(Answer, "a</think>b")]);
        is(true, "<think>b</think><", &[(Thought, "<think>b"), (Tag, CLOSE), (Answer, "<")]);
        is(true, "a</thi", &[(Thought, "a"), (Tag, "</thi")]);
        is(false, "a<thi", &[(Answer, "a<thi")]);
    }

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
        // Before the tag, the text counts; after it, white space is the tag's.
        assert_eq!(read(true, &["x<", "/think", ">\n\n", "d"]), (false, [1, 1, 2]));
        assert_eq!(read(true, &["</", "think", ">", "\n\n", " ", "d", " "]), (false, [0, 2, 5]));
        assert_eq!(read(true, &["</think>\n", "\n<", "think>", "\n"]), (true, [1, 1, 2]));
        assert_eq!(read(true, &["a</think>\n\n", "\nd"]), (false, [1, 1, 0]));
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
        assert_eq!(read(true, &["</", "th"]), (true, [0, 0, 2]));
        assert_eq!(read(true, &["</", "th", "reat>"]), (true, [3, 0, 0]));
        assert_eq!(read(true, &["<<", "/think>"]), (false, [1, 0, 1]));
        assert_eq!(read(false, &["<", "think"]), (false, [0, 2, 0]));
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

    proptest! {
        #[test]
        fn pieces_are_parted_as_the_whole(
            opened: bool,
            words in proptest::collection::vec(
                prop::sample::select(vec!["<think>", "</think>", "<", "a", " ", "é", "/think>", "</thi"]), 0..8),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = words.concat();
            let mut bounds: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
            bounds.push(text.len());
            let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.get(&bounds)).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let parted = parts(opened, cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]));
            let joined: String = parted.iter().map(|(_, piece)| piece.as_str()).collect();
            prop_assert_eq!(joined.as_str(), text.as_str());
            prop_assert_eq!(parted, parts(opened, [text.as_str()]));
        }
    }
}
