//! Blocks and programs as text.

use std::fmt::{self, Display, Formatter};

use petgraph::graph::NodeIndex;

use super::names::Names;
use crate::graph::{Block, Call, Node, Program, Value};
use crate::ops::{Op, OperandKind};
use crate::rope::RopeTable;

/// Lists of calls are broken before this column.
const WIDTH: usize = 100;

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "program {}", self.phase.name())?;
        for block in &self.blocks {
            write!(f, "\n{block}")?;
        }
        f.write_str("\ncalls {\n")?;
        let mut rest = &self.calls[..];
        while let Some(first) = rest.first() {
            let group = group(rest);
            if let Some(template) = group.template {
                writeln!(f, "  layers \"{template}\" {{")?;
                write_layers(f, self, &rest[..group.len])?;
                f.write_str("  }\n")?;
            } else {
                writeln!(f, "  {}", single_call(self, first))?;
            }
            rest = &rest[group.len..];
        }
        f.write_str("}\n")
    }
}

/// Calls that share one line or one list.
struct Group {
    len: usize,
    /// Their prefix with `{}` for the layer, where there are several.
    template: Option<String>,
}

/// The longest run of calls from the first that one template of prefixes describes.
fn group(calls: &[Call]) -> Group {
    let template = calls.first().and_then(|call| template(call, call.layer?));
    let Some(template) = template else { return Group { len: 1, template: None } };
    let fits = |call: &Call| {
        call.layer.is_some_and(|layer| template.replacen("{}", &layer.to_string(), 1) == call.prefix)
    };
    let len = calls.iter().take_while(|call| fits(call)).count();
    if len < 2 { Group { len: 1, template: None } } else { Group { len, template: Some(template) } }
}

/// The prefix with `{}` in place of its first component that is the layer's number.
fn template(call: &Call, layer: u32) -> Option<String> {
    let mut components: Vec<&str> = call.prefix.split('.').collect();
    let number = layer.to_string();
    *components.iter_mut().find(|component| **component == number)? = "{}";
    Some(components.join("."))
}

fn block_name(program: &Program, call: &Call) -> String {
    // A call of a block that is not there is not legal, but must be printable for the message.
    program.blocks.get(call.block).map_or_else(|| format!("?{}", call.block), |block| block.name.clone())
}

fn single_call(program: &Program, call: &Call) -> String {
    let mut text = block_name(program, call);
    if let Some(layer) = call.layer {
        text += &format!(" {layer}");
    }
    if !call.prefix.is_empty() {
        text += &format!(" \"{}\"", call.prefix);
    }
    text
}

/// `block first-last` for each run of one block over consecutive layers, several in a line.
fn write_layers(f: &mut Formatter<'_>, program: &Program, calls: &[Call]) -> fmt::Result {
    const INDENT: &str = "    ";
    let mut line = INDENT.to_owned();
    let mut rest = calls;
    while let Some(first) = rest.first() {
        let follows = |pair: &[Call]| {
            pair[0].block == pair[1].block
                && pair[0].layer.and_then(|layer| layer.checked_add(1)) == pair[1].layer
        };
        let run = 1 + rest.windows(2).take_while(|pair| follows(pair)).count();
        let (start, end) = (first.layer.unwrap_or(0), rest[run - 1].layer.unwrap_or(0));
        let mut item = format!("{} {start}", block_name(program, first));
        if run > 1 {
            item += &format!("-{end}");
        }
        rest = &rest[run..];
        if !rest.is_empty() {
            item.push(',');
        }
        if line.len() + 1 + item.len() > WIDTH && line != INDENT {
            writeln!(f, "{line}")?;
            line = INDENT.to_owned();
        }
        if line != INDENT {
            line.push(' ');
        }
        line += &item;
    }
    writeln!(f, "{line}")
}

impl Display for Block {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = Names::new(self);
        let name = |node: NodeIndex| names.value(Value { node, result: 0 });
        let inputs: Vec<_> = self
            .graph
            .node_indices()
            .filter_map(|node| match &self.graph[node] {
                Node::Input { name, ty } => Some(format!("%{name}: {ty}")),
                _ => None,
            })
            .collect();
        writeln!(f, "block {}({}) {{", self.name, inputs.join(", "))?;
        for (node, _, ty) in self.states() {
            writeln!(f, "  state {}: {ty}", name(node))?;
        }
        for (node, _, ty) in self.weights() {
            writeln!(f, "  weight {}: {ty}", name(node))?;
        }
        for node in self.graph.node_indices() {
            if let Node::Table(table) = &self.graph[node] {
                writeln!(f, "  table {} = {}", name(node), Table(table))?;
            }
        }
        for node in &names.order {
            if matches!(self.graph[*node], Node::Op { .. }) {
                write_op(f, self, &names, *node)?;
            }
        }
        let outputs: Vec<_> = self
            .outputs
            .iter()
            .map(|(output, value)| format!("{output} = {}", names.value(*value)))
            .collect();
        writeln!(f, "  return {}", outputs.join(", "))?;
        f.write_str("}\n")
    }
}

/// `%4, &ssm.1 = ssd_recurrent(…) {heads: 128, …} : bf16[T,10240], f32[S,128,80,128]`.
fn write_op(f: &mut Formatter<'_>, block: &Block, names: &Names, node: NodeIndex) -> fmt::Result {
    let Node::Op { op, attrs, results } = &block.graph[node] else { return Ok(()) };
    let values: Vec<_> = (0..results.len()).map(|result| names.value(Value { node, result })).collect();
    let mut operands = block.operands(node);
    if steps_are_declared(block, op, &operands) {
        operands.retain(|value| !matches!(block.graph[value.node], Node::Step(_)));
    }
    let operands: Vec<_> = operands.iter().map(|value| names.value(*value)).collect();
    write!(f, "  {} = {}({})", values.join(", "), op.name, operands.join(", "))?;
    if !attrs.is_empty() {
        let attrs: Vec<_> =
            op.attrs.iter().zip(attrs).map(|(spec, attr)| format!("{}: {attr}", spec.name)).collect();
        write!(f, " {{{}}}", attrs.join(", "))?;
    }
    let types: Vec<_> = results.iter().map(ToString::to_string).collect();
    writeln!(f, " : {}", types.join(", "))
}

/// Whether an op's step inputs are those of the table, so that the parser can add them back.
fn steps_are_declared(block: &Block, op: Op, operands: &[Value]) -> bool {
    let given = operands.iter().map(|value| &block.graph[value.node]).filter_map(|node| match node {
        Node::Step(input) => Some(*input),
        _ => None,
    });
    let declared = op.operands.iter().filter_map(|operand| match operand.kind {
        OperandKind::Step(input) => Some(input),
        _ => None,
    });
    given.eq(declared)
}

/// A table as a literal.
struct Table<'a>(&'a RopeTable);

impl Display for Table<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let RopeTable { theta, head_dim, positions, scaling } = self.0;
        write!(f, "rope {{theta: {theta:?}, head_dim: {head_dim}, positions: {positions}")?;
        if let Some(s) = scaling {
            write!(
                f,
                ", factor: {:?}, low_freq_factor: {:?}, high_freq_factor: {:?}, original_context: {}",
                s.factor, s.low_freq_factor, s.high_freq_factor, s.original_context
            )?;
        }
        f.write_str("}")
    }
}
