//! The products of a chunk: scores, outputs, and the state after it.

use inkwell::IntPredicate;

use super::super::panel::{BLOCK, Order, PANEL, ROWS};
use super::{BLOCKS, Chunk, F32, Sums, Work, floats};
use crate::nvptx::{Any, Emit, Float, Int, Ptr, Written};

/// Sums of 16 x 16.
pub(super) type Tile<'c> = [Sums<'c>; 2];

impl<'c> Work<'c> {
    /// Rows `16 block` on of the warp's columns of x: the right operand of products over rows, and the left one of their
    /// transpose, but for the order of its words.
    pub(super) fn x(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, block: u32) -> [Int<'c>; 4] {
        let panel = e.offset(chunk.x, e.times(self.strip, PANEL.into()));
        self.corners.load(e, e.offset(panel, e.word(block * BLOCK)), Order::Down, true)
    }

    /// Where the warp's `index`-th block of scores lies; its second part is one of the later ones.
    fn scores(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, warp: Int<'c>, index: u32) -> Ptr<'c> {
        if index < self.tiling.overlaid {
            return e.offset(chunk.x, e.plus(e.times(warp, PANEL.into()), (index * BLOCK).into()));
        }
        let index = index - self.tiling.overlaid;
        let apart = e.times(warp, (self.tiling.apart() * BLOCK).into());
        e.offset(self.scores, e.plus(apart, (index * BLOCK).into()))
    }

    /// Masked, decayed scores of the chunk, 16 x 16 by 16 x 16, shared by the warps.
    pub(super) fn decayed_scores(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>) {
        let warps = self.tiling.warps();
        for index in 0..self.tiling.blocks() {
            let block = e.plus(e.warp(), (index * warps).into());
            let write = || {
                let places =
                    [0, self.tiling.blocks()].map(|part| self.scores(e, chunk, e.warp(), index + part));
                self.block(e, chunk, block, places);
            };
            if (index + 1) * warps <= BLOCKS {
                write();
            } else {
                e.when(e.cmp(IntPredicate::SLT, block, e.word(BLOCKS)), write);
            }
        }
    }

    /// One block of scores, as the sum of what goes to two places.
    fn block(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, block: Int<'c>, places: [Ptr<'c>; 2]) {
        let past = |count: u32| {
            let past = e.cmp(IntPredicate::SGE, block, e.word(count));
            e.select(past, e.word(1), e.word(0))
        };
        let down = e.add(e.add(past(1), past(3)), past(6));
        let across = e.sub(block, e.shift_right(e.mul(down, e.plus(down, 1)), 1));
        let (t, s) = (e.add(e.times(down, 16), self.g), e.add(e.times(across, 16), self.pair));
        let c = e.offset(chunk.c, e.times(down, BLOCK.into()));
        let b = e.offset(chunk.b, e.times(across, BLOCK.into()));
        // A loop where a large state leaves no registers for the operands of many products to come.
        let unrolled = if self.tiling.is_spare() { self.tiling.held() } else { 2 };
        let zeros = vec![Any::from(e.float(0.0)); 8];
        let panels = (e.word(0), e.word(self.tiling.state * PANEL), u64::from(unrolled * PANEL));
        let sums = e.fold(panels, &zeros, |first, sums| {
            let sums = floats(sums);
            let mut sums = [0, 4].map(|at| [sums[at], sums[at + 1], sums[at + 2], sums[at + 3]]);
            for panel in 0..unrolled {
                let panel = |base| e.offset(base, e.plus(first, (panel * PANEL).into()));
                let left = self.corners.load(e, panel(c), Order::Down, false);
                let right = self.corners.load(e, panel(b), Order::Across, false);
                multiply(e, &mut sums, left, right);
            }
            sums.into_iter().flatten().map(Any::from).collect()
        });
        let sums = floats(&sums);
        let sums = [0, 4].map(|at| [sums[at], sums[at + 1], sums[at + 2], sums[at + 3]]);
        let line = |line, row, count| e.load(e.at(line, F32, row), F32, (count, count), Written::Now);
        let logs = [0, 8].map(|down| line(chunk.logs, e.plus(t, down), 1)[0]);
        for (unit, sums) in (0..).zip(&sums) {
            let s = e.plus(s, u64::from(unit) * 8);
            let (others, steps) = (line(chunk.logs, s, 2), line(chunk.steps, s, 2));
            for half in 0..2 {
                let t = e.plus(t, 8 * half as u64);
                let scores = [0, 1].map(|at| {
                    let s = e.plus(s, at as u64);
                    let decay = e.exp2(e.fsub(logs[half], others[at]));
                    let score = e.fmul(e.fmul(sums[2 * half + at], decay), steps[at]);
                    let last = e.select(e.cmp(IntPredicate::EQ, s, t), self.skip, e.float(0.0));
                    let causal = e.cmp(IntPredicate::SLE, s, t);
                    e.select(causal, e.fadd(score, last), e.float(0.0))
                });
                for (place, part) in places.into_iter().zip(two_parts(e, scores)) {
                    e.store_aligned(self.corners.pair(e, place, half as u32, unit), part, 4);
                }
            }
        }
    }

    /// y of a chunk, when all warps have come so far that they read c no more.
    pub(super) fn outputs(
        &self,
        e: &Emit<'c, '_>,
        chunk: &Chunk<'c>,
        carried: &[Tile<'c>; 4],
        x: impl Fn(u32) -> [Int<'c>; 4],
    ) {
        if self.tiling.parts == 1 {
            return self.finish(e, chunk, [0, 1, 2, 3].map(|tile| (tile, carried[tile as usize])), x);
        }
        // The products of each part's tiles with x are as many as those of the other's.
        let owned = [[0, 3], [1, 2]];
        let each_part = |body: &dyn Fn([u32; 2], [u32; 2])| {
            for part in [0, 1] {
                let mine = e.cmp(IntPredicate::EQ, self.part, e.word(part as u32));
                e.when(mine, || body(owned[part], owned[1 - part]));
            }
        };
        each_part(&|_, others| {
            for (index, tile) in (0..).zip(others) {
                self.give(e, chunk, index, &carried[tile as usize]);
            }
        });
        e.barrier();
        each_part(&|own, _| {
            let add = |index: u32| {
                let tile = own[index as usize];
                (tile, self.with_other(e, chunk, index, &carried[tile as usize]))
            };
            self.finish(e, chunk, [0, 1].map(add), &x);
        });
    }

    /// What the warp's rows of the state before a chunk add to its y.
    pub(super) fn carried(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, state: &[Sums<'c>]) -> [Tile<'c>; 4] {
        let mut tiles = [[[e.float(0.0); 4]; 2]; 4];
        let first = self.first(e, chunk.c);
        for (panel, state) in (0..).zip(state.chunks(2)) {
            let halves = |from: usize| [0, 1].map(|at| two_parts(e, [state[at][from], state[at][from + 1]]));
            let (left, right) = (halves(0), halves(2));
            let parts = [0, 1].map(|part| [left[0][part], left[1][part], right[0][part], right[1][part]]);
            for (tile, sums) in (0_u32..).zip(&mut tiles) {
                let c = e.offset(first, e.word(tile * BLOCK + panel * PANEL));
                let left = self.corners.load(e, c, Order::Down, false);
                for part in parts {
                    multiply(e, sums, left, part);
                }
            }
        }
        tiles
    }

    /// The warp's first panel, of b or of c.
    fn first(&self, e: &Emit<'c, '_>, panels: Ptr<'c>) -> Ptr<'c> {
        match self.tiling.parts {
            1 => panels,
            _ => e.offset(panels, e.times(self.part, (self.tiling.held() * PANEL).into())),
        }
    }

    /// Where the lane leaves four sums of a tile for the warp with the other part of the state: in the place of c,
    /// which has been read.
    fn exchanged(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, part: Int<'c>, at: u32) -> Ptr<'c> {
        let pair = e.add(e.times(part, self.tiling.strips.into()), self.strip);
        let line = e.plus(e.times(pair, 4), at.into());
        e.at(chunk.c, F32, e.times(e.add(e.times(line, 32), e.lane()), 4))
    }

    /// Leaves a tile.
    fn give(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, index: u32, tile: &Tile<'c>) {
        for (unit, sums) in (0..).zip(tile) {
            e.store(self.exchanged(e, chunk, self.part, 2 * index + unit), F32, sums, 4);
        }
    }

    /// A tile with what the other warp left for it.
    fn with_other(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, index: u32, tile: &Tile<'c>) -> Tile<'c> {
        let other = e.xor(self.part, e.word(1));
        [0, 1].map(|unit| {
            let place = self.exchanged(e, chunk, other, 2 * index + unit);
            let left = e.load(place, F32, (4, 4), Written::Now);
            let sums = tile[unit as usize];
            [0, 1, 2, 3].map(|at| e.fadd(sums[at], left[at]))
        })
    }

    /// Adds to tiles what the chunk's own rows give, and stores them.
    fn finish<const N: usize>(
        &self,
        e: &Emit<'c, '_>,
        chunk: &Chunk<'c>,
        mut tiles: [(u32, Tile<'c>); N],
        x: impl Fn(u32) -> [Int<'c>; 4],
    ) {
        for (tile, sums) in &mut tiles {
            for half in 0..2 {
                let row = e.plus(self.g, u64::from(16 * *tile) + 8 * half as u64);
                let factor = e.exp2(e.load_scalar(e.at(chunk.logs, F32, row), F32, Written::Now));
                for sum in sums.iter_mut().flat_map(|sums| &mut sums[2 * half..][..2]) {
                    *sum = e.fmul(*sum, factor);
                }
            }
        }
        let last = tiles.iter().map(|(tile, _)| *tile).max().unwrap_or(0);
        for across in 0..=last {
            let right = x(across);
            for (tile, sums) in tiles.iter_mut().filter(|(tile, _)| across <= *tile) {
                let block = *tile * (*tile + 1) / 2 + across;
                let (warp, index) = (block % self.tiling.warps(), block / self.tiling.warps());
                for part in [0, self.tiling.blocks()] {
                    let scores = self.scores(e, chunk, e.word(warp), index + part);
                    let left = self.corners.load(e, scores, Order::Down, false);
                    multiply(e, sums, left, right);
                }
            }
        }
        for (tile, sums) in &tiles {
            for half in 0..2 {
                let values = [0, 1].map(|unit| [sums[unit][2 * half], sums[unit][2 * half + 1]]);
                self.put(e, chunk, e.plus(self.g, u64::from(16 * *tile) + 8 * half as u64), values);
            }
        }
    }

    /// Stores a lane's two pairs of y at a row of the chunk: of columns 2t and 8 + 2t on.
    fn put(&self, e: &Emit<'c, '_>, chunk: &Chunk<'c>, row: Int<'c>, values: [[Float<'c>; 2]; 2]) {
        let there = e.cmp(IntPredicate::SLT, row, chunk.rows);
        let y = e.result();
        let column = e.add(e.times(self.head, self.scan.shape.head_dim), e.times(self.strip, 16));
        let place = |column| e.at(e.row(y, e.add(chunk.first, row)), y.1.dtype(), column);
        if y.1.dtype() == F32 || y.1.vector() < 4 {
            e.when(there, || {
                for (unit, values) in (0..).zip(&values) {
                    let column = e.plus(e.add(column, self.pair), 8 * unit);
                    e.store(place(column), y.1.dtype(), values, y.1.vector().min(2));
                }
            });
            return;
        }
        // In bf16 a pair is half of what an access should have of a row: neighbours swap pairs, so that the even one has four
        // columns of the left unit and the odd one four of the right.
        let [left, right] = values.map(|pair| e.pack(pair[0], pair[1]));
        let odd = e.cmp(IntPredicate::NE, e.and(e.lane(), e.word(1)), e.word(0));
        let other = e.shuffle_xor_int(e.select(odd, left, right), 1);
        let words = [e.select(odd, other, left), e.select(odd, right, other)];
        let unit = e.select(odd, e.word(8), e.word(0));
        let column = e.add(e.add(column, unit), e.and(self.pair, e.word(4)));
        e.when(there, || e.store_words(place(column), &words, 8));
    }

    /// The state after a chunk.
    pub(super) fn next_state(
        &self,
        e: &Emit<'c, '_>,
        chunk: &Chunk<'c>,
        state: Vec<Sums<'c>>,
        x: impl Fn(u32) -> [Int<'c>; 4],
    ) -> Vec<Sums<'c>> {
        let last = e.at(chunk.logs, F32, e.word(ROWS - 1));
        let keep = e.exp2(e.load_scalar(last, F32, Written::Now));
        let mut state: Vec<Sums<'c>> =
            state.into_iter().map(|sums| sums.map(|sum| e.fmul(sum, keep))).collect();
        let first = self.first(e, chunk.b);
        for block in 0..ROWS / 16 {
            let x = x(block);
            let weights = [0, 8].map(|half| {
                let row = e.plus(self.pair, (16 * block + half).into());
                e.load(e.at(chunk.weights, F32, row), F32, (2, 2), Written::Now)
            });
            // The left operand has its lower rows before its right columns.
            let weighted = [(0, 0), (2, 0), (1, 1), (3, 1)].map(|(at, half): (usize, usize)| {
                let [low, high] = e.unpack(x[at]);
                two_parts(e, [e.fmul(low, weights[half][0]), e.fmul(high, weights[half][1])])
            });
            for (panel, state) in (0..).zip(state.chunks_exact_mut(2)) {
                let b = e.offset(first, e.word(block * BLOCK + panel * PANEL));
                let b = self.corners.load(e, b, Order::Down, true);
                for part in [0, 1] {
                    let left = weighted.map(|parts| parts[part]);
                    state[0] = e.mma(left, [b[0], b[1]], state[0]);
                    state[1] = e.mma(left, [b[2], b[3]], state[1]);
                }
            }
        }
        state
    }
}

/// `sums += left right`, of 16 x 16 each.
fn multiply<'c>(e: &Emit<'c, '_>, sums: &mut [Sums<'c>; 2], left: [Int<'c>; 4], right: [Int<'c>; 4]) {
    sums[0] = e.mma(left, [right[0], right[1]], sums[0]);
    sums[1] = e.mma(left, [right[2], right[3]], sums[1]);
}

/// Two values as sums of two bf16 each.
fn two_parts<'c>(e: &Emit<'c, '_>, values: [Float<'c>; 2]) -> [Int<'c>; 2] {
    let rounded = e.pack(values[0], values[1]);
    let [low, high] = e.unpack(rounded);
    [rounded, e.pack(e.fsub(values[0], low), e.fsub(values[1], high))]
}
