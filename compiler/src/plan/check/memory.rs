//! An arena that remembers who wrote each of its bytes last.

use std::collections::HashMap;

use nemo_ir::graph::Value;

use crate::plan::ALIGNMENT;

/// A value of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tag {
    pub(super) call: usize,
    pub(super) value: Value,
}

/// The values that are intact, and where each lies.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: u64,
    intact: HashMap<Tag, (u64, u64)>,
}

impl Memory {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, intact: HashMap::new() }
    }

    /// Start and end of a value that nothing has overwritten.
    pub(super) fn find(&self, tag: Tag) -> Option<(u64, u64)> {
        self.intact.get(&tag).copied()
    }

    /// Writes a value; those that it touches are lost.
    pub(super) fn write(&mut self, tag: Tag, start: u64, end: u64) -> Result<(), String> {
        if end > self.bytes {
            return Err(format!("bytes {start}..{end} are not in the arena of {}", self.bytes));
        }
        if !start.is_multiple_of(ALIGNMENT) {
            return Err(format!("offset {start} is no multiple of {ALIGNMENT}"));
        }
        self.intact.retain(|_, (from, to)| *to <= start || end <= *from);
        self.intact.insert(tag, (start, end));
        Ok(())
    }
}
