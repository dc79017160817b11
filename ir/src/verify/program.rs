//! Rules of programs: blocks and the calls between them.

use std::collections::{HashMap, HashSet};

use super::block::WEIGHT_IS;
use super::error::VerifyError;
use crate::graph::{Block, Node, Program};
use crate::text::is_weight_name;
use crate::types::Type;

/// Everything wrong between blocks.
pub(super) fn calls(program: &Program) -> Vec<VerifyError> {
    let mut errors = block_names(program);
    if program.calls.is_empty() {
        errors.push(VerifyError::NoCalls);
    }
    let mut outputs: Vec<(String, Type)> = Vec::new();
    let mut states: HashMap<(u32, &str), usize> = HashMap::new();
    let mut weights: HashMap<String, &Type> = HashMap::new();
    for (index, call) in program.calls.iter().enumerate() {
        let Some(block) = program.blocks.get(call.block) else {
            let blocks = program.blocks.len();
            errors.push(VerifyError::NoBlock { call: index, block: call.block, blocks });
            continue;
        };
        if !call.prefix.is_empty() && !is_weight_name(&call.prefix) {
            errors.push(VerifyError::Prefix {
                call: index,
                block: block.name.clone(),
                prefix: call.prefix.clone(),
                wanted: WEIGHT_IS,
            });
        }
        errors.extend(inputs(index, block, &outputs));
        outputs = block_outputs(block);
        for (_, state, _) in block.states() {
            let Some(layer) = call.layer else {
                errors.push(VerifyError::NoLayer { call: index, block: block.name.clone() });
                break;
            };
            if let Some(first) = states.insert((layer, state), index) {
                errors.push(VerifyError::SharedState { first, call: index, state: state.to_owned(), layer });
            }
        }
        for (_, name, ty) in block.weights() {
            let weight = format!("{}{name}", call.prefix);
            match weights.get(&weight) {
                Some(first) if *first != ty => errors.push(VerifyError::WeightType {
                    call: index,
                    weight,
                    wanted: first.to_string(),
                    found: ty.to_string(),
                }),
                Some(_) => {}
                None => drop(weights.insert(weight, ty)),
            }
        }
    }
    errors
}

fn block_names(program: &Program) -> Vec<VerifyError> {
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    let called: HashSet<usize> = program.calls.iter().map(|call| call.block).collect();
    for (index, block) in program.blocks.iter().enumerate() {
        if !names.insert(block.name.as_str()) {
            errors.push(VerifyError::DuplicateBlock(block.name.clone()));
        }
        if !called.contains(&index) {
            errors.push(VerifyError::NeverCalled(block.name.clone()));
        }
    }
    errors
}

/// Each input is an output of the call before, of the same type.
fn inputs(call: usize, block: &Block, outputs: &[(String, Type)]) -> Vec<VerifyError> {
    let mut errors = Vec::new();
    for node in block.graph.node_weights() {
        let Node::Input { name, ty } = node else { continue };
        let found = outputs.iter().find(|(output, _)| output == name);
        if found.is_none_or(|(_, found)| found != ty) {
            errors.push(VerifyError::CallInput {
                call,
                block: block.name.clone(),
                input: name.clone(),
                wanted: ty.to_string(),
                found: found.map_or_else(|| "no such value".to_owned(), |(_, found)| found.to_string()),
            });
        }
    }
    errors
}

/// Outputs with their types; those that refer to nothing are the block's own error.
fn block_outputs(block: &Block) -> Vec<(String, Type)> {
    let outputs = block.outputs.iter();
    outputs
        .filter(|(_, value)| {
            block.graph.node_weight(value.node).is_some() && value.result < block.result_count(value.node)
        })
        .map(|(name, value)| (name.clone(), block.ty(*value)))
        .collect()
}
