//! Cases drawn from the op table: an op whose operands are known by name needs no case of its own.
//!
//! Every op that a kernel computes must be drawable: one that is not is reported by its name and that of its operand.

use nemo_ir::interp::{Logits, Sequence, Step};
use nemo_ir::ops::{Attr, AttrKind, Family, Op, Operand, OperandKind};
use nemo_ir::rope::RopeTable;
use nemo_ir::types::{Dtype, Symbol};

use crate::kernel::{Case, Given};
use crate::random::Random;
use crate::sampling::{self, Settings};

/// bf16, as shapes below have it.
pub const BF16: Dtype = Dtype::Bf16;
/// f32, as shapes below have it.
pub const F32: Dtype = Dtype::F32;

/// Ops of the table that no kernel computes, and why.
pub const WITHOUT_KERNEL: [(&str, &str); 1] =
    [("slice", "a view: whoever reads it is given the address of its first column")];

/// Scans whose step sizes another op has computed.
const SCANS: [&str; 2] = ["ssd_recurrent", "ssd_chunked"];

/// Token ids of drawn steps are below this.
pub const VOCAB: usize = 37;

/// Rows of a case's activations.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Of values that have one a token.
    pub tokens: usize,
    /// Of values that have one for each row that wants logits.
    pub logits: usize,
}

impl From<usize> for Rows {
    fn from(rows: usize) -> Self {
        Self { tokens: rows, logits: rows }
    }
}

impl From<&Step> for Rows {
    fn from(step: &Step) -> Self {
        Self { tokens: step.tokens.len(), logits: step.rows.len() }
    }
}

/// Extents of a drawn case.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    /// Columns of x.
    pub k: usize,
    /// Columns of products that need not divide into heads.
    pub n: usize,
    /// Columns that share a norm.
    pub group: usize,
    /// Query heads, KV heads, head_dim.
    pub attention: (usize, usize, usize),
    /// Heads, groups, head_dim, state.
    pub scan: (usize, usize, usize, usize),
    /// Taps of the convolution.
    pub taps: usize,
    /// Columns of a tile of logits.
    pub tile: usize,
    /// Tokens that attention looks back, or 0 for all.
    pub window: usize,
    /// Whether optional weights are there.
    pub bias: bool,
}

/// Extents with odd widths, and with even ones; the last tile of logits is cut, but for the widths that divide.
pub const EXTENTS: [Extents; 4] = [
    Extents {
        k: 96,
        n: 19,
        group: 96,
        attention: (4, 2, 24),
        scan: (4, 2, 80, 24),
        taps: 4,
        tile: 8,
        window: 0,
        bias: true,
    },
    Extents {
        k: 33,
        n: 40,
        group: 11,
        attention: (3, 1, 16),
        scan: (6, 2, 16, 16),
        taps: 4,
        tile: 8,
        window: 20,
        bias: false,
    },
    Extents {
        k: 63,
        n: 3,
        group: 63,
        attention: (2, 2, 10),
        scan: (3, 1, 21, 7),
        taps: 2,
        tile: 8,
        window: 0,
        bias: true,
    },
    Extents {
        k: 160,
        n: 64,
        group: 160,
        attention: (8, 2, 64),
        scan: (2, 2, 32, 20),
        taps: 3,
        tile: 8,
        window: 0,
        bias: true,
    },
];

/// How a case's tensors are stored.
#[derive(Debug, Clone, Copy)]
pub struct Dtypes {
    /// Activations.
    pub x: Dtype,
    /// Matrices.
    pub weight: Dtype,
    /// What passes from step to step.
    pub inner: Dtype,
    /// Results.
    pub y: Dtype,
}

/// Dtypes for each of them.
pub const DTYPES: [Dtypes; 4] = [
    Dtypes { x: BF16, weight: BF16, inner: BF16, y: BF16 },
    Dtypes { x: F32, weight: F32, inner: F32, y: F32 },
    Dtypes { x: F32, weight: BF16, inner: F32, y: F32 },
    Dtypes { x: BF16, weight: BF16, inner: F32, y: BF16 },
];

impl Extents {
    fn inner(&self) -> usize {
        self.scan.0 * self.scan.2
    }

    fn shared(&self) -> usize {
        self.scan.1 * self.scan.3
    }

    /// Left, middle and right columns of a product that is split.
    fn split(&self) -> [usize; 3] {
        [self.n, self.k / 2 + 5, self.n / 2 + 1]
    }

    fn packed(&self) -> usize {
        self.inner() + 2 * self.shared()
    }

    /// Columns of a value, and what its elements lie between; `None` for a name that is not known here.
    fn value(&self, op: Op, name: &str) -> Option<(usize, f64)> {
        let (heads, kv_heads, head_dim) = self.attention;
        Some(match (op.family, name) {
            (_, "x") if ["rope", "norm_rope"].contains(&op.name) => (heads * head_dim, 2.0),
            (Family::Scan, "x") if op.name.starts_with("ssd") => (self.inner(), 1.0),
            (Family::Scan, "x") if op.name == "causal_conv1d" => (self.packed(), 1.0),
            (Family::Scan, "b" | "c") => (self.shared(), 1.0),
            (Family::Scan, "gate") => (self.inner(), 4.0),
            (_, "xbc") => (self.packed(), 1.0),
            (_, "dt") => (self.scan.0, 2.0),
            (_, "q") => (heads * head_dim, 4.0),
            (_, "k" | "v") => (kv_heads * head_dim, 1.0),
            (_, "residual") => (self.n, 2.0),
            (_, "x" | "gate" | "up") | (Family::Norm | Family::Linear, "a" | "b") => (self.k, 2.0),
            _ => return None,
        })
    }

    /// Shape of a weight, and whether it is an f32 vector or a table of taps.
    fn weight(&self, op: Op, name: &str) -> Option<(Vec<usize>, bool)> {
        let (heads, kv_heads, head_dim) = self.attention;
        let [left, middle, right] = self.split();
        let splits = op.attrs.iter().any(|attr| attr.name == "middle");
        let convolved = if splits { middle } else { self.packed() };
        let matrix = |n: usize| (vec![n, self.k], false);
        Some(match (op.family, name) {
            (_, "weight") if op.name == "norm_rope" => (vec![head_dim], true),
            (_, "weight") if op.name == "gated_rms_norm" => (vec![self.k], true),
            (_, "weight") if op.name.ends_with("rms_norm") => (vec![self.group], true),
            (_, "weight") if op.name == "causal_conv1d" => (vec![convolved, self.taps], true),
            (_, "bias") if op.name == "causal_conv1d" => (vec![convolved], true),
            (_, "table") => (vec![VOCAB, self.k], false),
            (_, "weight") if op.name == "linear_rope" => matrix(heads * head_dim),
            (_, "weight") if splits => matrix(left + middle + right),
            (_, "norm") => {
                (vec![if op.family == Family::Scan && !splits { self.inner() } else { self.k }], true)
            }
            (_, "a" | "gate" | "up" | "weight") => matrix(self.n),
            (_, "b") => matrix(5),
            (_, "c") => matrix(self.n + 7),
            (_, "q_weight") => matrix(heads * head_dim),
            (_, "k_weight" | "v_weight") => matrix(kv_heads * head_dim),
            (_, "conv_weight") => (vec![convolved, self.taps], true),
            (_, "conv_bias") => (vec![convolved], true),
            (_, "bias" | "a_log" | "d") => (vec![self.scan.0], true),
            _ => return None,
        })
    }

    fn attr(&self, op: Op, name: &str, kind: AttrKind, dtypes: Dtypes) -> Option<Attr> {
        let [left, middle, right] = self.split();
        let (heads, groups, ..) = self.scan;
        let int = |n: usize| Attr::Int(n as u64);
        Some(match name {
            "eps" => 1e-5.into(),
            "min" => 0.01.into(),
            "max" => 1.5.into(),
            "group" if op.name == "norm_rope" => int(self.attention.2),
            "group" if op.family == Family::Scan && name == "group" && !op.name.contains("linear") => {
                int(self.inner() / groups)
            }
            "group" => int(self.group),
            "heads" => int(heads),
            "groups" => int(groups),
            "chunk" => int(64),
            "inner" => int(self.inner()),
            "shared" => int(self.shared()),
            "left" => int(left),
            "middle" => int(middle),
            "right" => int(right),
            "tile" => int(self.tile),
            "scale" => (1.0 / (self.attention.2 as f64).sqrt()).into(),
            "window" => int(self.window),
            "dtype" if op.attrs.iter().any(|attr| attr.name == "tile") => F32.into(),
            "dtype" => dtypes.y.into(),
            _ if kind == AttrKind::Dtype => dtypes.inner.into(),
            _ => return None,
        })
    }

    fn given(
        &self,
        op: Op,
        operand: &Operand,
        rows: Rows,
        dtypes: Dtypes,
        random: &mut Random,
    ) -> Option<Given> {
        let name = operand.name;
        let logits = || sampling::peaked(rows.logits, self.k, 71);
        Some(match operand.kind {
            OperandKind::Value if name == "logits" => sampling::given(&logits()),
            OperandKind::Value if name == "maxima" => {
                sampling::given(&sampling::maxima(&logits(), self.tile))
            }
            // A step size that was computed before.
            OperandKind::Value if name == "dt" && SCANS.contains(&op.name) => {
                let steps = random.tensor(&[rows.tokens, self.scan.0], 0.01, 1.0);
                Given::rows(steps, F32, Symbol::T)
            }
            OperandKind::Value if op.name == "tile_max" => {
                Given::rows(random.tensor(&[rows.tokens, self.k], -2.0, 2.0), F32, Symbol::T)
            }
            OperandKind::Value => {
                let (width, most) = self.value(op, name)?;
                let rows = random.tensor(&[rows.tokens, width], -most, most);
                let dtype = if name == "residual" { dtypes.y } else { dtypes.x };
                // Some of them are columns of wider tensors.
                match name {
                    "gate" | "xbc" | "c" => Given::view(rows, dtype, Symbol::T, width + 3),
                    _ => Given::rows(rows, dtype, Symbol::T),
                }
            }
            OperandKind::Weight | OperandKind::OptionalWeight => {
                let (shape, is_vector) = self.weight(op, name)?;
                let dtype = if is_vector { F32 } else { dtypes.weight };
                Given::weight(random.tensor(&shape, -1.0, 1.0), dtype)
            }
            OperandKind::State => {
                let (_, kv_heads, head_dim) = self.attention;
                let (heads, _, scan_dim, state) = self.scan;
                let splits = op.attrs.iter().any(|attr| attr.name == "middle");
                let convolved = if splits { self.split()[1] } else { self.packed() };
                let (shape, dtype, units) = match name {
                    "kv" => (vec![6, 2, kv_heads, 64, head_dim], dtypes.y, Symbol::N),
                    "ssm" => (vec![3, heads, state, scan_dim], F32, Symbol::S),
                    "conv" => (vec![3, self.taps - 1, convolved], dtypes.inner, Symbol::S),
                    _ => return None,
                };
                Given::State { tensor: random.tensor(&shape, -0.5, 0.5), dtype, units }
            }
            OperandKind::Table => Given::Table(RopeTable {
                theta: 10_000.0,
                head_dim: self.attention.2 as u64,
                positions: 300,
                scaling: None,
            }),
            OperandKind::Step(_) => return None,
        })
    }
}

/// A case of an op whose operands are known by name.
///
/// # Panics
/// When one is not.
pub fn case(op: Op, extents: &Extents, dtypes: Dtypes, rows: impl Into<Rows>) -> Case {
    let rows = rows.into();
    let mut random = Random::new(70);
    let unknown = |name: &str| -> ! { panic!("no case knows `{name}` of `{}`", op.name) };
    let attrs = op
        .attrs
        .iter()
        .map(|attr| extents.attr(op, attr.name, attr.kind, dtypes).unwrap_or_else(|| unknown(attr.name)));
    let given = op.operands.iter().filter(|operand| !matches!(operand.kind, OperandKind::Step(_)));
    let given = given.filter(|operand| extents.bias || operand.kind != OperandKind::OptionalWeight);
    let operands = given.map(|operand| {
        extents.given(op, operand, rows, dtypes, &mut random).unwrap_or_else(|| unknown(operand.name))
    });
    Case { op: op.name, attrs: attrs.collect(), operands: operands.collect() }
}

/// What narrows choices of drawn steps.
const SETTINGS: [Settings; 6] = [
    (0.0, 0, 1.0, 0.0),
    (0.8, 5, 1.0, 0.0),
    (1.0, 0, 0.7, 0.0),
    (1.3, 0, 1.0, 0.1),
    (0.6, 20, 0.9, 0.02),
    (1.0, 0, 1.0, 0.0),
];

/// Prompts, single tokens and padding over three slots and six pages, all of which choose tokens in another way.
pub fn steps() -> Vec<Step> {
    let mut steps = steps_of_states();
    let mut settings = SETTINGS.iter().cycle();
    for (number, step) in steps.iter_mut().enumerate() {
        for r in 0..step.seq_start.len() - 1 {
            let (temperature, top_k, top_p, min_p) = settings.next().copied().expect("they repeat");
            (step.temperature[r], step.top_k[r]) = (temperature, top_k);
            (step.top_p[r], step.min_p[r]) = (top_p, min_p);
            step.seed[r] = [number as u32 + 1, r as u32];
        }
    }
    // One answer is given.
    steps[2].forced[1] = 3;
    steps
}

/// The token at a position.
pub(crate) fn token(position: usize) -> i32 {
    ((position * 7 + 3) % VOCAB) as i32
}

/// Those steps, all of them greedy.
fn steps_of_states() -> Vec<Step> {
    let sequence = |tokens: usize, context: i32, (slot_in, slot_out): (i32, i32), pages: &[i32]| Sequence {
        tokens: (0..tokens).map(|n| token(context as usize + n)).collect(),
        context,
        slot_in,
        slot_out,
        pages: pages.to_vec(),
        logits: if tokens == 3 { Logits::All } else { Logits::Last },
        ..Sequence::default()
    };
    let padded =
        || Sequence { tokens: vec![-1], logits: Logits::None, pages: vec![-1], ..Sequence::default() };
    vec![
        Step::of(&[
            sequence(70, 0, (-1, 0), &[4, 0]),
            sequence(1, 0, (-1, 1), &[1]),
            sequence(3, 0, (-1, -1), &[-1]),
        ]),
        Step::of(&[sequence(1, 70, (0, 0), &[4, 0]), sequence(1, 1, (1, 1), &[1]), padded()]),
        Step::of(&[
            sequence(3, 71, (0, 2), &[4, 0]),
            sequence(1, 2, (1, 1), &[1]),
            sequence(5, 100, (0, -1), &[3, 2]),
        ]),
        Step::of(&[sequence(1, 3, (2, 2), &[5])]),
    ]
}
