//! A whole small hybrid model: however a sequence is cut into steps, and whatever runs beside it, its
//! logits are the same.

use nemo_ir::graph::Program;
use nemo_ir::interp::{
    EvalError, Logits, Numerics, Outputs, Sequence, StateStore, Step, Tensor, run_program,
};
use nemo_ir::text::parse_program;
use nemo_ir::types::Type;

use crate::support::{close, noise, reals};

const HYBRID: &str = include_str!("hybrid.txt");
const TOKENS: [i32; 9] = [3, 31, 0, 7, 7, 12, 30, 1, 5];

fn hybrid() -> Program {
    parse_program(HYBRID).unwrap()
}

/// A weight that depends on its name alone.
fn weight(name: &str, ty: &Type) -> Tensor {
    let seed = name.bytes().fold(17u32, |seed, byte| seed.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let shape: Vec<usize> = ty.shape.iter().map(|dim| dim.constant().unwrap() as usize).collect();
    noise(seed, &shape).rounded(ty.dtype)
}

fn run(state: &mut StateStore, sequences: &[Sequence]) -> Outputs {
    run_program(&hybrid(), weight, state, &Step::of(sequences), Numerics::F64).unwrap()
}

fn part(tokens: &[i32], context: usize, slot: i32, page: i32) -> Sequence {
    Sequence {
        tokens: tokens.to_vec(),
        context: context as i32,
        slot_in: if context == 0 { -1 } else { slot },
        slot_out: slot,
        pages: vec![page],
        logits: Logits::All,
        ..Sequence::default()
    }
}

fn whole() -> (Outputs, StateStore) {
    let mut state = StateStore::zeros(&hybrid(), 3, 3);
    (run(&mut state, &[part(&TOKENS, 0, 0, 0)]), state)
}

#[test]
fn chunks_and_single_tokens_give_what_the_whole_prompt_gives() {
    let (whole, _) = whole();
    for cuts in [vec![4, 9], vec![1, 2, 3, 4, 5, 6, 7, 8, 9], vec![5, 6, 9]] {
        let mut state = StateStore::zeros(&hybrid(), 3, 3);
        let (mut from, mut logits, mut last) = (0, Vec::new(), Vec::new());
        for to in cuts {
            let outputs = run(&mut state, &[part(&TOKENS[from..to], from, 0, 0)]);
            logits.extend(reals(&outputs.logits));
            last = outputs.next;
            from = to;
        }
        close(&logits, &reals(&whole.logits), 1e-9);
        assert_eq!(last, whole.next);
    }
}

#[test]
fn neighbours_and_padding_change_nothing() {
    let (whole, alone) = whole();
    let mut state = StateStore::zeros(&hybrid(), 3, 3);
    let padding = Sequence { tokens: vec![-1], pages: vec![-1], logits: Logits::None, ..Sequence::default() };
    let sequences = [part(&[9, 8], 0, 2, 2), part(&TOKENS, 0, 0, 0), padding];
    let outputs = run(&mut state, &sequences);
    close(&reals(&outputs.logits)[2 * 32..], &reals(&whole.logits), 1e-12);
    assert_eq!(outputs.next[1..], [whole.next[0], -1]);
    // Slot 0 and page 0 hold what they would hold alone; slot 1 and page 1 hold nothing.
    for (layer, name, tensor) in state.iter() {
        let unit = reals(tensor).len() / 3;
        let alone = reals(alone.get(layer, name).unwrap());
        close(&reals(tensor)[..unit], &alone[..unit], 1e-12);
        assert!(reals(tensor)[unit..2 * unit].iter().all(|x| *x == 0.0), "{layer} {name}");
    }
}

#[test]
fn a_fork_of_the_state_continues_as_the_original_does() {
    let mut state = StateStore::zeros(&hybrid(), 3, 3);
    run(&mut state, &[part(&TOKENS[..4], 0, 0, 0)]);
    let fork = Sequence { slot_out: 1, ..part(&TOKENS[4..], 4, 0, 0) };
    let forked = run(&mut state, &[fork]);
    let original = run(&mut state, &[part(&TOKENS[4..], 4, 0, 0)]);
    assert_eq!(forked, original);
    let ssm = reals(state.get(0, "ssm").unwrap());
    assert_eq!(ssm[..40], ssm[40..80]);
}

#[test]
fn rounding_stays_near() {
    let (whole, _) = whole();
    for (numerics, tolerance) in [(Numerics::F32, 1e-4), (Numerics::Declared, 0.2)] {
        let mut state = StateStore::zeros(&hybrid(), 1, 1);
        let step = Step::of(&[part(&TOKENS, 0, 0, 0)]);
        let outputs = run_program(&hybrid(), weight, &mut state, &step, numerics).unwrap();
        close(&reals(&outputs.logits), &reals(&whole.logits), tolerance);
        assert_ne!(outputs.logits, whole.logits);
    }
}

#[test]
fn what_a_program_lacks_is_named() {
    let mut program = hybrid();
    let mut state = StateStore::zeros(&program, 1, 1);
    let step = Step::of(&[part(&TOKENS, 0, 0, 0)]);
    let mut error =
        |program: &Program| run_program(program, weight, &mut state, &step, Numerics::F64).unwrap_err();
    program.calls.pop();
    assert_eq!(error(&program), EvalError::NoOutput("logits"));
    program.calls[1].layer = None;
    assert_eq!(error(&program), EvalError::NoLayer("mamba2".to_owned()));
    program.calls[1].layer = Some(40);
    assert!(matches!(error(&program), EvalError::Missing { what: "state", .. }));
    program.calls[1].block = 9;
    assert_eq!(error(&program), EvalError::NoBlock { call: 1, block: 9, blocks: 5 });
}
