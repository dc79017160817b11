//! Both sides of a law on a drawn step, with drawn tensors.

use std::collections::BTreeMap;

use nemo_ir::graph::{Block, Node};
use nemo_ir::interp::{Logits, Numerics, Sequence, Step, Tensor, run_block};
use nemo_ir::plan::Phase;
use nemo_ir::types::{Symbol, Type};
use nemoc::saturate::law::{Class, Parsed};

use crate::kit::{Case, Draw, Random};
use crate::sides::{Fault, sides};

/// Largest difference, as a share of the largest magnitude: f64 has sixteen digits.
const TOLERANCE: f64 = 1e-9;

/// Columns of the block table: two pages and a half are the most that a sequence reaches.
const PAGES: i32 = 3;

type Tensors = BTreeMap<String, Tensor>;

/// Draws a case and runs both sides.
///
/// # Errors
/// [`Fault`].
pub fn run(parsed: &Parsed, case: Case, seed: u64) -> Result<(), Fault> {
    let mut draw = Draw::new(seed);
    case(&mut draw);
    let both = sides(parsed, &draw)?;
    let step = step(&mut draw.random, draw.phase);
    let given = given(&draw.leaves, &step, &mut draw.random);
    let both_by = |numerics| [&both.left, &both.right].map(|block| given.run(block, &step, numerics));
    let [left, right] = both_by(Numerics::F64);
    equal(&left, &right, TOLERANCE).map_err(Fault::Unequal)?;
    if parsed.law.class == Class::Exact {
        let [left, right] = both_by(Numerics::Declared);
        equal(&left, &right, 0.0).map_err(Fault::Bits)?;
    }
    Ok(())
}

/// A step of one to four sequences, with all that the contract allows of slots and pages.
fn step(random: &mut Random, phase: Phase) -> Step {
    let count = random.within(1, 4) as i32;
    let sequences: Vec<Sequence> = (0..count)
        .map(|number| {
            let tokens = if phase == Phase::Decode { 1 } else { random.within(1, 9) as usize };
            // Both slots are this sequence's: in place, a copy, a start from zeros, a state that is not kept.
            let (own, other) = (2 * number, 2 * number + 1);
            let (slot_in, slot_out) =
                [(own, own), (own, other), (-1, own), (own, -1)][random.within(0, 3) as usize];
            let context = [0, 1, 58, 63, 64, 120][random.within(0, 5) as usize];
            let mut pages: Vec<i32> = (0..PAGES).map(|page| page * count + number).collect();
            pages.rotate_left(random.within(0, 2) as usize);
            let logits = [Logits::None, Logits::Last, Logits::All][random.within(0, 2) as usize];
            if random.within(0, 4) == 0 {
                // Padding: a negative token, and nothing to write to.
                return Sequence {
                    tokens: vec![-1; tokens],
                    context,
                    pages: vec![-1; pages.len()],
                    ..Sequence::default()
                };
            }
            Sequence {
                tokens: vec![0; tokens],
                context,
                slot_in,
                slot_out,
                pages,
                logits,
                ..Sequence::default()
            }
        })
        .collect();
    Step::of(&sequences)
}

/// What a block is given.
struct Given {
    inputs: Tensors,
    weights: Tensors,
    states: Tensors,
}

fn given(leaves: &[Node], step: &Step, random: &mut Random) -> Given {
    let seqs = step.dims().seqs;
    let extent = |symbol: Symbol| match symbol {
        Symbol::T => step.dims().tokens,
        Symbol::S => 2 * seqs,
        Symbol::N => PAGES as u64 * seqs,
        Symbol::L => step.dims().rows,
        Symbol::R | Symbol::P => panic!("no leaf has the extent {}", symbol.name()),
    };
    let mut tensor = |ty: &Type| {
        let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.resolve(extent) as usize).collect();
        let elements = shape.iter().product::<usize>();
        Tensor::real(shape, (0..elements).map(|_| random.real() * 2.0).collect()).rounded(ty.dtype)
    };
    let mut given = Given { inputs: Tensors::new(), weights: Tensors::new(), states: Tensors::new() };
    for leaf in leaves {
        match leaf {
            Node::Input { name, ty } => given.inputs.insert(name.clone(), tensor(ty)),
            Node::Weight { name, ty } => given.weights.insert(name.clone(), tensor(ty)),
            Node::State { name, ty } => given.states.insert(name.clone(), tensor(ty)),
            Node::Table(_) | Node::Step(_) | Node::Op { .. } => None,
        };
    }
    given
}

impl Given {
    /// Outputs, and every state after the step, by name.
    fn run(&self, block: &Block, step: &Step, numerics: Numerics) -> Tensors {
        let mut states = self.states.clone();
        let weight = |name: &str, _: &Type| self.weights[name].clone();
        let outputs = run_block(block, &self.inputs, weight, &mut states, step, numerics);
        let mut given = outputs.unwrap_or_else(|error| panic!("{error}\n{block}"));
        given.extend(states.into_iter().map(|(name, tensor)| (format!("&{name}"), tensor)));
        given
    }
}

/// What differs by more than `tolerance` of the largest magnitude; with none, in any bit.
fn equal(left: &Tensors, right: &Tensors, tolerance: f64) -> Result<(), String> {
    assert!(left.keys().eq(right.keys()), "outputs {:?} and {:?}", left.keys(), right.keys());
    for (name, one) in left {
        let other = &right[name];
        if let (Some(a), Some(b)) = (one.as_int(), other.as_int()) {
            if a != b {
                return Err(format!("`{name}` is {a:?} and {b:?}"));
            }
            continue;
        }
        let (Some(a), Some(b)) = (one.as_real(), other.as_real()) else {
            return Err(format!("`{name}` is {:?} and {:?}", one.data(), other.data()));
        };
        if one.shape() != right[name].shape() {
            return Err(format!("`{name}` is {:?} and {:?}", one.shape(), right[name].shape()));
        }
        let largest = a.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        for (place, (a, b)) in a.iter().zip(b).enumerate() {
            // A comparison with NaN is false, so a NaN on either side is a difference.
            let near = if tolerance == 0.0 {
                a.to_bits() == b.to_bits()
            } else {
                (a - b).abs() <= tolerance * largest
            };
            if !near {
                return Err(format!("element {place} of `{name}` is {a} and {b}"));
            }
        }
    }
    Ok(())
}
