//! From what a layer slot was declared to be to the distinct blocks of a model.

use std::collections::HashMap;
use std::iter;

use super::layers::{Change, Declared, Library, Slot};
use super::parts::{self, Defaults};
use crate::diagnostic::Sink;
use crate::model::{Block, Mixer, Part};

/// A distinct block and the declaration it came from.
struct Known {
    declared: usize,
    renamed: bool,
    block: Block,
}

/// Turns slots into distinct blocks.
pub(super) struct Resolver<'l, 'a> {
    library: &'l Library<'a>,
    changes: &'l [Change<'a>],
    defaults: Defaults,
    blocks: Vec<Known>,
    /// The parts that some layer uses.
    pub(super) used: Vec<usize>,
}

impl<'l, 'a> Resolver<'l, 'a> {
    pub(super) fn new(library: &'l Library<'a>, changes: &'l [Change<'a>], defaults: Defaults) -> Self {
        Self { library, changes, defaults, blocks: Vec::new(), used: Vec::new() }
    }

    /// The distinct blocks in the order of first use.
    pub(super) fn finish(self) -> Vec<Block> {
        self.blocks.into_iter().map(|known| known.block).collect()
    }

    /// The block of each slot.
    pub(super) fn resolve(&mut self, sink: &mut Sink<'_>, slots: &[Slot<'a>]) -> Option<Vec<usize>> {
        let mut seen: HashMap<&Slot<'a>, Option<usize>> = HashMap::new();
        let indices: Vec<Option<usize>> =
            slots.iter().map(|slot| *seen.entry(slot).or_insert_with(|| self.block(sink, slot))).collect();
        indices.into_iter().collect()
    }

    fn block(&mut self, sink: &mut Sink<'_>, slot: &Slot<'a>) -> Option<usize> {
        let declared = &self.library.blocks[slot.block];
        let parts: Vec<Option<Part>> =
            declared.parts.iter().map(|&part| self.part(sink, part, slot)).collect();
        let parts: Vec<Part> = parts.into_iter().collect::<Option<_>>()?;
        let same = |known: &Known| match &slot.name {
            Some((name, _)) => known.block.name == *name,
            None => !known.renamed,
        };
        let found = self
            .blocks
            .iter()
            .position(|known| known.declared == slot.block && known.block.parts == parts && same(known));
        if found.is_some() {
            return found;
        }
        let taken = |name: &str| self.blocks.iter().any(|known| known.block.name == name);
        let name = match &slot.name {
            Some((name, span)) => {
                if taken(name) {
                    sink.error(span, format!("another block is called `{name}` already"));
                }
                (*name).to_owned()
            }
            None => {
                let wanted = self.name(sink, declared, &parts, slot);
                let numbered = (2..).map(|number| format!("{wanted}_{number}"));
                iter::once(wanted.clone()).chain(numbered).find(|name| !taken(name)).unwrap_or(wanted.clone())
            }
        };
        self.blocks.push(Known {
            declared: slot.block,
            renamed: slot.name.is_some(),
            block: Block { name, parts },
        });
        Some(self.blocks.len() - 1)
    }

    fn part(&mut self, sink: &mut Sink<'_>, part: usize, slot: &Slot<'a>) -> Option<Part> {
        self.used.push(part);
        let mut fields = self.library.parts[part].1.clone();
        for change in slot.changes.iter().map(|index| &self.changes[*index]) {
            if change.part != part {
                continue;
            }
            // The two ways to write a width replace each other; both in one run still have to agree.
            let given_here = |key: &str| {
                slot.changes
                    .iter()
                    .any(|i| self.changes[*i].part == part && self.changes[*i].entry.key == key)
            };
            let key = change.entry.key;
            fields.entries.retain(|old| {
                let twin = matches!((key, old.key), ("width", "ffn_mult") | ("ffn_mult", "width"));
                old.key != key && (!twin || given_here(old.key))
            });
            fields.entries.push(change.entry.clone());
        }
        parts::part(sink, fields, self.defaults)
    }

    /// The name of a declared block with the changed values behind it: `layer_28672`.
    fn name(&self, sink: &Sink<'_>, declared: &Declared<'a>, parts: &[Part], slot: &Slot<'a>) -> String {
        let mut name = declared.name.to_owned();
        for (index, part) in declared.parts.iter().zip(parts) {
            for change in slot.changes.iter().map(|i| &self.changes[*i]).filter(|c| c.part == *index) {
                let suffix = match (&part.mixer, change.entry.key) {
                    (Mixer::Ffn(ffn), "width" | "ffn_mult") => ffn.width.to_string(),
                    (_, key) => identifier(&format!("{key}{}", sink.text(&change.entry.value.span()))),
                };
                name = with_suffix(&name, &suffix);
            }
        }
        name
    }
}

/// A block name with a changed value behind it, unless it stands there already.
pub(crate) fn with_suffix(name: &str, suffix: &str) -> String {
    if name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('_')) {
        return name.to_owned();
    }
    format!("{name}_{suffix}")
}

/// What of a text can stand in a block name.
fn identifier(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    words.join("_").chars().take(32).collect()
}
