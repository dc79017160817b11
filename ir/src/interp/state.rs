//! State that lives between steps, by layer and name.

use std::collections::BTreeMap;

use super::tensor::Tensor;
use crate::graph::Program;
use crate::types::Symbol;

/// The state of every layer, for every slot and page.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StateStore {
    tensors: BTreeMap<u32, BTreeMap<String, Tensor>>,
}

impl StateStore {
    /// Zeros for each state of each call of the program.
    pub fn zeros(program: &Program, slots: usize, pages: usize) -> Self {
        let extent = |symbol| match symbol {
            Symbol::S => slots as u64,
            Symbol::N => pages as u64,
            // No state has such an extent; the interpreter reports one that claims to.
            Symbol::T | Symbol::R | Symbol::L | Symbol::P => 0,
        };
        let mut tensors: BTreeMap<u32, BTreeMap<String, Tensor>> = BTreeMap::new();
        for call in &program.calls {
            let (Some(layer), Some(block)) = (call.layer, program.blocks.get(call.block)) else { continue };
            for (_, name, ty) in block.states() {
                let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.resolve(extent) as usize).collect();
                tensors.entry(layer).or_default().insert(name.to_owned(), Tensor::zeros(shape));
            }
        }
        Self { tensors }
    }

    /// One state of one layer.
    pub fn get(&self, layer: u32, name: &str) -> Option<&Tensor> {
        self.tensors.get(&layer)?.get(name)
    }

    /// Sets one state of one layer.
    pub fn set(&mut self, layer: u32, name: impl Into<String>, tensor: Tensor) {
        self.tensors.entry(layer).or_default().insert(name.into(), tensor);
    }

    /// Every state in order of layer and name.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str, &Tensor)> {
        self.tensors
            .iter()
            .flat_map(|(layer, states)| states.iter().map(|(name, tensor)| (*layer, name.as_str(), tensor)))
    }

    /// The states of one layer by name; an empty map comes to be where there is none.
    pub fn layer_mut(&mut self, layer: u32) -> &mut BTreeMap<String, Tensor> {
        self.tensors.entry(layer).or_default()
    }
}
