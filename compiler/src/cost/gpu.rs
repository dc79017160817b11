//! What a kernel costs on a GPU: each form in which it can be built is predicted from how it is cut and launched, and
//! the cheapest is taken.
//!
//! ```text
//! seconds = max(streaming, arithmetic) + a tenth of the lesser + the first CTAs' prologue + waits + launch
//! streaming = max(memory, cache)
//! memory: bytes once, at the bandwidth, or at what the CTAs that are resident can have under way (Little's law)
//! cache: those bytes, and what CTAs read again: x by each block of columns, weights by each tile of rows, the sums of
//!        CTAs that share K; at the share of the cache's bandwidth that the busy multiprocessors draw
//! waits: round trips to memory that a CTA makes one after the other
//! arithmetic: operations, with the rows that tiles are filled up with, at the peak of the form's instructions, over
//!             the share of the multiprocessors that rounds of CTAs keep busy
//! ```

use nemo_ir::types::Type;
use nemo_kernels::nvptx::{self, Candidate, Form, NvptxError};
use nemo_kernels::spec::KernelSpec;
use nemo_kernels::target::Sm;

use super::{Cost, SERIAL, Situation, Work};
use crate::device::Device;

/// Seconds of a round trip to the memory of a busy GPU: of the order of published microbenchmarks.
const LATENCY: f64 = 700e-9;

/// Share of the peak that warps' `mma` reaches where there are instructions of warpgroups: published microbenchmarks of
/// H100 (Luo et al., 2024) give five eighths.
const MMA_OF_HOPPER: f64 = 0.62;

/// The cheapest form of a kernel, and what it costs.
///
/// # Errors
/// [`NvptxError::Unsupported`], where there is none.
pub fn choose(sm: Sm, spec: &KernelSpec, at: &Situation<'_>) -> Result<(Candidate, Cost), NvptxError> {
    let candidates = nvptx::candidates(sm, spec)?;
    let operands = operands(spec);
    let results = results(spec, &operands);
    let work = Work::of(spec.op, &operands, &spec.attrs, &results, at);
    let cost = |made: &Candidate| match &work {
        Some(work) => Cost {
            bytes: work.memory_bytes + work.activation_bytes,
            flops: work.flops(),
            seconds: seconds(sm, made, work, at),
            form: Some(made.form),
        },
        None => Cost::IMPOSSIBLE,
    };
    let costs = candidates.into_iter().map(|made| (cost(&made), made));
    // The first of equals, so that nothing but numbers decides.
    let best = costs.reduce(|best, other| if other.0.seconds < best.0.seconds { other } else { best });
    let (cost, made) = best.expect("a kernel that there is has a form");
    Ok((made, cost))
}

/// By the op table: `None` where an optional weight is absent or a step input stands.
fn operands(spec: &KernelSpec) -> Vec<Option<&Type>> {
    let written = |index: usize| !matches!(spec.op.operands[index].kind, nemo_ir::ops::OperandKind::Step(_));
    let at = |index: usize| spec.present(index).filter(|_| written(index));
    (0..spec.op.operands.len()).map(|index| at(index).map(|place| &spec.operands[place].ty)).collect()
}

/// By the op table: states are as they were.
fn results(spec: &KernelSpec, operands: &[Option<&Type>]) -> Vec<Type> {
    let mut own = spec.results.iter();
    let mut results = Vec::new();
    loop {
        let ty = match spec.op.superseded(results.len()) {
            Some(state) => operands[state].cloned(),
            None => own.next().map(|layout| layout.ty.clone()),
        };
        match ty {
            Some(ty) => results.push(ty),
            None => return results,
        }
    }
}

fn seconds(sm: Sm, made: &Candidate, work: &Work, at: &Situation<'_>) -> f64 {
    let device = at.device;
    let giga = |rate: f64| rate * 1e9;
    let units = device.units as f64;
    let grid = made.geometry.grid.map(|extent| extent.value(|symbol| at.extent(symbol)) as f64);
    let ctas = grid.iter().product::<f64>().max(1.0);
    let (busy, rounds) = (ctas.min(units), (ctas / units).ceil());

    let from_cache = work.activation_bytes.min(device.cache_bytes / 2);
    let in_memory = work.memory_bytes + work.written_bytes + work.activation_bytes - from_cache;
    let resident = f64::from(made.resident(sm));
    let under_way = ctas.min(units * resident) * made.needs.under_way as f64;
    let memory = (giga(device.bandwidth_gb_s) * device.efficiency.memory).min(under_way / LATENCY);
    let cache = giga(device.cache_bandwidth_gb_s) * device.efficiency.cache * busy / units;
    let again = again(made, work, ctas);
    let streaming = (in_memory as f64 / memory).max(((in_memory + from_cache) as f64 + again.bytes) / cache);

    let vector = giga(device.vector_gflop_s) * device.efficiency.elementwise;
    let prologue = again.prologue_flops / (vector / units);
    let once = products(sm, made, work, device) + work.elementwise / vector;
    let arithmetic = once / (ctas / (rounds * units)) + prologue * rounds;
    // While the first CTAs are at what comes before their products, nothing is under way but what they have asked for.
    let of_unit = giga(device.cache_bandwidth_gb_s) * device.efficiency.cache / units;
    let first = rounds.min(resident) * (prologue + again.prologue_bytes / of_unit);
    let asked = if made.form == Form::Stream { under_way / memory } else { 0.0 };
    let exposed = (first - asked).max(0.0);
    let waits = f64::from(made.needs.waits) * LATENCY;
    streaming.max(arithmetic) + SERIAL * streaming.min(arithmetic) + exposed + waits + device.launch_us * 1e-6
}

/// Seconds of products, scans and attention on all multiprocessors.
fn products(sm: Sm, made: &Candidate, work: &Work, device: &Device) -> f64 {
    let (bf16, f32) = (device.products_gflop_s.bf16 * 1e9, device.products_gflop_s.f32 * 1e9);
    let of_form = match (made.form, sm) {
        (Form::Tile | Form::Stream, Sm::Sm90) => bf16 * MMA_OF_HOPPER,
        (Form::Tile | Form::Stream, Sm::Sm86) | (Form::Warpgroup | Form::Sole, _) => bf16,
        (Form::Simt, _) => f32,
    };
    let rows = work.rows_of_products.max(1.0);
    // Attention of many rows is products of tiles.
    let attention = match made.form {
        Form::Tile | Form::Warpgroup => of_form,
        Form::Stream | Form::Simt | Form::Sole => f32,
    };
    let padded = made.cut.map_or(1.0, |cut| (rows / cut.rows as f64).ceil() * cut.rows as f64 / rows);
    let efficiency = &device.efficiency;
    padded * work.products_bf16 / (of_form * efficiency.products)
        + work.products_f32 / (f32 * efficiency.products)
        + work.scan / (f32 * efficiency.scan)
        + work.attention / (attention * efficiency.attention)
}

/// What CTAs do again that others do, too.
struct Again {
    /// Bytes from the cache, all CTAs together.
    bytes: f64,
    /// Element-wise operations before the products of one CTA.
    prologue_flops: f64,
    /// Bytes that one CTA reads for them.
    prologue_bytes: f64,
}

fn again(made: &Candidate, work: &Work, ctas: f64) -> Again {
    let others = ctas * made.needs.again as f64;
    let Some(cut) = made.cut else {
        return Again { bytes: others, prologue_flops: 0.0, prologue_bytes: 0.0 };
    };
    let rows = work.rows_of_products.max(1.0);
    let row_tiles = (rows / cut.rows as f64).ceil();
    let splits = cut.splits as f64;
    let blocks = (ctas / (row_tiles * splits)).max(1.0);
    let of_tile = 1.0 / row_tiles;
    let x = (blocks - 1.0) * work.x_bytes as f64;
    let weights = (row_tiles - 1.0) * work.memory_bytes as f64;
    let sums = if cut.splits > 1 { 2.0 * 4.0 * ctas * (cut.rows * cut.columns) as f64 } else { 0.0 };
    let prologue_bytes = work.prologue_bytes as f64 * of_tile;
    let bytes = others + x + weights + sums + (ctas - 1.0) * prologue_bytes;
    Again { bytes, prologue_flops: work.prologue_flops * of_tile, prologue_bytes }
}
