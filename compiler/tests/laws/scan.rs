//! Cases of the laws of Mamba-2.

use nemo_ir::types::Dtype;

use crate::Cases;
use crate::kit::Draw;
use crate::linear::columns;

pub const CASES: Cases = &[
    ("step-size-into-recurrence", |draw| {
        let shape = Shape::draw(draw);
        shape.apart(draw);
        shape.scan(draw);
        draw.dtypes(&["e"]);
    }),
    ("step-size-into-chunks", |draw| {
        let (shape, chunk) = (Shape::draw(draw), draw.size());
        shape.apart(draw);
        shape.scan(draw);
        draw.int("chunk", chunk);
        draw.dtypes(&["e"]);
    }),
    ("x-b-c-by-layout", |draw| {
        let shape = Shape::draw(draw);
        // Columns that nobody takes may follow.
        let unused = draw.random.within(0, 2);
        draw.value("m", shape.packed() + unused);
        shape.scan(draw);
        shape.layout(draw);
        draw.int("o", shape.inner() + shape.shared());
        draw.dtypes(&["e"]);
    }),
    ("convolution-into-recurrence", |draw| {
        let shape = Shape::draw(draw);
        draw.value("x", shape.packed());
        shape.convolution(draw, "w", shape.packed());
        shape.scan(draw);
        shape.layout(draw);
        draw.dtypes(&["f", "e"]);
    }),
    ("gated-norm-into-recurrence", |draw| {
        let shape = Shape::draw(draw);
        draw.value("x", shape.packed());
        shape.convolution(draw, "w", shape.packed());
        shape.scan(draw);
        shape.layout(draw);
        draw.value("z", shape.inner());
        draw.small("norm", &[shape.inner()]);
        draw.norm_attrs(shape.inner() / shape.groups);
        draw.dtypes(&["f", "e", "o"]);
    }),
    ("convolution-epilogue", |draw| {
        draw.decode();
        let (left, middle, right) = (draw.size(), draw.size(), draw.size());
        columns(draw, left, middle, right);
        Shape::draw(draw).convolution(draw, "cw", middle);
        draw.dtypes(&["p", "f"]);
    }),
    ("convolution-norm-prologue", |draw| {
        draw.decode();
        let (left, middle, right) = (draw.size(), draw.size(), draw.size());
        let k = draw.norm("n");
        draw.value("x", k);
        draw.weight("w", left + middle + right, k);
        for (name, width) in [("i", left), ("j", middle), ("k", right)] {
            draw.int(name, width);
        }
        Shape::draw(draw).convolution(draw, "cw", middle);
        draw.dtypes(&["m", "p", "f"]);
    }),
];

/// Extents of a scan.
struct Shape {
    groups: u64,
    per_group: u64,
    head_dim: u64,
    state: u64,
    taps: u64,
}

impl Shape {
    fn draw(draw: &mut Draw) -> Self {
        let mut within = |low, high| draw.random.within(low, high);
        let (groups, per_group, head_dim) = (within(1, 3), within(1, 3), within(1, 4));
        Self { groups, per_group, head_dim, state: within(1, 4), taps: within(2, 4) }
    }

    fn heads(&self) -> u64 {
        self.groups * self.per_group
    }

    fn inner(&self) -> u64 {
        self.heads() * self.head_dim
    }

    /// Columns of b, and of c.
    fn shared(&self) -> u64 {
        self.groups * self.state
    }

    /// Columns of x, b and c.
    fn packed(&self) -> u64 {
        self.inner() + 2 * self.shared()
    }

    /// `?x`, `?b` and `?c`, each a value of its own.
    fn apart(&self, draw: &mut Draw) {
        draw.value("x", self.inner());
        draw.value("b", self.shared());
        draw.value("c", self.shared());
    }

    /// Everything else that a scan takes: `?dt ?bias ?a ?d ?ssm ?min ?max ?h ?g`.
    fn scan(&self, draw: &mut Draw) {
        let heads = self.heads();
        draw.value("dt", heads);
        for name in ["bias", "a", "d"] {
            draw.small(name, &[heads]);
        }
        draw.slots("ssm", Dtype::F32, &[heads, self.state, self.head_dim]);
        // Limits that clamp now and then.
        let (min, max) = (draw.random.real() * 0.1 + 0.1, draw.random.real() * 0.5 + 1.5);
        draw.float("min", min);
        draw.float("max", max);
        draw.int("h", heads);
        draw.int("g", self.groups);
    }

    /// `?i` and `?n`: where x, b and c lie.
    fn layout(&self, draw: &mut Draw) {
        draw.int("i", self.inner());
        draw.int("n", self.shared());
    }

    /// `?cb`, `?conv` and the taps under this name.
    fn convolution(&self, draw: &mut Draw, weight: &str, channels: u64) {
        draw.small(weight, &[channels, self.taps]);
        draw.optional("cb", &[channels]);
        let dtype = draw.any_dtype();
        draw.slots("conv", dtype, &[self.taps - 1, channels]);
    }
}
