//! Ops with state, against values computed by hand.

use nemo_ir::interp::{EvalError, Numerics, Sequence, Step, Tensor};

use crate::support::{Tensors, block, close, reals, run, tensors, try_run};

const CONV: &str = "block b(%x: f32[T,1]) {
    state &conv: f32[S,2,1]
    weight @w: f32[1,3]
    weight @bias: f32[1]
    %0, &conv.1 = causal_conv1d(%x, @w, @bias, &conv) {dtype: f32} : f32[T,1], f32[S,2,1]
    return y = %0
}";

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn part(len: usize, slot_in: i32, slot_out: i32) -> Sequence {
    Sequence { tokens: vec![0; len], slot_in, slot_out, ..Sequence::default() }
}

fn column(values: &[f64]) -> Tensor {
    Tensor::real([values.len(), 1], values.to_vec())
}

#[test]
fn convolution_ends_on_the_current_token_and_keeps_the_last_inputs() {
    let given = tensors([
        ("x", column(&[1.0, 2.0, 3.0])),
        ("w", Tensor::real([1, 3], vec![100.0, 10.0, 1.0])),
        ("bias", Tensor::real([1], vec![0.5])),
    ]);
    let mut states = tensors([("conv", Tensor::real([1, 2, 1], vec![-2.0, -1.0]))]);
    let y = run(&block(CONV), &given, &mut states, &Step::of(&[part(3, 0, 0)]));
    // -2 -1 | 1 2 3: -200 - 10 + 1, -100 + 10 + 2, 100 + 20 + 3, each plus a half.
    close(&reals(&y["y"]), &[silu(-208.5), silu(-87.5), silu(123.5)], 1e-15);
    assert_eq!(reals(&states["conv"]), [2.0, 3.0]);
}

#[test]
fn a_convolution_may_lack_a_bias_and_a_chunk_may_be_shorter_than_its_state() {
    let text = "block b(%x: f32[T,1]) {
        state &conv: f32[S,2,1]
        weight @w: f32[1,3]
        %0, &conv.1 = causal_conv1d(%x, @w, &conv) {dtype: f32} : f32[T,1], f32[S,2,1]
        return y = %0
    }";
    let given = tensors([("x", column(&[3.0])), ("w", Tensor::real([1, 3], vec![100.0, 10.0, 1.0]))]);
    let mut states = tensors([("conv", Tensor::real([1, 2, 1], vec![1.0, 2.0]))]);
    let y = run(&block(text), &given, &mut states, &Step::of(&[part(1, 0, 0)]));
    close(&reals(&y["y"]), &[123.0], 1e-15);
    assert_eq!(reals(&states["conv"]), [2.0, 3.0]);
}

#[test]
fn slots_are_zeroed_copied_and_left_alone() {
    let given = tensors([
        ("x", column(&[10.0, 20.0, 30.0])),
        ("w", Tensor::real([1, 3], vec![0.0, 0.0, 1.0])),
        ("bias", Tensor::real([1], vec![0.0])),
    ]);
    let before: Vec<f64> = (1..=8).map(f64::from).collect();
    let mut states = tensors([("conv", Tensor::real([4, 2, 1], before))]);
    // From zeros into slot 1; from slot 0 into slot 2; from slot 3 into nothing (a draft or a padded row).
    let step = Step::of(&[part(1, -1, 1), part(1, 0, 2), part(1, 3, -1)]);
    run(&block(CONV), &given, &mut states, &step);
    assert_eq!(reals(&states["conv"]), [1.0, 2.0, 0.0, 10.0, 2.0, 20.0, 7.0, 8.0]);
}

#[test]
fn a_sequence_without_tokens_copies_its_slot() {
    let given =
        tensors([("x", Tensor::zeros([0, 1])), ("w", Tensor::zeros([1, 3])), ("bias", Tensor::zeros([1]))]);
    let mut states = tensors([("conv", Tensor::real([2, 2, 1], vec![1.0, 2.0, 3.0, 4.0]))]);
    run(&block(CONV), &given, &mut states, &Step::of(&[part(0, 0, 1)]));
    assert_eq!(reals(&states["conv"]), [1.0, 2.0, 1.0, 2.0]);
}

/// One head of one column with a state of two; `op` and its attributes are filled in.
fn scan(op: &str) -> String {
    format!(
        "block b(%x: f32[T,1], %dt: f32[T,1], %b: f32[T,2], %c: f32[T,2]) {{
            state &ssm: f32[S,1,2,1]
            weight @a_log: f32[1]
            weight @d: f32[1]
            %0, &ssm.1 = {op} : f32[T,1], f32[S,1,2,1]
            return y = %0
        }}"
    )
}

#[test]
fn one_token_of_the_scan() {
    let given = tensors([
        ("x", column(&[2.0])),
        ("dt", column(&[0.5])),
        ("b", Tensor::real([1, 2], vec![1.0, -1.0])),
        ("c", Tensor::real([1, 2], vec![3.0, 1.0])),
        ("a_log", Tensor::real([1], vec![2f64.ln()])),
        ("d", Tensor::real([1], vec![10.0])),
    ]);
    // a = -2, so a state of (1, 2) decays by e^-1; dt x b adds (1, -1).
    let decay = (-1f64).exp();
    let state = [decay + 1.0, 2.0 * decay - 1.0];
    let y = 3.0 * state[0] + state[1] + 20.0;
    for op in [
        "ssd_recurrent(%x, %dt, %b, %c, @a_log, @d, &ssm) {heads: 1, groups: 1, dtype: f32}",
        "ssd_chunked(%x, %dt, %b, %c, @a_log, @d, &ssm) {heads: 1, groups: 1, chunk: 4, dtype: f32}",
    ] {
        let mut states = tensors([("ssm", Tensor::real([1, 1, 2, 1], vec![1.0, 2.0]))]);
        let outputs = run(&block(&scan(op)), &given, &mut states, &Step::of(&[part(1, 0, 0)]));
        close(&reals(&outputs["y"]), &[y], 1e-15);
        close(&reals(&states["ssm"]), &state, 1e-15);
    }
}

#[test]
fn heads_of_a_group_share_b_and_c() {
    // Four heads in two groups; with an empty state and d = 0, y = dt x (b . c).
    let text = "block b(%x: f32[T,4], %dt: f32[T,4], %b: f32[T,2], %c: f32[T,2]) {
        state &ssm: f32[S,4,1,1]
        weight @a_log: f32[4]
        weight @d: f32[4]
        %0, &ssm.1 = ssd_recurrent(%x, %dt, %b, %c, @a_log, @d, &ssm) {heads: 4, groups: 2, dtype: f32}
            : f32[T,4], f32[S,4,1,1]
        return y = %0
    }";
    let given = tensors([
        ("x", Tensor::real([1, 4], vec![1.0, 2.0, 3.0, 4.0])),
        ("dt", Tensor::real([1, 4], vec![1.0; 4])),
        ("b", Tensor::real([1, 2], vec![1.0, 10.0])),
        ("c", Tensor::real([1, 2], vec![1.0, 10.0])),
        ("a_log", Tensor::zeros([4])),
        ("d", Tensor::zeros([4])),
    ]);
    let mut states = tensors([("ssm", Tensor::zeros([1, 4, 1, 1]))]);
    let y = run(&block(text), &given, &mut states, &Step::of(&[part(1, -1, 0)]));
    assert_eq!(reals(&y["y"]), [1.0, 2.0, 300.0, 400.0]);
    assert_eq!(reals(&states["ssm"]), [1.0, 2.0, 30.0, 40.0]);
}

fn attention(window: u64) -> String {
    format!(
        "block b(%q: f32[T,2], %k: f32[T,1], %v: f32[T,1]) {{
            state &kv: f32[N,2,1,64,1]
            &kv.1 = kv_append(%k, %v, &kv) : f32[N,2,1,64,1]
            %0 = paged_attention(%q, &kv.1) {{scale: 0.5, window: {window}, dtype: f32}} : f32[T,2]
            return y = %0
        }}"
    )
}

fn attention_operands(rows: usize) -> Tensors {
    let values = |from: f64| (0..rows).map(|i| from + i as f64).collect::<Vec<_>>();
    tensors([
        // The first query head is 0 and takes the mean of the values; the second prefers large keys.
        ("q", Tensor::real([rows, 2], (0..rows).flat_map(|_| [0.0, 2.0]).collect())),
        ("k", column(&values(0.0))),
        ("v", column(&values(1.0))),
    ])
}

#[test]
fn attention_is_causal_and_scaled() {
    let step = Step::of(&[Sequence { tokens: vec![0; 2], pages: vec![1], ..Sequence::default() }]);
    let mut states = tensors([("kv", Tensor::zeros([2, 2, 1, 64, 1]))]);
    let y = run(&block(&attention(0)), &attention_operands(2), &mut states, &step);
    // Row 1, second head: scores 0 and 1, values 1 and 2.
    let e = 1f64.exp();
    close(&reals(&y["y"]), &[1.0, 1.0, 1.5, (1.0 + 2.0 * e) / (1.0 + e)], 1e-15);
    let kv = reals(&states["kv"]);
    assert_eq!((kv[128..130].to_vec(), kv[192..194].to_vec()), (vec![0.0, 1.0], vec![1.0, 2.0]));
    assert!(kv[..128].iter().all(|x| *x == 0.0), "page 0 was not this sequence's");
}

#[test]
fn a_window_forgets_the_oldest() {
    let step = Step::of(&[Sequence { tokens: vec![0; 3], pages: vec![0], ..Sequence::default() }]);
    let mut states = tensors([("kv", Tensor::zeros([1, 2, 1, 64, 1]))]);
    let y = reals(&run(&block(&attention(2)), &attention_operands(3), &mut states, &step)["y"]);
    close(&[y[0], y[2], y[4]], &[1.0, 1.5, 2.5], 1e-15);
}

#[test]
fn rows_without_a_page_write_nothing() {
    let padded = Sequence { tokens: vec![-1], pages: vec![-1], ..Sequence::default() };
    let mut states = tensors([("kv", Tensor::zeros([1, 2, 1, 64, 1]))]);
    let y = run(&block(&attention(0)), &attention_operands(1), &mut states, &Step::of(&[padded]));
    assert_eq!(reals(&y["y"]), [0.0, 0.0]);
    assert!(reals(&states["kv"]).iter().all(|x| *x == 0.0));
}

#[test]
fn a_position_past_the_block_table_is_an_error() {
    let step =
        Step::of(&[Sequence { tokens: vec![0; 2], context: 63, pages: vec![0], ..Sequence::default() }]);
    let mut states = tensors([("kv", Tensor::zeros([1, 2, 1, 64, 1]))]);
    let before = states.clone();
    let found =
        try_run(&block(&attention(0)), &attention_operands(2), &mut states, &step, Numerics::Declared);
    assert_eq!(found, Err(EvalError::PastBlockTable { seq: 0, position: 64, end: 64 }));
    assert_eq!(states, before);
}
