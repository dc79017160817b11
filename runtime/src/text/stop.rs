//! Stop texts: a hook that ends the sequence, and a filter that keeps them out of what is printed.

use std::sync::Arc;

use super::{Text, TextStream};
use crate::session::{Grown, Hook, Verdict};

/// Stops a sequence once its text holds one of some texts.
#[derive(Debug)]
pub struct StopText {
    stream: TextStream,
    filter: StopFilter,
}

impl StopText {
    /// Reason that this hook gives.
    pub const REASON: &'static str = "stop";

    /// A hook for these texts.
    pub fn new(text: Arc<Text>, stops: Vec<String>) -> Self {
        Self { stream: TextStream::new(text), filter: StopFilter::new(stops) }
    }
}

impl Hook for StopText {
    fn after(&mut self, token: u32, _grown: Grown<'_>) -> Verdict {
        // Tokens without text cannot complete a stop text.
        let piece = self.stream.push(token).unwrap_or_default();
        self.filter.push(&piece);
        if self.filter.stopped { Verdict::Stop(Self::REASON.to_owned()) } else { Verdict::Continue }
    }
}

/// Passes text on up to the first stop text, holding back what may become one.
#[derive(Debug)]
pub struct StopFilter {
    stops: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopFilter {
    /// A filter for these texts; empty ones are ignored.
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Self { stops, held: String::new(), stopped: false }
    }

    /// The text that is now certain to stand before any stop text.
    pub fn push(&mut self, piece: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let keep = self.held.char_indices().map(|(at, _)| at).find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(keep);
        std::mem::replace(&mut self.held, rest)
    }

    /// A whole text, up to the first stop text.
    pub fn cut(mut self, whole: &str) -> String {
        self.push(whole) + &self.held
    }

    /// What was held back, when no more comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(stops: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let mut filter = StopFilter::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out: Vec<_> = pieces.iter().map(|piece| filter.push(piece)).collect();
        out.push(filter.finish());
        (out, filter.stopped)
    }

    #[test]
    fn a_possible_beginning_is_held_back() {
        let (out, stopped) = filter(&["END"], &["ab", "cE", "Nd", "EN", "D!", "x"]);
        assert_eq!(out, ["ab", "c", "ENd", "", "", "", ""]);
        assert!(stopped);
        assert_eq!(filter(&["END"], &["aEN"]), (vec!["a".to_owned(), "EN".to_owned()], false));
        assert_eq!(filter(&[""], &["a"]), (vec!["a".to_owned(), String::new()], false));
        assert_eq!(filter(&["b", "ab"], &["xab"]).0[0], "x");
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(text in "[abé]{0,24}", cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5)) {
            let mut bounds: Vec<_> = text.char_indices().map(|(at, _)| at).collect();
            bounds.push(text.len());
            let mut cuts: Vec<_> = cuts.iter().map(|cut| *cut.get(&bounds)).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            let (out, stopped) = filter(&["abé", "bb"], &pieces);
            let at = ["abé", "bb"].iter().filter_map(|stop| text.find(stop)).min();
            // The first stop text to be complete wins, which pieces may decide otherwise only by cutting earlier.
            prop_assert_eq!(stopped, at.is_some());
            let out = out.concat();
            prop_assert!(text.starts_with(&out));
            if at.is_none() { prop_assert_eq!(out, text); }
        }
    }
}
