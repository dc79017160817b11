//! Ops without state, against values computed by hand.

use nemo_ir::interp::{Numerics, Sequence, Step, Tensor};

use crate::support::{Tensors, block, close, eval, reals, rows, tensors, try_run};

const LN_3: f64 = 1.098_612_288_668_109_8;

fn real(shape: &[usize], values: &[f64]) -> Tensor {
    Tensor::real(shape, values.to_vec())
}

#[test]
fn rms_norm_over_the_row() {
    let text = "block b(%x: f32[T,2]) {
        weight @w: f32[2]
        %0 = rms_norm(%x, @w) {eps: 0.5, group: 2, dtype: f32} : f32[T,2]
        return y = %0
    }";
    // The mean square of (3, 4) is 12.5; with eps, 13.
    let y = eval(text, [("x", real(&[1, 2], &[3.0, 4.0])), ("w", real(&[2], &[1.0, 2.0]))], &rows(1));
    close(&y, &[3.0 / 13f64.sqrt(), 8.0 / 13f64.sqrt()], 1e-15);
}

#[test]
fn rms_norm_over_groups_with_one_weight_for_all() {
    let text = "block b(%x: f32[T,4]) {
        weight @w: f32[2]
        %0 = rms_norm(%x, @w) {eps: 0.0, group: 2, dtype: f32} : f32[T,4]
        return y = %0
    }";
    let x = real(&[1, 4], &[1.0, 7.0, 30.0, 40.0]);
    let y = eval(text, [("x", x), ("w", real(&[2], &[1.0, 10.0]))], &rows(1));
    let r = 1250f64.sqrt();
    close(&y, &[0.2, 14.0, 30.0 / r, 400.0 / r], 1e-15);
}

#[test]
fn gated_rms_norm_gates_first() {
    let text = "block b(%x: f32[T,2], %gate: f32[T,2]) {
        weight @w: f32[2]
        %0 = gated_rms_norm(%x, %gate, @w) {eps: 0.0, group: 1, dtype: f32} : f32[T,2]
        %1 = gated_rms_norm(%x, %gate, @w) {eps: 0.0, group: 2, dtype: f32} : f32[T,2]
        return each = %0, y = %1
    }";
    // silu(ln 3) = 3/4 ln 3 and silu(-ln 3) = -1/4 ln 3: gated, (2, 2) is (6, -2) up to a factor.
    let given = tensors([
        ("x", real(&[1, 2], &[2.0, 2.0])),
        ("gate", real(&[1, 2], &[LN_3, -LN_3])),
        ("w", real(&[2], &[1.0, 3.0])),
    ]);
    let outputs = crate::support::run(&block(text), &given, &mut Tensors::new(), &rows(1));
    close(&reals(&outputs["each"]), &[1.0, -3.0], 1e-15);
    close(&reals(&outputs["y"]), &[6.0 / 20f64.sqrt(), -6.0 / 20f64.sqrt()], 1e-15);
}

#[test]
fn linear_takes_rows_of_the_weight() {
    let text = "block b(%x: f32[T,2]) {
        weight @w: f32[3,2]
        %0 = linear(%x, @w) {dtype: f32} : f32[T,3]
        return y = %0
    }";
    let w = real(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 2.0, -1.0]);
    let y = eval(text, [("x", real(&[2, 2], &[3.0, 5.0, -1.0, 4.0])), ("w", w)], &rows(2));
    assert_eq!(y, [3.0, 5.0, 1.0, -1.0, 4.0, -6.0]);
}

#[test]
fn add_and_slice() {
    let text = "block b(%x: f32[T,4]) {
        %0 = slice(%x) {offset: 0, width: 2} : f32[T,2]
        %1 = slice(%x) {offset: 2, width: 2} : f32[T,2]
        %2 = add(%0, %1) {dtype: f32} : f32[T,2]
        return y = %2
    }";
    let x = real(&[2, 4], &[1.0, 2.0, 30.0, 40.0, 5.0, 6.0, 70.0, 80.0]);
    assert_eq!(eval(text, [("x", x)], &rows(2)), [31.0, 42.0, 75.0, 86.0]);
}

#[test]
fn activations() {
    let text = "block b(%x: f32[T,3], %up: f32[T,3]) {
        %0 = relu2(%x) {dtype: f32} : f32[T,3]
        %1 = swiglu(%x, %up) {dtype: f32} : f32[T,3]
        return square = %0, y = %1
    }";
    let given = tensors([("x", real(&[1, 3], &[LN_3, -2.0, 0.0])), ("up", real(&[1, 3], &[4.0, 0.0, 9.0]))]);
    let outputs = crate::support::run(&block(text), &given, &mut Tensors::new(), &rows(1));
    close(&reals(&outputs["square"]), &[LN_3 * LN_3, 0.0, 0.0], 1e-15);
    close(&reals(&outputs["y"]), &[3.0 * LN_3, 0.0, 0.0], 1e-15);
}

#[test]
fn dt_softplus_keeps_its_digits() {
    let text = "block b(%x: f32[T,4]) {
        weight @bias: f32[4]
        %0 = dt_softplus(%x, @bias) {min: 0.0, max: inf} : f32[T,4]
        %1 = dt_softplus(%x, @bias) {min: 0.1, max: 10.0} : f32[T,4]
        return clamped = %1, y = %0
    }";
    let given = tensors([
        ("x", real(&[1, 4], &[-1.0, 790.0, -30.0, LN_3])),
        ("bias", real(&[4], &[1.0, 10.0, 10.0, 0.0])),
    ]);
    let outputs = crate::support::run(&block(text), &given, &mut Tensors::new(), &rows(1));
    let y = reals(&outputs["y"]);
    // softplus(0) = ln 2, softplus(ln 3) = ln 4, and softplus(-20) = e^-20 - e^-40 / 2 + …
    close(&y[..2], &[std::f64::consts::LN_2, 800.0], 1e-15);
    assert!((y[2] / 2.061_153_620_314_381e-9 - 1.0).abs() < 1e-14);
    close(&y[3..], &[4f64.ln()], 1e-15);
    close(&reals(&outputs["clamped"]), &[std::f64::consts::LN_2, 10.0, 0.1, 4f64.ln()], 1e-15);
}

#[test]
fn rope_rotates_halves() {
    let text = "block b(%x: f32[T,8]) {
        table #0 = rope {theta: 10000.0, head_dim: 4, positions: 16}
        %0 = rope(%x, #0) {dtype: f32} : f32[T,8]
        return y = %0
    }";
    let step = Step::of(&[Sequence { tokens: vec![0], context: 2, ..Sequence::default() }]);
    let x = real(&[1, 8], &[1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0]);
    let y = eval(text, [("x", x)], &step);
    // Head 0: (1, 0) turns by 2. Head 1: (2, 1) in columns 1 and 3 turns by 0.02.
    let (c, s) = (2f64.cos(), 2f64.sin());
    let (c2, s2) = (0.02f64.cos(), 0.02f64.sin());
    close(&y, &[c, 0.0, s, 0.0, 0.0, 2.0 * c2 - s2, 0.0, c2 + 2.0 * s2], 1e-7);
}

#[test]
fn numerics_round_results() {
    let text = "block b(%x: f32[T,1]) {
        weight @w: f32[1,1]
        %0 = linear(%x, @w) {dtype: bf16} : bf16[T,1]
        return y = %0
    }";
    let given = tensors([("x", real(&[1, 1], &[1.0])), ("w", real(&[1, 1], &[1.0 / 3.0]))]);
    let y = |numerics| {
        let outputs = try_run(&block(text), &given, &mut Tensors::new(), &rows(1), numerics).unwrap();
        reals(&outputs["y"])[0]
    };
    assert_eq!(y(Numerics::F64), 1.0 / 3.0);
    assert_eq!(y(Numerics::F32), f64::from(1.0f32 / 3.0));
    assert_eq!(y(Numerics::Declared), 0.333_984_375);
}

#[test]
fn wrong_tensors_are_named() {
    let text = "block b(%x: f32[2T,2]) {
        %0 = relu2(%x) {dtype: f32} : f32[2T,2]
        return y = %0
    }";
    let error = |given: Tensors| {
        try_run(&block(text), &given, &mut Tensors::new(), &rows(3), Numerics::F64).unwrap_err().to_string()
    };
    insta::assert_snapshot!(
        [
            error(Tensors::new()),
            error(tensors([("x", real(&[3, 2], &[0.0; 6]))])),
            error(tensors([("x", Tensor::int([6, 2], vec![0; 12]))])),
        ]
        .join("\n")
    );
}
