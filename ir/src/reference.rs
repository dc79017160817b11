//! The op reference, `docs/ops.md`, from the op table.

use crate::ops::{self, AttrKind, Effect, Family, Op, Operand, OperandKind};

const INTRODUCTION: &str = "\
# Ops of the graph IR

Generated from the op table; `cargo run -p nemo-ir --example op_reference > docs/ops.md` writes it anew.

Shapes: `T` tokens and `R` sequences in the step, `L` rows that want logits, `P` pages per sequence in the block
table, `S` state slots and `N` KV pages of the engine; other letters and words are constants. `float` is f32, bf16 or
f16. `rows` is whatever symbol the first operand has. The result of an op is rounded once, to the attribute `dtype`
where there is one. Step inputs are not written in the text form;
`seq_start` has one element more than its type says. An op that writes state consumes one state value
and gives the next, whose name has a prime here. A fused op gives what the ops that it is made of give, each
intermediate rounded to the dtype named there.
";

/// The text of `docs/ops.md`.
pub fn op_reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    for family in Family::ALL {
        line(&mut text, &format!("\n## {}", family.name()));
        for op in ops::table().filter(|op| op.family == family) {
            entry(&mut text, op);
        }
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn entry(text: &mut String, op: Op) {
    let results: Vec<_> = op.results.iter().map(|(name, _)| *name).collect();
    let written = op.operands.iter().filter(|operand| !matches!(operand.kind, OperandKind::Step(_)));
    let operands: Vec<_> = written
        .map(|operand| match operand.kind {
            OperandKind::OptionalWeight => format!("[{}]", operand.name),
            _ => operand.name.to_owned(),
        })
        .collect();
    let attrs: Vec<_> = op.attrs.iter().map(|attr| attr.name).collect();
    let attrs = if attrs.is_empty() { String::new() } else { format!(" {{{}}}", attrs.join(", ")) };
    line(text, &format!("\n### {}\n", op.name));
    line(
        text,
        &format!(
            "`{} = {}({}){attrs}` ({})\n",
            results.join(", "),
            op.name,
            operands.join(", "),
            effect(op.effect)
        ),
    );
    line(text, &format!("{}.\n", op.meaning));
    line(text, "| | kind | type |");
    line(text, "|---|---|---|");
    for operand in op.operands {
        line(text, &format!("| `{}` | {} | {} |", operand.name, operand_kind(operand), shape(operand)));
    }
    for attr in op.attrs {
        line(text, &format!("| `{}` | attribute | {} |", attr.name, attr_kind(attr.kind)));
    }
    for (name, shape) in op.results {
        line(text, &format!("| `{name}` | result | {shape} |"));
    }
    if !op.recipe.is_empty() {
        line(text, &format!("\nMade of:\n\n```text\n{}\n```", op.recipe));
    }
}

const fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Pure => "pure",
        Effect::ReadsState => "reads state",
        Effect::WritesState => "writes state",
    }
}

const fn operand_kind(operand: &Operand) -> &'static str {
    match operand.kind {
        OperandKind::Value => "value",
        OperandKind::Weight => "weight",
        OperandKind::OptionalWeight => "weight, may be absent",
        OperandKind::State => "state",
        OperandKind::Table => "table",
        OperandKind::Step(_) => "step input",
    }
}

fn shape(operand: &Operand) -> String {
    match operand.kind {
        OperandKind::Step(input) => input.ty().to_string(),
        _ => operand.shape.to_owned(),
    }
}

const fn attr_kind(kind: AttrKind) -> &'static str {
    match kind {
        AttrKind::Int => "unsigned integer",
        AttrKind::Float => "number",
        AttrKind::Dtype => "dtype",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_committed_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ops.md");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == super::op_reference(),
            "docs/ops.md is not what the op table says; `cargo run -p nemo-ir --example op_reference > docs/ops.md`"
        );
    }
}
