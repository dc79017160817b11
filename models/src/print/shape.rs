//! What of a model can be written once: parts that recur, and blocks that differ only in widths.

use crate::model::{Block, Mixer, Model, Part};

/// A part as it is written: under a name, perhaps without its width.
pub(super) struct WrittenPart {
    pub(super) name: String,
    pub(super) part: Part,
    /// The width differs between layers and is left to them.
    pub(super) open_width: bool,
}

/// Blocks that are written as one.
pub(super) struct Group {
    pub(super) name: String,
    pub(super) parts: Vec<usize>,
}

/// How the blocks of a model are written: parts, groups of blocks, and which group each block belongs to.
pub(super) struct Shape {
    pub(super) parts: Vec<WrittenPart>,
    pub(super) groups: Vec<Group>,
    pub(super) member: Vec<usize>,
}

impl Shape {
    /// Finds the blocks and parts that can be written together.
    pub(super) fn of(model: &Model) -> Self {
        let mut shape = Self { parts: Vec::new(), groups: Vec::new(), member: Vec::new() };
        for block in &model.blocks {
            let mut parts = Vec::new();
            for part in &block.parts {
                let index = shape.part(part, &parts);
                parts.push(index);
            }
            // Blocks that are alike in all but widths, if there are widths to differ in.
            let open = |parts: &[usize]| parts.iter().any(|part| is_ffn(&shape.parts[*part].part));
            let found = shape.groups.iter().position(|group| group.parts == parts && open(&parts));
            shape.member.push(found.unwrap_or(shape.groups.len()));
            if found.is_none() {
                shape.groups.push(Group { name: block.name.clone(), parts });
            }
        }
        shape.name_parts();
        shape.name_groups(model);
        shape
    }

    /// The index of a part as it is written. A block uses each at most once, so that a layer can give each a width.
    fn part(&mut self, part: &Part, used: &[usize]) -> usize {
        let wanted = without_width(part);
        let alike = |(index, known): &(usize, &WrittenPart)| {
            !used.contains(index) && without_width(&known.part) == wanted
        };
        let found = self.parts.iter().enumerate().find(alike).map(|(index, _)| index);
        match found {
            Some(index) => {
                self.parts[index].open_width |= self.parts[index].part != *part;
                index
            }
            None => {
                self.parts.push(WrittenPart { name: String::new(), part: part.clone(), open_width: false });
                self.parts.len() - 1
            }
        }
    }

    fn name_parts(&mut self) {
        for index in 0..self.parts.len() {
            let kind = match self.parts[index].part.mixer {
                Mixer::Attention(_) => "attention",
                Mixer::Mamba2(_) => "mamba",
                Mixer::Ffn(_) => "mlp",
                Mixer::Linear(_) => "linear",
            };
            let taken = self.parts[..index].iter().map(|part| part.name.clone()).collect::<Vec<_>>();
            self.parts[index].name = fresh(kind, &taken);
        }
    }

    /// Names groups: a block alone keeps its name, and so does a group whose names are a stem and the widths.
    fn name_groups(&mut self, model: &Model) {
        let mut taken: Vec<String> = self.parts.iter().map(|part| part.name.clone()).collect();
        for index in 0..self.groups.len() {
            let group = &self.groups[index];
            let first = self.member.iter().position(|member| *member == index).map(|at| &model.blocks[at]);
            let wanted = match first {
                Some(block) if self.is_open(group) => {
                    let suffix = self.widths(group, block).join("_");
                    let stem = block.name.strip_suffix(&suffix).and_then(|stem| stem.strip_suffix('_'));
                    stem.filter(|stem| !stem.is_empty()).unwrap_or("block").to_owned()
                }
                _ => group.name.clone(),
            };
            let single = matches!(group.parts.as_slice(), [part] if self.parts[*part].name == wanted);
            let name = if single { wanted } else { fresh(&wanted, &taken) };
            taken.push(name.clone());
            self.groups[index].name = name;
        }
    }

    pub(super) fn is_open(&self, group: &Group) -> bool {
        group.parts.iter().any(|part| self.parts[*part].open_width)
    }

    /// The widths that a block of a group gets from the layer list.
    pub(super) fn widths(&self, group: &Group, block: &Block) -> Vec<String> {
        let open = group.parts.iter().zip(&block.parts).filter(|(index, _)| self.parts[**index].open_width);
        open.filter_map(|(_, part)| match &part.mixer {
            Mixer::Ffn(ffn) => Some(ffn.width.to_string()),
            _ => None,
        })
        .collect()
    }
}

fn is_ffn(part: &Part) -> bool {
    matches!(part.mixer, Mixer::Ffn(_))
}

fn without_width(part: &Part) -> Part {
    let mut part = part.clone();
    if let Mixer::Ffn(ffn) = &mut part.mixer {
        ffn.width = 0;
    }
    part
}

/// The name, or the name with the first number that makes it new.
fn fresh(name: &str, taken: &[String]) -> String {
    let mut candidate = name.to_owned();
    let mut number = 2;
    while taken.contains(&candidate) {
        candidate = format!("{name}_{number}");
        number += 1;
    }
    candidate
}
