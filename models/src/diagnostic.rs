//! Problems in a model file, each with its place in the source and, where there is one, a way out.

use std::fmt;
use std::ops::Range;

/// A range of bytes in the source.
pub(crate) type Span = Range<usize>;

/// More problems than this are not listed: they follow from the first ones.
const LISTED: usize = 40;
/// More than this are not even collected, so that a hostile file costs no more than its length.
const COLLECTED: usize = 1000;
/// A misspelt word longer than this is not compared with the known ones.
const COMPARED: usize = 64;

/// One problem at one place of a model file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What would be right, where that is known.
    pub help: Option<String>,
    text: String,
    width: usize,
}

/// Every problem found in one model file, in the order of the file. [`fmt::Display`] prints them for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostics {
    file: String,
    items: Vec<Diagnostic>,
    unlisted: usize,
}

impl Diagnostics {
    /// The problems.
    #[must_use]
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// The name of the file they are in.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl std::error::Error for Diagnostics {}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            item.print(&self.file, f)?;
        }
        if self.unlisted > 0 {
            writeln!(f, "\nerror: {} more problems are not shown", self.unlisted)?;
        }
        Ok(())
    }
}

impl Diagnostic {
    fn print(&self, file: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // A tab is one column here as in `column`, so that the caret stands under its character.
        let text = self.text.replace('\t', " ");
        let indent = " ".repeat(self.column - 1);
        let carets = "^".repeat(self.width.max(1));
        writeln!(f, "error: {}", self.message)?;
        writeln!(f, "{margin}--> {file}:{}:{}", self.line, self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {text}")?;
        writeln!(f, "{margin} | {indent}{carets}")?;
        match &self.help {
            Some(help) => writeln!(f, "{margin} = help: {help}"),
            None => Ok(()),
        }
    }
}

/// Collects problems while a source is read.
pub(crate) struct Sink<'s> {
    source: &'s str,
    file: &'s str,
    items: Vec<(usize, Diagnostic)>,
    uncollected: usize,
}

impl<'s> Sink<'s> {
    pub(crate) fn new(source: &'s str, file: &'s str) -> Self {
        Self { source, file, items: Vec::new(), uncollected: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The source text of a span.
    pub(crate) fn text(&self, span: &Span) -> &'s str {
        self.source.get(span.clone()).unwrap_or_default()
    }

    pub(crate) fn error(&mut self, span: &Span, message: impl Into<String>) {
        self.push(span, message.into(), None);
    }

    pub(crate) fn error_with_help(
        &mut self,
        span: &Span,
        message: impl Into<String>,
        help: impl Into<Option<String>>,
    ) {
        self.push(span, message.into(), help.into());
    }

    fn push(&mut self, span: &Span, message: String, help: Option<String>) {
        if self.items.len() >= COLLECTED {
            self.uncollected += 1;
            return;
        }
        let start = floor_boundary(self.source, span.start);
        let line_start = self.source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.source[start..].find('\n').map_or(self.source.len(), |at| start + at);
        let end = floor_boundary(self.source, span.end).clamp(start, line_end);
        let diagnostic = Diagnostic {
            message,
            line: self.source[..start].matches('\n').count() + 1,
            column: self.source[line_start..start].chars().count() + 1,
            help,
            text: self.source[line_start..line_end].trim_end().to_owned(),
            width: self.source[start..end].chars().count(),
        };
        // A part is read again for every layer list entry that changes it, and says the same each time.
        if !self.items.iter().any(|(at, other)| *at == start && other.message == diagnostic.message) {
            self.items.push((start, diagnostic));
        }
    }

    pub(crate) fn finish(mut self) -> Diagnostics {
        self.items.sort_by_key(|(at, _)| *at);
        let unlisted = self.items.len().saturating_sub(LISTED) + self.uncollected;
        let items = self.items.into_iter().take(LISTED).map(|(_, item)| item).collect();
        Diagnostics { file: self.file.to_owned(), items, unlisted }
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A word this short begins too many others.
const PREFIX: usize = 3;

/// "did you mean `x`?" when one of the known words is near, or begins the word, or is begun by it.
pub(crate) fn near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .filter(|_| word.len() <= COMPARED)
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| {
            let shorter = candidate.len().min(word.len());
            let begins = candidate.starts_with(word) || word.starts_with(candidate);
            *distance <= 1 + shorter / 4 || (begins && shorter >= PREFIX)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// The word that was meant when one is near, otherwise the list of the known ones.
pub(crate) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let list = || known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    near(word, known.iter().copied())
        .or_else(|| (!known.is_empty()).then(|| format!("known here: {}", list())))
}
