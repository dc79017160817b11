//! RMSNorm: a thread takes whole groups of columns; each group is read twice, the second time from cache.

use inkwell::values::FloatValue;

use crate::host::{Any, Emit, Generator, Int, Lanes, Ptr};

pub(crate) fn generator(op: &str) -> Option<Generator> {
    match op {
        "rms_norm" => Some(rms_norm),
        "gated_rms_norm" => Some(gated_rms_norm),
        _ => None,
    }
}

fn rms_norm(e: &Emit<'_, '_>) -> Result<(), String> {
    let (x, y) = (e.operand("x"), e.result());
    let (weight, weight_layout) = e.operand("weight");
    let group = e.spec().int("group");
    let shared = weight_layout.ty.width() == Some(group);
    each_group(e, |row, column| {
        let source = e.at(e.row(x, row), x.1.ty.dtype, column);
        let target = e.at(e.row(y, row), y.1.ty.dtype, column);
        let weight = if shared { weight } else { e.at(weight, weight_layout.ty.dtype, column) };
        let piece = |at, lanes| e.load(e.at(source, x.1.ty.dtype, at), x.1.ty.dtype, lanes);
        let squares = e.fold_columns(group, &[e.lanes(0.0).into()], |at, lanes, sum| {
            let value = piece(at, lanes);
            vec![e.fma(value, value, sum[0].into_vector_value()).into()]
        });
        let scale = e.splat(inverse_rms(e, squares[0].into_vector_value(), group));
        e.columns(group, |at, lanes| {
            scaled_store(e, (target, y.1.ty.dtype), (weight, at), lanes, e.fmul(piece(at, lanes), scale));
        });
    });
    Ok(())
}

fn gated_rms_norm(e: &Emit<'_, '_>) -> Result<(), String> {
    let (x, gate, y) = (e.operand("x"), e.operand("gate"), e.result());
    let (weight, weight_layout) = e.operand("weight");
    let group = e.spec().int("group");
    if group > 1 << 15 {
        return Err(format!("a group of {group} columns exceeds the 32768 that fit the stack"));
    }
    let gated = e.scratch(group.next_multiple_of(u64::from(e.width())));
    let f32 = weight_layout.ty.dtype;
    each_group(e, |row, column| {
        let source = e.at(e.row(x, row), x.1.ty.dtype, column);
        let gates = e.at(e.row(gate, row), gate.1.ty.dtype, column);
        let target = e.at(e.row(y, row), y.1.ty.dtype, column);
        let squares = e.fold_columns(group, &[e.lanes(0.0).into()], |at, lanes, sum| {
            let value = e.load(e.at(source, x.1.ty.dtype, at), x.1.ty.dtype, lanes);
            let gate = e.load(e.at(gates, gate.1.ty.dtype, at), gate.1.ty.dtype, lanes);
            let product = e.fmul(value, e.silu(gate));
            e.store(e.at(gated, f32, at), f32, e.width(), product);
            vec![e.fma(product, product, sum[0].into_vector_value()).into()]
        });
        let scale = e.splat(inverse_rms(e, squares[0].into_vector_value(), group));
        let weight = e.at(weight, f32, column);
        e.columns(group, |at, lanes| {
            let value = e.load(e.at(gated, f32, at), f32, e.width());
            scaled_store(e, (target, y.1.ty.dtype), (weight, at), lanes, e.fmul(value, scale));
        });
    });
    Ok(())
}

/// This thread's groups, by row and first column.
fn each_group<'c>(e: &Emit<'c, '_>, body: impl FnOnce(Int<'c>, Int<'c>)) {
    let (_, layout) = e.operand("x");
    let group = e.spec().int("group");
    let groups = layout.ty.width().unwrap_or(group) / group;
    let (from, to) = e.share(e.times(e.dim(layout.ty.shape[0]), groups));
    e.each(from, to, |item| {
        let row = e.div(item, e.int(groups));
        body(row, e.times(e.rem(item, e.int(groups)), group));
    });
}

/// 1 / sqrt(mean + eps) of a sum of squares.
fn inverse_rms<'c>(e: &Emit<'c, '_>, squares: Lanes<'c>, group: u64) -> FloatValue<'c> {
    let mean = e.fdiv(e.sum(squares), e.float(group as f64));
    let root: FloatValue<'c> = e.sqrt(e.fadd(mean, e.float(e.spec().float("eps"))));
    e.fdiv(e.float(1.0), root)
}

fn scaled_store<'c>(
    e: &Emit<'c, '_>,
    (target, dtype): (Ptr<'c>, nemo_ir::types::Dtype),
    (weight, at): (Ptr<'c>, Int<'c>),
    lanes: u32,
    value: Lanes<'c>,
) {
    let f32 = nemo_ir::types::Dtype::F32;
    let weight: Any<'c> = e.load(e.at(weight, f32, at), f32, lanes).into();
    e.store(e.at(target, dtype, at), dtype, lanes, e.fmul(value, weight.into_vector_value()));
}
