//! Tells thoughts from the answer while the text comes in.

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// What a piece of text is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Thoughts, with their tags.
    Thought,
    /// The answer.
    Answer,
}

/// Where in a text one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    /// Before the answer, where thoughts may begin, also once more.
    #[default]
    Before,
    Inside,
    Answer,
}

/// Parts a text that comes in pieces, and holds back what may become a tag.
#[derive(Debug, Clone, Default)]
pub struct Thoughts {
    place: Place,
    held: String,
}

impl Thoughts {
    /// The parts that are now certain, in order.
    pub fn push(&mut self, piece: &str) -> Vec<(Part, String)> {
        self.held.push_str(piece);
        let mut parts = Vec::new();
        loop {
            match self.place {
                Place::Before => {
                    let begun = self.held.trim_start();
                    if begun.starts_with(OPEN) {
                        let end = self.held.len() - begun.len() + OPEN.len();
                        parts.push((Part::Thought, self.release(end)));
                        self.place = Place::Inside;
                    } else if OPEN.starts_with(begun) {
                        return parts;
                    } else {
                        self.place = Place::Answer;
                    }
                }
                Place::Inside => {
                    if let Some(at) = self.held.find(CLOSE) {
                        parts.push((Part::Thought, self.release(at + CLOSE.len())));
                        self.place = Place::Before;
                    } else {
                        let begins = |at: &usize| CLOSE.starts_with(&self.held[*at..]);
                        let certain = self.held.char_indices().map(|(at, _)| at).find(begins);
                        let certain = certain.unwrap_or(self.held.len());
                        if certain > 0 {
                            parts.push((Part::Thought, self.release(certain)));
                        }
                        return parts;
                    }
                }
                Place::Answer => {
                    if !self.held.is_empty() {
                        parts.push((Part::Answer, self.release(self.held.len())));
                    }
                    return parts;
                }
            }
        }
    }

    /// What was held back, when no more comes.
    pub fn finish(&mut self) -> Option<(Part, String)> {
        let part = if self.place == Place::Inside { Part::Thought } else { Part::Answer };
        let held = std::mem::take(&mut self.held);
        (!held.is_empty()).then_some((part, held))
    }

    /// Takes the beginning of what is held, up to a place in it.
    fn release(&mut self, end: usize) -> String {
        let rest = self.held.split_off(end);
        std::mem::replace(&mut self.held, rest)
    }
}

/// A text whose thoughts end: where they are open, a closing tag is put behind them.
pub(super) fn closed(text: &str) -> String {
    let mut thoughts = Thoughts::default();
    thoughts.push(text);
    if thoughts.place == Place::Inside {
        format!("{}\n{CLOSE}\n\n", text.trim_end())
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Thoughts and answer of a text that comes in pieces.
    fn parted<'p>(pieces: impl IntoIterator<Item = &'p str>) -> [String; 2] {
        let mut thoughts = Thoughts::default();
        let mut parts = Vec::new();
        for piece in pieces {
            parts.extend(thoughts.push(piece));
        }
        parts.extend(thoughts.finish());
        [Part::Thought, Part::Answer].map(|wanted| {
            parts.iter().filter(|(part, _)| *part == wanted).map(|(_, text)| text.as_str()).collect()
        })
    }

    #[test]
    fn thoughts_stand_before_the_answer() {
        assert_eq!(parted(["<thi", "nk>a <b </thin", "k", ">\n\n", "c"]), ["<think>a <b </think>", "\n\nc"]);
        assert_eq!(
            parted([" <think>a</think>\n<think>b</think>c"]),
            [" <think>a</think>\n<think>b</think>", "c"]
        );
        assert_eq!(parted(["a <think>b</think>"]), ["", "a <think>b</think>"]);
        assert_eq!(parted(["a</think>b"]), ["", "a</think>b"]);
        assert_eq!(parted(["<think>a </th"]), ["<think>a </th", ""]);
        assert_eq!(parted(["<thi"]), ["", "<thi"]);
        assert_eq!(parted(["  "]), ["", "  "]);
    }

    #[test]
    fn open_thoughts_are_closed() {
        assert_eq!(closed("<think>\na \n"), "<think>\na\n</think>\n\n");
        for whole in ["", "a", "<think>a</think>", "<think>a</think>b", "<thi"] {
            assert_eq!(closed(whole), whole);
        }
    }

    proptest! {
        #[test]
        fn pieces_are_parted_as_the_whole(
            words in proptest::collection::vec(prop::sample::select(vec!["<think>", "</think>", "<", "a", " ", "é", "/think>"]), 0..8),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = words.concat();
            let mut bounds: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
            bounds.push(text.len());
            let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.get(&bounds)).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]);
            let [thoughts, answer] = parted(pieces);
            prop_assert_eq!(thoughts.clone() + &answer, text.clone());
            prop_assert_eq!([thoughts, answer], parted([text.as_str()]));
        }
    }
}
