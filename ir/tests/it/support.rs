//! What the tests share: blocks as text, drawn tensors, comparisons.

use std::collections::BTreeMap;

use nemo_ir::graph::Block;
use nemo_ir::interp::{EvalError, Numerics, Sequence, Step, Tensor, run_block};
use nemo_ir::philox::philox4x32;
use nemo_ir::text::parse_block;
use nemo_ir::verify::verify_block;

pub type Tensors = BTreeMap<String, Tensor>;

pub fn tensors<const N: usize>(named: [(&str, Tensor); N]) -> Tensors {
    named.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

/// A legal block.
#[track_caller]
pub fn block(text: &str) -> Block {
    let block = parse_block(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    if let Err(errors) = verify_block(&block) {
        panic!("{errors:?}\n{text}");
    }
    block
}

/// Runs a block; `given` has inputs and weights by name.
pub fn try_run(
    block: &Block,
    given: &Tensors,
    states: &mut Tensors,
    step: &Step,
    numerics: Numerics,
) -> Result<Tensors, EvalError> {
    run_block(block, given, |name, _| given[name].clone(), states, step, numerics)
}

/// Runs a block in f64.
#[track_caller]
pub fn run(block: &Block, given: &Tensors, states: &mut Tensors, step: &Step) -> Tensors {
    try_run(block, given, states, step, Numerics::F64).unwrap()
}

/// The output `y` of a block without state, given as text, in f64.
#[track_caller]
pub fn eval<const N: usize>(text: &str, named: [(&str, Tensor); N], step: &Step) -> Vec<f64> {
    let mut outputs = run(&block(text), &tensors(named), &mut Tensors::new(), step);
    reals(&outputs.remove("y").unwrap())
}

/// A step of one sequence of `tokens` tokens, in slot 0, without pages.
pub fn rows(tokens: usize) -> Step {
    Step::of(&[Sequence { tokens: vec![0; tokens], slot_in: 0, slot_out: 0, ..Sequence::default() }])
}

pub fn reals(tensor: &Tensor) -> Vec<f64> {
    tensor.as_real().unwrap().to_vec()
}

#[track_caller]
pub fn close(found: &[f64], wanted: &[f64], tolerance: f64) {
    assert_eq!(found.len(), wanted.len());
    for (index, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let error = (found - wanted).abs();
        assert!(error <= tolerance * wanted.abs().max(1.0), "element {index}: {found} for {wanted}");
    }
}

/// Reals in `[-1, 1)` that depend on the seed alone.
pub fn noise(seed: u32, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let real =
        |i: usize| f64::from(philox4x32([i as u32, 0, 0, 0], [seed, 7])[0]) / f64::from(1u32 << 31) - 1.0;
    Tensor::real(shape, (0..count).map(real).collect())
}
