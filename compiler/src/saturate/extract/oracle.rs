//! The best form by trying all of them: what the search is held against where blocks are small.

use super::{Choice, Forms};

impl Forms {
    /// The best of all choices that can be built, by trying all, and its seconds: the oracle for small blocks. `None`
    /// past `limit` tries.
    pub fn exhaustive(&self, limit: usize) -> Option<(Choice, f64)> {
        let best = (self.original.clone(), f64::INFINITY);
        let mut search = Exhaustive { forms: self, tries: 0, limit, best };
        let mut choice = vec![None; self.classes.len()];
        search.go(&mut choice, self.roots.clone(), 0.0)?;
        Some(search.best)
    }
}

/// A search through all choices, class by class as they are needed.
struct Exhaustive<'a> {
    forms: &'a Forms,
    tries: usize,
    limit: usize,
    best: (Choice, f64),
}

impl Exhaustive<'_> {
    /// `open` are the classes still to choose for; `None` when there are too many choices.
    fn go(&mut self, choice: &mut Vec<Option<usize>>, mut open: Vec<usize>, so_far: f64) -> Option<()> {
        self.tries += 1;
        if self.tries > self.limit {
            return None;
        }
        if so_far >= self.best.1 {
            return Some(());
        }
        let next = loop {
            match open.pop() {
                Some(class) if choice[class].is_some() => {}
                other => break other,
            }
        };
        let Some(class) = next else {
            let whole: Choice = choice.iter().map(|node| node.unwrap_or(0)).collect();
            let seconds = self.forms.seconds(&whole);
            if seconds < self.best.1 {
                self.best = (whole, seconds);
            }
            return Some(());
        };
        for (node, form) in self.forms.classes[class].nodes.iter().enumerate() {
            if form.seconds.is_infinite() {
                continue;
            }
            choice[class] = Some(node);
            let more = open.iter().chain(&form.children).copied().collect();
            self.go(choice, more, so_far + form.seconds)?;
            choice[class] = None;
        }
        Some(())
    }
}
