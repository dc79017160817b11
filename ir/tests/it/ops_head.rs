//! Embedding, row selection and sampling, and the checks of a step.

use nemo_ir::interp::{EvalError, Logits, Numerics, Sequence, Step, StepError, Tensor};
use nemo_ir::philox::philox4x32;

use crate::support::{Tensors, block, eval, run, tensors, try_run};

const EMBED: &str = "block b() {
    weight @table: bf16[3,2]
    %0 = embed(@table) {dtype: bf16} : bf16[T,2]
    return y = %0
}";

const SAMPLE: &str = "block b(%logits: f32[L,4]) {
    %0 = sample(%logits) : i32[R]
    return next = %0
}";

fn table() -> Tensor {
    Tensor::real([3, 2], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
}

fn tokens(tokens: &[i32]) -> Step {
    Step::of(&[Sequence { tokens: tokens.to_vec(), ..Sequence::default() }])
}

#[test]
fn embed_takes_rows_and_pads_with_zeros() {
    assert_eq!(eval(EMBED, [("table", table())], &tokens(&[2, -1, 0])), [5.0, 6.0, 0.0, 0.0, 1.0, 2.0]);
}

#[test]
fn embed_refuses_what_the_vocabulary_lacks() {
    let given = tensors([("table", table())]);
    let found = try_run(&block(EMBED), &given, &mut Tensors::new(), &tokens(&[0, 3]), Numerics::F64);
    assert_eq!(found, Err(EvalError::Token { token: 3, row: 1, vocab: 3 }));
}

#[test]
fn gather_rows_selects() {
    let text = "block b(%x: f32[T,2]) {
        %0 = gather_rows(%x) : f32[L,2]
        return y = %0
    }";
    let part = |len, logits| Sequence { tokens: vec![0; len], logits, ..Sequence::default() };
    let step = Step::of(&[part(2, Logits::Last), part(1, Logits::None), part(2, Logits::All)]);
    let x = Tensor::real([5, 2], (0..10).map(f64::from).collect());
    assert_eq!(eval(text, [("x", x)], &step), [2.0, 3.0, 6.0, 7.0, 8.0, 9.0]);
}

#[test]
fn tile_max_takes_the_last_tile_as_it_is() {
    let text = "block b(%x: f32[T,5]) {
        %0 = tile_max(%x) {tile: 2} : f32[T,3]
        return y = %0
    }";
    let x = Tensor::real([2, 5], vec![1.0, 3.0, -2.0, -4.0, -9.0, f64::NAN, 7.0, 0.0, 5.0, 2.0]);
    let found = eval(text, [("x", x)], &crate::support::rows(2));
    assert_eq!(found[..3], [3.0, -2.0, -9.0]);
    assert!(found[3].is_nan());
    assert_eq!(found[4..], [5.0, 2.0]);
}

#[test]
fn sampling_by_tiles_is_sampling() {
    let text = "block b(%logits: f32[L,4]) {
        %0 = tile_max(%logits) {tile: 3} : f32[L,2]
        %1 = sample_tiled(%logits, %0) {tile: 3} : i32[R]
        return next = %1
    }";
    let step = tokens(&[0]);
    let given = tensors([("logits", Tensor::real([1, 4], vec![0.5, 2.0, 1.0, 2.0]))]);
    let next = run(&block(text), &given, &mut Tensors::new(), &step)["next"].as_int().unwrap().to_vec();
    assert_eq!(next, [1]);
}

#[track_caller]
fn sample(step: &Step, logits: &[f64]) -> Vec<i32> {
    let given = tensors([("logits", Tensor::real([logits.len() / 4, 4], logits.to_vec()))]);
    run(&block(SAMPLE), &given, &mut Tensors::new(), step)["next"].as_int().unwrap().to_vec()
}

#[test]
fn sample_uses_the_last_row_of_each_sequence() {
    let part = |logits| Sequence { tokens: vec![0; 2], logits, ..Sequence::default() };
    let forced = Sequence { forced: 7, ..part(Logits::Last) };
    let step = Step::of(&[part(Logits::All), part(Logits::None), forced, part(Logits::Last)]);
    let logits = [
        [9.0, 0.0, 0.0, 0.0], // not the last row of the first sequence
        [0.0, 1.0, 1.0, 0.0], // the lower of two equals
        [0.0, 0.0, 0.0, 1.0], // overruled
        [0.0, 0.0, 5.0, 4.0],
    ];
    assert_eq!(sample(&step, logits.as_flattened()), [1, -1, 7, 2]);
}

#[test]
fn sample_draws_by_seed_and_position() {
    let sequence =
        Sequence { tokens: vec![0; 3], context: 40, temperature: 1.0, seed: [5, 6], ..Sequence::default() };
    // Four equal logits: the upper two bits of the word for position 42 choose.
    let word = philox4x32([42, 0, 0, 0], [5, 6])[0];
    assert_eq!(sample(&Step::of(std::slice::from_ref(&sequence)), &[0.0; 4]), [(word >> 30) as i32]);
    let narrowed = Sequence { top_k: 1, ..sequence };
    assert_eq!(sample(&Step::of(&[narrowed]), &[0.0, 3.0, 1.0, 2.0]), [1]);
}

#[test]
fn steps_are_checked() {
    let sequence = || Sequence { tokens: vec![0; 2], slot_in: 1, slot_out: 1, ..Sequence::default() };
    let good = Step::of(&[sequence(), Sequence { slot_in: 2, slot_out: 2, ..sequence() }]);
    assert_eq!(good.validate(Some(3), None), Ok(()));
    let mut messages = Vec::new();
    let mut refuse = |change: fn(&mut Step)| {
        let mut step = good.clone();
        change(&mut step);
        messages.push(step.validate(Some(3), Some(2)).unwrap_err().to_string());
    };
    refuse(|step| step.seq_start = vec![]);
    refuse(|step| step.positions.truncate(3));
    refuse(|step| step.top_p.truncate(1));
    refuse(|step| step.pages = vec![0, 1, 0]);
    refuse(|step| step.pages = vec![0, 2]);
    refuse(|step| step.seq_start = vec![0, 5, 4]);
    refuse(|step| step.seq_start = vec![0, 3, 2]);
    refuse(|step| step.seq_start[0] = 1);
    refuse(|step| step.rows = vec![1, 1]);
    refuse(|step| step.rows = vec![4]);
    refuse(|step| step.slot_in[0] = 3);
    refuse(|step| step.slot_out[0] = -2);
    refuse(|step| step.context[1] = -1);
    refuse(|step| step.temperature[1] = f32::NAN);
    refuse(|step| step.top_p[0] = -0.5);
    refuse(|step| step.min_p[0] = 2.0);
    refuse(|step| step.slot_in[0] = 2);
    insta::assert_snapshot!(messages.join("\n"));
    let shared = Step::of(&[sequence(), sequence()]);
    assert_eq!(shared.validate(None, None), Err(StepError::SharedSlot { slot: 1, writer: 0, other: 1 }));
}
