//! What calls bind: checkpoint tensors, states and tables, each once in the plan however many calls name it.

use std::collections::HashMap;

use nemo_ir::graph::{self, state_unit};
use nemo_ir::plan::{Placement, State, Weight};
use nemo_ir::rope::RopeTable;
use nemo_ir::types::{Dim, Dtype, Type};
use nemo_models::Model;

use super::PlanError;

/// The bindings of all programs of a plan.
pub(super) struct Bindings<'m> {
    model: &'m Model,
    /// Shape of each tensor of the checkpoint.
    stored: HashMap<String, Vec<u64>>,
    pub(super) weights: Vec<Weight>,
    weight_index: HashMap<String, usize>,
    pub(super) states: Vec<State>,
    state_index: HashMap<String, usize>,
    pub(super) tables: Vec<RopeTable>,
}

impl<'m> Bindings<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        let stored = model.tensors().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        Self {
            model,
            stored,
            weights: Vec::new(),
            weight_index: HashMap::new(),
            states: Vec::new(),
            state_index: HashMap::new(),
            tables: Vec::new(),
        }
    }

    /// The weights and states of a call, in the order in which the block defines them.
    pub(super) fn bind(
        &mut self,
        block: &graph::Block,
        call: &graph::Call,
    ) -> Result<(Vec<usize>, Vec<usize>), PlanError> {
        let mut weights = Vec::new();
        for (_, name, ty) in block.weights() {
            weights.push(self.weight(format!("{}{name}", call.prefix), ty)?);
        }
        let mut states = Vec::new();
        for (_, name, ty) in block.states() {
            let owner = call.layer.map_or_else(|| block.name.clone(), |layer| format!("layers.{layer}"));
            states.push(self.state(format!("{owner}.{name}"), ty)?);
        }
        Ok((weights, states))
    }

    /// The index of a table.
    pub(super) fn table(&mut self, table: RopeTable) -> usize {
        self.tables.iter().position(|other| *other == table).unwrap_or_else(|| {
            self.tables.push(table);
            self.tables.len() - 1
        })
    }

    fn weight(&mut self, name: String, ty: &Type) -> Result<usize, PlanError> {
        let Some(shape) = self.stored.get(&name) else {
            return Err(PlanError::Weight { name, why: "is not in the checkpoint".to_owned() });
        };
        if shape.iter().product::<u64>() != ty.elements(|_| 0) {
            return Err(PlanError::Weight { name, why: format!("is stored as {shape:?}, but used as {ty}") });
        }
        // Matrices are most of a checkpoint and are read where they are; the rest is a few numbers per channel.
        let placement = if shape.len() == 2 { Placement::InPlace(ty.dtype) } else { Placement::WidenedToF32 };
        if placement == Placement::WidenedToF32 && ty.dtype != Dtype::F32 {
            return Err(PlanError::Weight {
                name,
                why: format!("is widened to f32 at load, but used as {ty}"),
            });
        }
        if let Some(index) = self.weight_index.get(&name) {
            return if self.weights[*index].placement == placement {
                Ok(*index)
            } else {
                Err(PlanError::Weight { name, why: "is used in two dtypes".to_owned() })
            };
        }
        let aliases = self.model.root_aliases.iter().filter_map(|(usual, other)| {
            name.strip_prefix(usual.as_str()).map(|rest| format!("{other}{rest}"))
        });
        let names = std::iter::once(name.clone()).chain(aliases).collect();
        self.weights.push(Weight { names, shape: shape.clone(), placement });
        self.weight_index.insert(name, self.weights.len() - 1);
        Ok(self.weights.len() - 1)
    }

    fn state(&mut self, name: String, ty: &Type) -> Result<usize, PlanError> {
        let shape: Option<Vec<u64>> = ty.shape.iter().skip(1).copied().map(Dim::constant).collect();
        let Some((per, shape)) = state_unit(ty).zip(shape) else {
            return Err(PlanError::State { name, why: "does not consist of slots or pages of one size" });
        };
        let state = State { name: name.clone(), per, dtype: ty.dtype, shape };
        if let Some(index) = self.state_index.get(&name) {
            return if self.states[*index] == state {
                Ok(*index)
            } else {
                Err(PlanError::State { name, why: "has two types" })
            };
        }
        self.states.push(state);
        self.state_index.insert(name, self.states.len() - 1);
        Ok(self.states.len() - 1)
    }
}
