//! The Mamba-2 mixer: one input projection, a short convolution, the state-space scan, a gated norm.

use nemo_ir::graph::{BuildError, Value};
use nemo_ir::ops::Attr;
use nemo_ir::plan::Phase;
use nemo_ir::step::TILE_TOKENS;
use nemo_ir::types::{Dtype, Symbol, Type};
use nemo_models::Mamba2;

use super::block::Lowering;
use super::vector;

pub(super) fn lower(lowering: &mut Lowering, mamba: &Mamba2, x: Value) -> Result<Value, BuildError> {
    let context = lowering.context;
    let (inner, channels) = (mamba.d_inner(), mamba.conv_dim());
    let projected = lowering.product(x, &mamba.in_proj, mamba.in_proj_rows(), context.hidden)?;
    let [z, xbc, dt] = columns(lowering, projected, [inner, channels, mamba.heads])?;

    let convolved = convolution(lowering, mamba, xbc)?;
    let bc_width = mamba.groups * mamba.state;
    let [x, b, c] = columns(lowering, convolved, [inner, bc_width, bc_width])?;

    let bias = lowering.builder.weight(&mamba.dt_bias, vector(mamba.heads));
    let limits = vec![mamba.dt_min.into(), mamba.dt_max.into()];
    let dt = lowering.builder.op("dt_softplus", &[dt, bias], limits)?;

    let y = scan(lowering, mamba, [x, dt, b, c])?;
    let weight = lowering.builder.weight(&mamba.norm, vector(inner));
    let group = inner / mamba.groups;
    let attrs = vec![mamba.norm_eps.into(), group.into(), context.activations.into()];
    let y = lowering.builder.op("gated_rms_norm", &[y, z, weight], attrs)?;
    lowering.product(y, &mamba.out_proj, context.hidden, inner)
}

/// Consecutive columns of a product, as views.
fn columns<const N: usize>(
    lowering: &mut Lowering,
    x: Value,
    widths: [u64; N],
) -> Result<[Value; N], BuildError> {
    let mut offset = 0;
    let mut views = [x; N];
    for (view, width) in views.iter_mut().zip(widths) {
        *view = lowering.builder.op("slice", &[x], vec![offset.into(), width.into()])?;
        offset += width;
    }
    Ok(views)
}

fn convolution(lowering: &mut Lowering, mamba: &Mamba2, x: Value) -> Result<Value, BuildError> {
    let (channels, activations) = (mamba.conv_dim(), lowering.context.activations);
    let taps = Type::new(Dtype::F32, [channels.into(), mamba.conv.into()]);
    let mut operands = vec![x, lowering.builder.weight(&mamba.conv_weight, taps)];
    if mamba.conv_bias {
        operands.push(lowering.builder.weight(&mamba.conv_bias_tensor, vector(channels)));
    }
    // A convolution of one tap has no past; the op table says so better than an underflow here would.
    let past = mamba.conv.saturating_sub(1);
    let columns = Type::new(activations, [Symbol::S.into(), past.into(), channels.into()]);
    operands.push(lowering.state("conv", columns));
    Ok(lowering.builder.results("causal_conv1d", &operands, vec![activations.into()])?[0])
}

fn scan(lowering: &mut Lowering, mamba: &Mamba2, [x, dt, b, c]: [Value; 4]) -> Result<Value, BuildError> {
    let a_log = lowering.builder.weight(&mamba.a_log, vector(mamba.heads));
    let d = lowering.builder.weight(&mamba.d, vector(mamba.heads));
    let heads = [Symbol::S.into(), mamba.heads.into(), mamba.state.into(), mamba.head_dim.into()];
    let ssm = lowering.state("ssm", Type::new(Dtype::F32, heads));
    let operands = [x, dt, b, c, a_log, d, ssm];
    // The sum of the scan is not rounded before the gated norm, which works in f32.
    let (name, attrs): (_, Vec<Attr>) = match lowering.context.phase {
        Phase::Decode => ("ssd_recurrent", vec![mamba.heads.into(), mamba.groups.into(), Dtype::F32.into()]),
        Phase::Prefill => (
            "ssd_chunked",
            vec![mamba.heads.into(), mamba.groups.into(), TILE_TOKENS.into(), Dtype::F32.into()],
        ),
    };
    Ok(lowering.builder.results(name, &operands, attrs)?[0])
}
