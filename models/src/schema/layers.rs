//! The layer list: slots spelled by letters or in runs, changed in runs and ranges, resolved to distinct blocks.

use toml::de::{DeArray, DeTable};

use super::fields::{Entry, Fields, Value, entries, inside, read};
use super::parts::{self, Defaults};
use super::ranges;
use super::resolve::Resolver;
use crate::diagnostic::{Sink, Span, suggest};
use crate::model::Block;
use crate::validate;

/// Keys of a run or an override that are not names of parts.
const RESERVED: [&str; 3] = ["at", "block", "as"];

/// Everything that layers can refer to.
#[derive(Default)]
pub(crate) struct Library<'a> {
    pub(super) parts: Vec<(&'a str, Fields<'a>)>,
    pub(super) blocks: Vec<Declared<'a>>,
}

/// A block: its name and its parts, as indices into the library.
pub(super) struct Declared<'a> {
    pub(super) name: &'a str,
    pub(super) parts: Vec<usize>,
}

impl<'a> Library<'a> {
    /// Adds a part, and the block of the same name that has only this part.
    pub(crate) fn add_part(&mut self, sink: &mut Sink<'_>, entry: &Entry<'a>, table: &'a DeTable<'a>) {
        if RESERVED.contains(&entry.key) {
            let message = format!("`{}` has a meaning in layer lists and cannot name a part", entry.key);
            sink.error(&entry.key_span, message);
        }
        check_name(sink, entry.key, &entry.key_span);
        let fields = Fields::new(format!("part `{}`", entry.key), entry.key_span.clone(), table);
        self.blocks.push(Declared { name: entry.key, parts: vec![self.parts.len()] });
        self.parts.push((entry.key, fields));
    }

    /// Adds a block, a list of part names.
    pub(crate) fn add_block(&mut self, sink: &mut Sink<'_>, entry: &Entry<'a>) {
        check_name(sink, entry.key, &entry.key_span);
        if self.blocks.iter().any(|block| block.name == entry.key) {
            let message = format!("`{}` is a part; it is a block by itself already", entry.key);
            sink.error(&entry.key_span, message);
        }
        let Some(list) = read::<&DeArray<'a>>(sink, entry.key, entry.value) else { return };
        if list.len() > validate::MAX_PARTS {
            let message =
                format!("a block has at most {} parts, this one {}", validate::MAX_PARTS, list.len());
            sink.error(&entry.value.span(), message);
        }
        let parts = list.iter().take(validate::MAX_PARTS).filter_map(|value| {
            let name: &str = read(sink, entry.key, value)?;
            let found = self.parts.iter().position(|(part, _)| *part == name);
            if found.is_none() {
                let help = suggest(name, self.parts.iter().map(|(part, _)| *part));
                sink.error_with_help(&value.span(), format!("unknown part `{name}`"), help);
            }
            found
        });
        let parts = parts.collect();
        self.blocks.push(Declared { name: entry.key, parts });
    }

    fn block(&self, sink: &mut Sink<'_>, name: &str, span: &Span) -> Option<usize> {
        let found = self.blocks.iter().position(|block| block.name == name);
        if found.is_none() {
            let help = suggest(name, self.blocks.iter().map(|block| block.name));
            sink.error_with_help(span, format!("unknown block `{name}`"), help);
        }
        found
    }
}

fn check_name(sink: &mut Sink<'_>, name: &str, span: &Span) {
    if !validate::is_identifier(name) {
        let message = format!("`{}` is not a name made of a-z, 0-9 and `_`", name.escape_debug());
        sink.error(span, message);
    }
}

/// The layer list of a model.
pub(crate) struct Layers {
    pub(crate) prefix: String,
    pub(crate) blocks: Vec<Block>,
    pub(crate) slots: Vec<usize>,
    pub(crate) header: Span,
}

/// A key of a part that some layers replace.
pub(super) struct Change<'a> {
    pub(super) part: usize,
    pub(super) entry: Entry<'a>,
}

/// What a layer slot was declared to be. Changes are indices into the list of all of them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Slot<'a> {
    pub(super) block: usize,
    /// A name of its own, and where it stands.
    pub(super) name: Option<(&'a str, Span)>,
    pub(super) changes: Vec<usize>,
}

/// Reads the `[layers]` table.
pub(crate) fn read_layers<'a>(
    sink: &mut Sink<'_>,
    mut table: Fields<'a>,
    library: &Library<'a>,
    defaults: Defaults,
) -> Option<Layers> {
    let prefix: Option<&str> = table.need(sink, "prefix");
    if let Some(problem) = prefix.and_then(validate::layer_prefix) {
        let help = "like \"model.layers.{layer}.\"".to_owned();
        sink.error_with_help(&table.span("prefix"), problem, help);
    }
    let count: Option<u64> = table.need(sink, "count");
    let bad_count = count.and_then(|count| validate::count("count", count, validate::MAX_LAYERS));
    let usable = bad_count.is_none();
    table.report(sink, bad_count);

    let pattern = table.get::<&Value<'a>>(sink, "pattern");
    let letters = table.get::<&DeTable<'a>>(sink, "letters");
    let runs = table.get::<&DeArray<'a>>(sink, "runs");
    let overrides = table.get::<&DeArray<'a>>(sink, "overrides");
    let mut changes = Vec::new();
    let count = count.filter(|_| usable).and_then(|count| usize::try_from(count).ok());
    let both = pattern.is_some() && runs.is_some();
    let mut slots = match (count, pattern, runs) {
        (None, ..) => None,
        (_, Some(_), Some(_)) => {
            sink.error(
                &table.span("runs"),
                "the layers are spelled by `pattern` already; keep one of the two",
            );
            None
        }
        (Some(count), Some(pattern), None) => {
            if letters.is_none() {
                table.missing(sink, "letters", "a table from the letters of the pattern to blocks");
            }
            letters.and_then(|letters| from_pattern(sink, pattern, letters, count, library))
        }
        (Some(count), None, Some(runs)) => {
            let span = table.span("runs");
            from_runs(sink, runs, &span, count, library, &mut changes)
        }
        (Some(_), None, None) => {
            if !table.has("pattern") && !table.has("runs") {
                table.missing(
                    sink,
                    "pattern",
                    "a string of letters (or `runs`, a list of ranges and blocks)",
                );
            }
            None
        }
    };
    if let (Some(slots), Some(overrides)) = (&mut slots, overrides) {
        for value in overrides {
            override_slots(sink, value, slots, library, &mut changes);
        }
    }
    let header = table.header.clone();
    table.finish(sink);

    let mut resolver = Resolver::new(library, &changes, defaults);
    let resolved = slots.map(|slots| resolver.resolve(sink, &slots));
    // Parts that no layer uses are judged as they stand, unless some layer was meant to complete them.
    for (index, (_, fields)) in library.parts.iter().enumerate() {
        let changed = changes.iter().any(|change| change.part == index);
        if !resolver.used.contains(&index) && !changed && !both {
            parts::part(sink, fields.clone(), defaults);
        }
    }
    let blocks = resolver.finish();
    Some(Layers { prefix: prefix?.to_owned(), blocks, slots: resolved??, header })
}

fn from_pattern<'a>(
    sink: &mut Sink<'_>,
    pattern: &'a Value<'a>,
    letters: &'a DeTable<'a>,
    count: usize,
    library: &Library<'a>,
) -> Option<Vec<Slot<'a>>> {
    let text: &str = read(sink, "pattern", pattern)?;
    let mut known: Vec<(char, Option<usize>)> = Vec::new();
    for entry in entries(letters) {
        let mut chars = entry.key.chars();
        let (Some(letter), None) = (chars.next(), chars.next()) else {
            sink.error(&entry.key_span, format!("`{}` is not a single letter", entry.key.escape_debug()));
            continue;
        };
        let name: Option<&str> = read(sink, entry.key, entry.value);
        let block = name.and_then(|name| library.block(sink, name, &entry.value.span()));
        known.push((letter, block));
    }
    let mut slots = Vec::new();
    for (at, letter) in text.char_indices() {
        match known.iter().find(|(known, _)| *known == letter) {
            Some((_, block)) => slots.extend(block.map(|block| Slot { block, name: None, changes: vec![] })),
            None => {
                let list: Vec<String> = known.iter().map(|(letter, _)| format!("`{letter}`")).collect();
                let span = inside(sink, pattern, text, at..at + letter.len_utf8());
                let help = (!list.is_empty()).then(|| format!("`letters` knows {}", list.join(", ")));
                sink.error_with_help(&span, format!("no block has the letter `{letter}`"), help);
            }
        }
    }
    let length = text.chars().count();
    if length != count {
        let message = format!("the pattern spells {length} layers, but `count` is {count}");
        sink.error(&pattern.span(), message);
        return None;
    }
    (slots.len() == count).then_some(slots)
}

fn from_runs<'a>(
    sink: &mut Sink<'_>,
    runs: &'a DeArray<'a>,
    span: &Span,
    count: usize,
    library: &Library<'a>,
    changes: &mut Vec<Change<'a>>,
) -> Option<Vec<Slot<'a>>> {
    let mut slots: Vec<Option<Slot<'a>>> = vec![None; count];
    let mut complete = true;
    for value in runs {
        let run = Run::read(sink, "a run", value, count, library, changes);
        let Some(run) = run else {
            complete = false;
            continue;
        };
        let Some(block) = run.block else {
            complete = false;
            continue;
        };
        let slot = Slot { block, name: run.name, changes: run.changes };
        for (range, at) in run.layers {
            let twice = range.clone().find(|layer| slots[*layer].is_some());
            if let Some(layer) = twice {
                sink.error(&at, format!("layer {layer} has a block from an earlier range already"));
            }
            for layer in range {
                slots[layer] = Some(slot.clone());
            }
        }
    }
    let missing: Vec<usize> = (0..count).filter(|layer| slots[*layer].is_none()).collect();
    if complete && !missing.is_empty() {
        let plural = if missing.len() == 1 { "layer" } else { "layers" };
        sink.error(span, format!("{plural} {} of {count} has no block", ranges::print(&missing)));
    }
    slots.into_iter().collect()
}

fn override_slots<'a>(
    sink: &mut Sink<'_>,
    value: &'a Value<'a>,
    slots: &mut [Slot<'a>],
    library: &Library<'a>,
    changes: &mut Vec<Change<'a>>,
) {
    let Some(run) = Run::read(sink, "an override", value, slots.len(), library, changes) else { return };
    for (range, at) in run.layers {
        for slot in &mut slots[range] {
            for &index in &run.changes {
                let new = &changes[index];
                let (part, key) = (library.parts[new.part].0, new.entry.key);
                if !library.blocks[slot.block].parts.contains(&new.part) {
                    let block = library.blocks[slot.block].name;
                    sink.error(&at, format!("these layers include a `{block}`, which has no part `{part}`"));
                    return;
                }
                let same = |old: &usize| changes[*old].part == new.part && changes[*old].entry.key == key;
                if slot.changes.iter().any(same) {
                    sink.error(&at, format!("`{part}.{key}` of these layers is changed twice"));
                    return;
                }
                slot.changes.push(index);
            }
        }
    }
}

/// One entry of `runs` or `overrides`.
struct Run<'a> {
    layers: Vec<(std::ops::RangeInclusive<usize>, Span)>,
    block: Option<usize>,
    name: Option<(&'a str, Span)>,
    changes: Vec<usize>,
}

impl<'a> Run<'a> {
    /// Reads an entry. Only runs have a block; their changes must fit it.
    fn read(
        sink: &mut Sink<'_>,
        what: &str,
        value: &'a Value<'a>,
        count: usize,
        library: &Library<'a>,
        all: &mut Vec<Change<'a>>,
    ) -> Option<Self> {
        let table: &DeTable<'a> = read(sink, "layers", value)?;
        let mut fields = Fields::new(what, value.span(), table);
        let layers = fields.need::<&Value<'a>>(sink, "at").and_then(|at| layers_of(sink, at, count));
        let is_run = what == "a run";
        let block = if is_run { fields.need::<&str>(sink, "block") } else { None };
        let block = block.and_then(|name| library.block(sink, name, &fields.span("block")));
        let name = if is_run { fields.get::<&str>(sink, "as") } else { None };
        let name = name.map(|name| (name, fields.span("as")));
        if let Some((name, span)) = &name {
            check_name(sink, name, span);
        }
        let mut changes = Vec::new();
        for entry in &fields.entries {
            if RESERVED.contains(&entry.key) && (is_run || entry.key == "at") {
                continue;
            }
            let fits = |index: usize| block.is_none_or(|block| library.blocks[block].parts.contains(&index));
            let part = library.parts.iter().position(|(part, _)| *part == entry.key);
            let Some(part) = part.filter(|part| fits(*part)) else {
                let known = library.parts.iter().enumerate().filter(|(index, _)| fits(*index));
                let help = suggest(entry.key, known.map(|(_, (name, _))| *name));
                let message = format!("`{}` is no part that {what} can change here", entry.key);
                sink.error_with_help(&entry.key_span, message, help);
                continue;
            };
            let Some(table) = read::<&DeTable<'a>>(sink, entry.key, entry.value) else { continue };
            for entry in entries(table) {
                if entry.key == "mixer" {
                    sink.error(
                        &entry.key_span,
                        "a layer cannot change the mixer of a part; write another part",
                    );
                    continue;
                }
                changes.push(all.len());
                all.push(Change { part, entry });
            }
        }
        Some(Self { layers: layers?, block, name, changes })
    }
}

fn layers_of(
    sink: &mut Sink<'_>,
    value: &Value<'_>,
    count: usize,
) -> Option<Vec<(std::ops::RangeInclusive<usize>, Span)>> {
    let text: &str = match value.get_ref() {
        toml::de::DeValue::String(text) => text,
        _ => {
            sink.error(&value.span(), "`at` must be a string of layers and ranges, like \"0-5, 8\"");
            return None;
        }
    };
    match ranges::parse(text, count) {
        Ok(list) => {
            Some(list.into_iter().map(|(range, at)| (range, inside(sink, value, text, at))).collect())
        }
        Err(bad) => {
            sink.error(&inside(sink, value, text, bad.at), bad.message);
            None
        }
    }
}
