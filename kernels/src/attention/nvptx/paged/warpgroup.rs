//! The products of prefill by warpgroups, of sm_90a: 64 rows at a time. Queries and keys are read from shared memory, weights
//! from registers, and values from shared memory, where their rows are what is summed over.

use nemo_ir::step::PAGE_TOKENS;
use nemo_ir::types::Dtype;

use super::Shape;
use super::prefill::{Part, Products, Rows};
use super::stage::{Reader, Stage};
use super::warps::operand;
use crate::nvptx::{Any, Emit, Float, Int, Ptr};

/// Columns of a block of a stage.
const BLOCK: u64 = 64;
/// What one instruction sums over.
const DEPTH: u64 = 16;

/// Where operands lie.
pub(super) struct Warpgroup<'c> {
    stage: Stage,
    queries: Ptr<'c>,
    keys: Ptr<'c>,
    values: Ptr<'c>,
    head_dim: u64,
}

impl<'c> Warpgroup<'c> {
    /// Whether columns fill whole blocks.
    pub fn takes(shape: &Shape) -> bool {
        shape.cache.head_dim.is_multiple_of(BLOCK)
    }

    /// Bytes and alignments of shared memory.
    pub fn pieces(shape: &Shape) -> [(u32, u32); 3] {
        [(Stage::new(shape, Reader::Warpgroup).bytes(), 1024); 3]
    }

    /// With [`Warpgroup::pieces`] of shared memory. Begins to copy the queries.
    pub fn new(e: &Emit<'c, '_>, shape: &Shape, rows: Rows<'c>, space: &[Ptr<'c>]) -> Self {
        let stage = Stage::new(shape, Reader::Warpgroup);
        let q = e.operand("q");
        let first = e.times(rows.tile.head, shape.cache.head_dim);
        let lines = e.at(e.row(q, rows.tile.rows.0), Dtype::Bf16, first);
        stage.copy_lines(e, space[0], (lines, q.1.row_stride), e.plus(rows.last, 1));
        let head_dim = shape.cache.head_dim;
        Self { stage, queries: space[0], keys: space[1], values: space[2], head_dim }
    }

    /// Bytes of a block.
    fn block(&self) -> u32 {
        self.stage.bytes() / (self.head_dim / BLOCK) as u32
    }
}

impl<'c> Products<'c> for Warpgroup<'c> {
    fn copy(&self, e: &Emit<'c, '_>, part: Part, block: Ptr<'c>, tokens: Int<'c>) {
        let space = match part {
            Part::Keys => self.keys,
            Part::Values => self.values,
        };
        self.stage.copy(e, space, block, tokens);
    }

    fn arrive(&self, e: &Emit<'c, '_>) {
        e.copies_wait(0);
        e.proxy_fence();
        e.barrier();
    }

    fn scores(&self, e: &Emit<'c, '_>) -> Vec<[Float<'c>; 4]> {
        let zeros = vec![e.float(0.0).into(); PAGE_TOKENS as usize / 2];
        let mut sums: Vec<_> = e.wgmma_begin(&zeros).into_iter().map(Any::into_float_value).collect();
        for column in (0..self.head_dim).step_by(DEPTH as usize) {
            let bytes = (column % BLOCK) as u32 * 2;
            let place = e.word((column / BLOCK) as u32 * self.block() + bytes);
            let [queries, keys] = [self.queries, self.keys].map(|stage| e.descriptor(e.offset(stage, place)));
            sums = e.wgmma(queries, keys, &sums);
        }
        e.wgmma_commit();
        by_eight(&e.wgmma_end(&sums))
    }

    fn sum_values(&self, e: &Emit<'c, '_>, weights: &[[Float<'c>; 4]], sums: &mut [[Float<'c>; 4]]) {
        let operands = weights.chunks(2).flat_map(|weights| operand(e, weights));
        let words: Vec<Any<'c>> = operands.map(Any::from).collect();
        let written = [words.clone(), sums.iter().flatten().map(|sum| Any::from(*sum)).collect()].concat();
        let ready = e.wgmma_begin(&written);
        let (words, flat) = ready.split_at(words.len());
        let mut flat: Vec<_> = flat.iter().map(|sum| sum.into_float_value()).collect();
        let operands = words.chunks(4).map(|four| std::array::from_fn(|index| four[index].into_int_value()));
        for (token, weights) in (0..).step_by(DEPTH as usize).zip(operands) {
            let values = e.offset(self.values, e.word(token * BLOCK as u32 * 2));
            let values: Int<'c> = e.descriptor_by_rows(values, self.block());
            flat = e.wgmma_registers(weights, values, &flat);
        }
        e.wgmma_commit();
        sums.copy_from_slice(&by_eight(&e.wgmma_end(&flat)));
    }
}

/// Sums by eight columns.
fn by_eight<'c>(sums: &[Float<'c>]) -> Vec<[Float<'c>; 4]> {
    sums.as_chunks().0.to_vec()
}
