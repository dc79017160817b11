//! Fused ops against the chains that their recipes say they are, rounding included.

use nemo_ir::interp::{Numerics, Sequence, Step};

use crate::support::{Tensors, block, noise, reals, rows, tensors, try_run};

/// Runs two blocks on the same tensors and states and compares outputs and states bit by bit.
#[track_caller]
fn same(fused: &str, chain: &str, given: &Tensors, states: &Tensors, step: &Step) {
    for numerics in [Numerics::F64, Numerics::F32, Numerics::Declared] {
        let run = |text: &str| {
            let mut states = states.clone();
            let outputs = try_run(&block(text), given, &mut states, step, numerics).unwrap();
            (outputs, states)
        };
        assert_eq!(run(fused), run(chain), "{numerics:?}");
    }
}

#[test]
fn intermediates_are_rounded_as_declared() {
    let head = "block b(%x: bf16[T,6]) {
        weight @norm: f32[6]
        weight @up: bf16[5,6]";
    let fused = format!(
        "{head}
        %0 = norm_linear_relu2(%x, @norm, @up) {{eps: 1e-5, group: 6, normed: bf16, product: bf16, dtype: bf16}} : bf16[T,5]
        return y = %0
    }}"
    );
    let chain = format!(
        "{head}
        %0 = rms_norm(%x, @norm) {{eps: 1e-5, group: 6, dtype: bf16}} : bf16[T,6]
        %1 = linear(%0, @up) {{dtype: bf16}} : bf16[T,5]
        %2 = relu2(%1) {{dtype: bf16}} : bf16[T,5]
        return y = %2
    }}"
    );
    let given = tensors([("x", noise(1, &[3, 6])), ("norm", noise(2, &[6])), ("up", noise(3, &[5, 6]))]);
    same(&fused, &chain, &given, &Tensors::new(), &rows(3));
    // A product that is not rounded gives other bits: the declared dtype of the intermediate counts.
    let unrounded = fused.replace("product: bf16", "product: f32");
    let declared = |text: &str| {
        let outputs = try_run(&block(text), &given, &mut Tensors::new(), &rows(3), Numerics::Declared);
        reals(&outputs.unwrap()["y"])
    };
    assert_ne!(declared(&unrounded), declared(&fused));
}

#[test]
fn an_absent_bias_is_absent_in_the_step_and_both_states_are_written() {
    let head = "block b(%xbc: bf16[T,10], %dt: bf16[T,2], %gate: bf16[T,6]) {
        state &conv: bf16[S,2,10]
        state &ssm: f32[S,2,2,3]
        weight @taps: f32[10,3]
        weight @dt_bias: f32[2]
        weight @a: f32[2]
        weight @d: f32[2]
        weight @norm: f32[6]";
    let fused = format!(
        "{head}
        %0, &conv.1, &ssm.1 = conv_ssd_norm(%xbc, @taps, &conv, %dt, @dt_bias, @a, @d, &ssm, %gate, @norm) {{convolved: bf16, inner: 6, shared: 2, min: 0.0, max: inf, heads: 2, groups: 1, scanned: f32, eps: 1e-5, group: 6, dtype: bf16}} : bf16[T,6], bf16[S,2,10], f32[S,2,2,3]
        return y = %0
    }}"
    );
    let chain = format!(
        "{head}
        %0, &conv.1 = causal_conv1d(%xbc, @taps, &conv) {{dtype: bf16}} : bf16[T,10], bf16[S,2,10]
        %1 = slice(%0) {{offset: 0, width: 6}} : bf16[T,6]
        %2 = slice(%0) {{offset: 6, width: 2}} : bf16[T,2]
        %3 = slice(%0) {{offset: 8, width: 2}} : bf16[T,2]
        %4 = dt_softplus(%dt, @dt_bias) {{min: 0.0, max: inf}} : f32[T,2]
        %5, &ssm.1 = ssd_recurrent(%1, %4, %2, %3, @a, @d, &ssm) {{heads: 2, groups: 1, dtype: f32}} : f32[T,6], f32[S,2,2,3]
        %6 = gated_rms_norm(%5, %gate, @norm) {{eps: 1e-5, group: 6, dtype: bf16}} : bf16[T,6]
        return y = %6
    }}"
    );
    let sequence = |tokens, slot_in, slot_out| Sequence {
        tokens: vec![0; tokens],
        slot_in,
        slot_out,
        ..Sequence::default()
    };
    let step = Step::of(&[sequence(1, 0, 0), sequence(4, -1, 1), sequence(2, 2, 3), sequence(1, 4, -1)]);
    let given = tensors([
        ("xbc", noise(1, &[8, 10])),
        ("dt", noise(2, &[8, 2])),
        ("gate", noise(3, &[8, 6])),
        ("taps", noise(4, &[10, 3])),
        ("dt_bias", noise(5, &[2])),
        ("a", noise(6, &[2])),
        ("d", noise(7, &[2])),
        ("norm", noise(8, &[6])),
    ]);
    let states = tensors([("conv", noise(9, &[5, 2, 10])), ("ssm", noise(10, &[5, 2, 2, 3]))]);
    same(&fused, &chain, &given, &states, &step);
}

#[test]
fn operands_that_do_not_fit_a_step_are_refused() {
    let text = "block b(%x: bf16[T,6]) {
        weight @up: bf16[5,7]
        %0 = linear_relu2(%x, @up) {product: bf16, dtype: bf16} : bf16[T,5]
        return y = %0
    }";
    let error = nemo_ir::text::parse_block(text).unwrap_err().to_string();
    assert!(error.contains("weight") && error.contains("[N,6]"), "{error}");
}
