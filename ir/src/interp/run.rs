//! Executing blocks and programs.

use std::collections::BTreeMap;

use petgraph::graph::NodeIndex;

use super::args::{EvalArgs, EvalError, Numerics};
use super::state::StateStore;
use super::step::Step;
use super::tensor::{Data, Tensor};
use crate::graph::{Block, Node, Program};
use crate::rope::RopeTable;
use crate::types::{Dtype, Symbol, Type};
use crate::verify;

/// What a whole program gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// `f32[L, V]`.
    pub logits: Tensor,
    /// One token a sequence; -1 where none was asked for.
    pub next: Vec<i32>,
}

/// Executes a program on one step.
///
/// `weight` gives the tensor of a full name (prefix included); `state` is changed as the step says.
///
/// # Errors
/// [`EvalError`]; the state of the layers that ran before the error is then already changed.
pub fn run_program(
    program: &Program,
    weight: impl Fn(&str, &Type) -> Tensor,
    state: &mut StateStore,
    step: &Step,
    numerics: Numerics,
) -> Result<Outputs, EvalError> {
    let mut values = BTreeMap::new();
    let mut none = BTreeMap::new();
    for (index, call) in program.calls.iter().enumerate() {
        let Some(block) = program.blocks.get(call.block) else {
            let blocks = program.blocks.len();
            return Err(EvalError::NoBlock { call: index, block: call.block, blocks });
        };
        let states = match call.layer {
            Some(layer) => state.layer_mut(layer),
            None if block.states().next().is_some() => return Err(EvalError::NoLayer(block.name.clone())),
            None => &mut none,
        };
        let prefixed = |name: &str, ty: &Type| weight(&format!("{}{name}", call.prefix), ty);
        values = run_block(block, &values, prefixed, states, step, numerics)?;
    }
    let logits = values.remove("logits").ok_or(EvalError::NoOutput("logits"))?;
    let next = values.remove("next").ok_or(EvalError::NoOutput("next"))?;
    let next = next.as_int().ok_or(EvalError::NoOutput("next"))?.to_vec();
    Ok(Outputs { logits, next })
}

/// Executes a block on one step: its outputs by name.
///
/// `weight` gives the tensor of a name below the prefix. `states` has an entry for each state of the
/// block and receives the final ones. Inputs, weights and states are taken as given: only results of ops
/// are rounded.
///
/// # Errors
/// [`EvalError`]; `states` is then unchanged.
pub fn run_block(
    block: &Block,
    inputs: &BTreeMap<String, Tensor>,
    weight: impl Fn(&str, &Type) -> Tensor,
    states: &mut BTreeMap<String, Tensor>,
    step: &Step,
    numerics: Numerics,
) -> Result<BTreeMap<String, Tensor>, EvalError> {
    if let Some(error) = verify::structure(block).into_iter().next() {
        return Err(EvalError::Malformed(Box::new(error)));
    }
    let given = Given { block, inputs, states, step };
    let extents = given.extents();
    step.validate(extents.slots, extents.pages)?;

    let mut values: Vec<Vec<Tensor>> = vec![Vec::new(); block.graph.node_count()];
    for node in block.order() {
        values[node.index()] = match &block.graph[node] {
            Node::Op { .. } => eval_op(block, node, &values, numerics)?,
            leaf => vec![given.leaf(leaf, &extents, &weight)?],
        };
    }
    for (node, name, _) in block.states() {
        let last = block.final_state(node);
        states.insert(name.to_owned(), values[last.node.index()][last.result].clone());
    }
    let outputs = block.outputs.iter();
    Ok(outputs
        .map(|(name, value)| (name.clone(), values[value.node.index()][value.result].clone()))
        .collect())
}

fn eval_op(
    block: &Block,
    node: NodeIndex,
    values: &[Vec<Tensor>],
    numerics: Numerics,
) -> Result<Vec<Tensor>, EvalError> {
    let Node::Op { op, attrs, results } = &block.graph[node] else { return Ok(Vec::new()) };
    let given = block.operands(node);
    let types: Vec<Type> = given.iter().map(|value| block.ty(*value)).collect();
    let mut operands = vec![None; op.operands.len()];
    for ((value, ty), place) in given.iter().zip(&types).zip(op.places(given.len()).unwrap_or_default()) {
        operands[place] = Some((&values[value.node.index()][value.result], ty));
    }
    let tensors = (op.eval)(&EvalArgs::new(op, operands, attrs, numerics))?;
    let rounded = tensors.into_iter().zip(results).map(|(tensor, ty)| match numerics {
        Numerics::F64 => tensor,
        Numerics::F32 => tensor.rounded(Dtype::F32),
        Numerics::Declared => tensor.rounded(ty.dtype),
    });
    Ok(rounded.collect())
}

/// The values of the symbols; slots and pages only where the block has such state.
struct Extents {
    slots: Option<usize>,
    pages: Option<usize>,
    values: [u64; Symbol::ALL.len()],
}

/// What the caller of a block gives.
struct Given<'a> {
    block: &'a Block,
    inputs: &'a BTreeMap<String, Tensor>,
    states: &'a BTreeMap<String, Tensor>,
    step: &'a Step,
}

impl Given<'_> {
    fn extents(&self) -> Extents {
        // The first state of each kind says how many units there are; the others are checked against it.
        let units = |symbol: Symbol| {
            self.block
                .states()
                .filter(|(_, _, ty)| ty.shape.first() == Some(&symbol.into()))
                .find_map(|(_, name, _)| self.states.get(name)?.shape().first().copied())
        };
        let (slots, pages) = (units(Symbol::S), units(Symbol::N));
        let dims = self.step.dims();
        let values = Symbol::ALL.map(|symbol| match symbol {
            Symbol::T => dims.tokens,
            Symbol::R => dims.seqs,
            Symbol::L => dims.rows,
            Symbol::P => dims.pages,
            Symbol::S => slots.unwrap_or(0) as u64,
            Symbol::N => pages.unwrap_or(0) as u64,
        });
        Extents { slots, pages, values }
    }

    fn leaf(
        &self,
        node: &Node,
        extents: &Extents,
        weight: &impl Fn(&str, &Type) -> Tensor,
    ) -> Result<Tensor, EvalError> {
        match node {
            Node::Input { name, ty } => self.named(self.inputs, "input", name, ty, extents),
            Node::State { name, ty } => self.named(self.states, "state", name, ty, extents),
            Node::Weight { name, ty } => {
                let tensor = weight(name, ty);
                self.fits("weight", name, ty, &tensor, extents)?;
                Ok(tensor)
            }
            Node::Step(input) => Ok(self.step.tensor(*input)),
            Node::Table(table) => Ok(self.rope(table)?),
            Node::Op { .. } => unreachable!("ops are no leaves"),
        }
    }

    fn named(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        what: &'static str,
        name: &str,
        ty: &Type,
        extents: &Extents,
    ) -> Result<Tensor, EvalError> {
        let Some(tensor) = tensors.get(name) else {
            return Err(EvalError::Missing { block: self.block.name.clone(), what, name: name.to_owned() });
        };
        self.fits(what, name, ty, tensor, extents)?;
        Ok(tensor.clone())
    }

    fn fits(
        &self,
        what: &'static str,
        name: &str,
        ty: &Type,
        tensor: &Tensor,
        extents: &Extents,
    ) -> Result<(), EvalError> {
        let wanted: Vec<usize> = ty
            .shape
            .iter()
            .map(|dim| dim.resolve(|symbol| extents.values[symbol as usize]) as usize)
            .collect();
        let is_real = matches!(tensor.data(), Data::Real(_));
        if tensor.shape() == wanted && is_real == ty.dtype.is_float() {
            return Ok(());
        }
        Err(EvalError::Shape {
            block: self.block.name.clone(),
            what,
            name: name.to_owned(),
            wanted: format!("{ty} = {wanted:?}"),
            found: format!("{} {:?}", if is_real { "real" } else { "integer" }, tensor.shape()),
        })
    }

    /// As many rows of the table as the step's positions reach.
    fn rope(&self, table: &RopeTable) -> Result<Tensor, super::StepError> {
        let positions = self.step.positions.iter();
        if let Some(index) =
            positions.clone().position(|position| i64::from(*position) >= table.positions as i64)
        {
            return Err(super::StepError::Value {
                input: "positions",
                index,
                wanted: format!("below the {} of the model", table.positions),
                found: self.step.positions[index].to_string(),
            });
        }
        let rows = positions.max().map_or(1, |last| (*last).max(0) as u64 + 1);
        Ok(Tensor::from_f32([rows as usize, table.head_dim as usize], &table.rows(rows)))
    }
}
