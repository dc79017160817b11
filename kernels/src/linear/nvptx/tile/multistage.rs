//! The inner loop of a tile: stages of x and W come into shared memory while others are multiplied.
//!
//! A stage holds [`Shape::rows`] rows of x, then [`Shape::columns`] rows of W, [`Shape::depth`] columns of each. Its
//! 16-byte pieces are permuted within lines of 128 bytes, so that eight rows of a matrix, as `ldmatrix` reads them, and
//! eight pieces of consecutive threads, as they are copied, fall into different banks.

use inkwell::IntPredicate;
use nemo_ir::types::Dtype;

use crate::nvptx::{Any, Emit, Float, Int, Ptr};

/// Elements of a 16-byte piece.
pub(super) const PIECE: u32 = 8;

/// How a CTA's tile is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Rows of x.
    pub rows: u32,
    /// Columns of the products: rows of W.
    pub columns: u32,
    /// Columns of x and W in a stage, 32 or 64.
    pub depth: u32,
    /// Stages in shared memory.
    pub stages: u32,
    /// Warps along the rows, and along the columns.
    pub warps: (u32, u32),
}

impl Shape {
    /// Threads of the CTA.
    pub const fn threads(&self) -> u32 {
        32 * self.warps.0 * self.warps.1
    }

    /// Bytes of all stages.
    pub const fn ring(&self) -> u32 {
        self.stages * self.stage()
    }

    /// Blocks of 16 rows that a warp multiplies.
    pub const fn row_blocks(&self) -> u32 {
        self.rows / (16 * self.warps.0)
    }

    /// Blocks of 8 columns that a warp multiplies.
    pub const fn column_blocks(&self) -> u32 {
        self.columns / (8 * self.warps.1)
    }

    /// Sums of a thread.
    pub const fn sums(&self) -> u32 {
        4 * self.row_blocks() * self.column_blocks()
    }

    /// Rows of a tile that one pass of all threads copies.
    const fn pass(&self) -> u32 {
        self.threads() / self.pieces()
    }

    const fn pieces(&self) -> u32 {
        self.depth / PIECE
    }

    const fn row_bytes(&self) -> u32 {
        2 * self.depth
    }

    const fn stage(&self) -> u32 {
        (self.rows + self.columns) * self.row_bytes()
    }

    /// What the index of a piece is combined with in a row.
    fn permuted<'c>(&self, e: &Emit<'c, '_>, row: Int<'c>, piece: Int<'c>) -> Int<'c> {
        // Two short rows share a line.
        let line = e.shift_right(row, if self.depth == 32 { 1 } else { 0 });
        e.xor(piece, e.and(line, e.word(self.pieces() - 1)))
    }
}

/// Where the rows of one side of a stage come from: those that this thread copies.
pub(super) struct Rows<'c> {
    /// The first element of each row.
    pub starts: Vec<Ptr<'c>>,
    /// 16 where the row exists and 0 where zeros stand for it, i32; its start must be readable all the same.
    pub there: Vec<Int<'c>>,
}

impl Shape {
    /// This thread's rows of x, or of W, in a stage: `count` of them in all.
    pub(super) fn own_rows<'c>(&self, e: &Emit<'c, '_>, count: u32) -> Vec<Int<'c>> {
        let first = e.shift_right(e.thread(), u64::from(self.pieces().trailing_zeros()));
        (0..count.div_ceil(self.pass())).map(|pass| e.plus(first, u64::from(pass * self.pass()))).collect()
    }

    /// This thread's first column in a stage.
    pub(super) fn own_column<'c>(&self, e: &Emit<'c, '_>) -> Int<'c> {
        e.times(e.and(e.thread(), e.word(self.pieces() - 1)), PIECE.into())
    }

    /// Where this thread's pieces of x, or of W, lie in a stage at `stage`.
    pub(super) fn own_places<'c>(&self, e: &Emit<'c, '_>, stage: Ptr<'c>, side: Side) -> Vec<Ptr<'c>> {
        let (skipped, count) = match side {
            Side::X => (0, self.rows),
            Side::W => (self.rows, self.columns),
        };
        let row = self.own_rows(e, count)[0];
        let piece = e.and(e.thread(), e.word(self.pieces() - 1));
        // Passes are whole periods of the permutation, so the rest of the address does not change.
        let place = e.add(
            e.times(row, self.row_bytes().into()),
            e.times(self.permuted(e, row, piece), (2 * PIECE).into()),
        );
        let place = e.offset(stage, place);
        let pass = |pass| e.offset(place, e.word((skipped + pass * self.pass()) * self.row_bytes()));
        (0..count.div_ceil(self.pass())).map(pass).collect()
    }

    /// Copies this thread's pieces of the rows, `k` of `width` columns on, into a stage.
    pub(super) fn copy<'c>(
        &self,
        e: &Emit<'c, '_>,
        (rows, side): (&Rows<'c>, Side),
        (k, width): (Int<'c>, u64),
        stage: Ptr<'c>,
    ) {
        let column = e.add(k, self.own_column(e));
        let whole = width.is_multiple_of(self.depth.into());
        let within = e.cmp(IntPredicate::ULT, column, e.word(width as u32));
        let column = if whole { column } else { e.select(within, column, e.word(0)) };
        for (place, (start, there)) in
            self.own_places(e, stage, side).into_iter().zip(rows.starts.iter().zip(&rows.there))
        {
            let there = if whole { *there } else { e.select(within, *there, e.word(0)) };
            e.copy_async(place, e.at(*start, Dtype::Bf16, column), there);
        }
    }
}

/// A side of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    X,
    W,
}

/// Multiplies stages `first .. end` of the columns of x and W, which `fill` puts where it is told (what it copies, it need
/// not wait for); gives this thread's sums: block of rows by block of columns, four of each as [`Emit::mma`] holds them.
pub(super) fn multiply<'c>(
    e: &Emit<'c, '_>,
    shape: Shape,
    ring: Ptr<'c>,
    (first, end): (Int<'c>, Int<'c>),
    fill: &dyn Fn(Int<'c>, Ptr<'c>),
) -> Vec<Float<'c>> {
    let stage_bytes = shape.stage();
    let ahead = shape.stages - 1;
    let filled = |index: Int<'c>, at: Int<'c>| {
        e.when(e.cmp(IntPredicate::SLT, index, end), || fill(index, e.offset(ring, at)));
        e.copies_commit();
    };
    for stage in 0..ahead {
        filled(e.plus(first, stage.into()), e.word(stage * stage_bytes));
    }
    let fragments = Fragments::of(e, shape);
    let mut carried: Vec<Any<'c>> = vec![e.word(0).into(), e.word(ahead * stage_bytes).into()];
    carried.extend(vec![Any::from(e.float(0.0)); shape.sums() as usize]);
    let next = |at: Int<'c>| {
        let last = e.cmp(IntPredicate::EQ, at, e.word(ahead * stage_bytes));
        e.select(last, e.word(0), e.plus(at, stage_bytes.into()))
    };
    let done = e.fold((first, end, 1), &carried, |index, carried| {
        let (read, write) = (carried[0].into_int_value(), carried[1].into_int_value());
        let mut sums: Vec<_> = carried[2..].iter().map(|sum| sum.into_float_value()).collect();
        e.copies_wait(ahead - 1);
        // The stage has landed for all threads, and all of them are done with the one that is filled next.
        e.barrier();
        filled(e.plus(index, ahead.into()), write);
        fragments.multiply(e, e.offset(ring, read), &mut sums);
        let places = [next(read).into(), next(write).into()];
        places.into_iter().chain(sums.into_iter().map(Any::from)).collect()
    });
    e.copies_wait(0);
    // The stages may be overwritten from here on.
    e.barrier();
    done[2..].iter().map(|sum| sum.into_float_value()).collect()
}

/// Where this thread's rows of matrices begin in a stage.
struct Fragments<'c> {
    shape: Shape,
    /// Bytes from a stage's start, for each step of 16 columns.
    x: Vec<Int<'c>>,
    w: Vec<Int<'c>>,
}

impl<'c> Fragments<'c> {
    fn of(e: &Emit<'c, '_>, shape: Shape) -> Self {
        let (lane, warp) = (e.lane(), e.warp());
        let (row_warp, column_warp) =
            (e.div(warp, e.word(shape.warps.1)), e.rem(warp, e.word(shape.warps.1)));
        let (low, matrix) = (e.and(lane, e.word(7)), e.shift_right(lane, 3));
        let (odd, high) = (e.and(matrix, e.word(1)), e.shift_right(matrix, 1));
        // Matrices of x: the upper and the lower eight rows, then the same of the next eight columns. Of W: eight columns,
        // then the next eight, and the same of the next eight rows.
        let x_row = e.add(e.times(row_warp, 16), e.add(e.times(odd, 8), low));
        let own = 8 * shape.column_blocks();
        let w_row = e.add(e.times(column_warp, own.into()), e.add(e.times(high, 8), low));
        let w_row = e.plus(w_row, shape.rows.into());
        let step = |row: Int<'c>, piece: Int<'c>| {
            let permuted = shape.permuted(e, row, piece);
            e.add(e.times(row, shape.row_bytes().into()), e.times(permuted, (2 * PIECE).into()))
        };
        let steps = 0..shape.depth / 16;
        let x = steps.clone().map(|k| step(x_row, e.plus(high, (2 * k).into()))).collect();
        let w = steps.map(|k| step(w_row, e.plus(odd, (2 * k).into()))).collect();
        Self { shape, x, w }
    }

    /// Multiplies a stage; the matrices of a step are loaded while the ones before are multiplied.
    fn multiply(&self, e: &Emit<'c, '_>, stage: Ptr<'c>, sums: &mut [Float<'c>]) {
        let steps = self.x.len();
        let mut loaded = self.load(e, stage, 0);
        for step in 0..steps {
            let next = (step + 1 < steps).then(|| self.load(e, stage, step + 1));
            let (x, w) = &loaded;
            for (sums, x) in sums.chunks_mut(4 * w.len()).zip(x) {
                for (sums, w) in sums.chunks_mut(4).zip(w) {
                    let made = e.mma(*x, *w, std::array::from_fn(|index| sums[index]));
                    sums.copy_from_slice(&made);
                }
            }
            if let Some(next) = next {
                loaded = next;
            }
        }
    }

    fn load(&self, e: &Emit<'c, '_>, stage: Ptr<'c>, step: usize) -> (Vec<[Int<'c>; 4]>, Vec<[Int<'c>; 2]>) {
        let shape = self.shape;
        let (x, w) = (e.offset(stage, self.x[step]), e.offset(stage, self.w[step]));
        let rows =
            |at: Ptr<'c>, count: u32| e.ldmatrix(e.offset(at, e.word(count * shape.row_bytes())), false);
        let x = (0..shape.row_blocks()).map(|block| rows(x, 16 * shape.warps.0 * block)).collect();
        let w = (0..shape.column_blocks() / 2).flat_map(|pair| {
            let [a, b, c, d] = rows(w, 16 * pair);
            [[a, b], [c, d]]
        });
        (x, w.collect())
    }
}
