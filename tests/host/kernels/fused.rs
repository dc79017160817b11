//! Fused ops: against the interpreter, and bit by bit against the chain of kernels that each replaces
//! (the harness compares those). Cases are drawn from the table: an op whose operands are known by name
//! needs no case of its own.

use nemo_ir::interp::{Logits, Sequence, Step};
use nemo_ir::ops::{Attr, AttrKind, Family, Op, Operand, OperandKind, Recipe, op, table};
use nemo_ir::rope::RopeTable;
use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given, Machine};
use nemo_tests::random::Random;

use super::{assert_close, rows, targets};

const BF16: Dtype = Dtype::Bf16;
const F32: Dtype = Dtype::F32;

/// Extents of a drawn case.
#[derive(Debug, Clone, Copy)]
struct Extents {
    k: usize,
    /// Columns of products that need not divide into heads.
    n: usize,
    /// Columns that share a norm.
    group: usize,
    /// Query heads, KV heads, head_dim.
    attention: (usize, usize, usize),
    /// Heads, groups, head_dim, state.
    scan: (usize, usize, usize, usize),
    taps: usize,
    bias: bool,
}

const EXTENTS: [Extents; 4] = [
    Extents { k: 96, n: 19, group: 96, attention: (4, 2, 24), scan: (4, 2, 80, 24), taps: 4, bias: true },
    Extents { k: 33, n: 40, group: 11, attention: (3, 1, 16), scan: (6, 2, 16, 16), taps: 4, bias: false },
    Extents { k: 63, n: 3, group: 63, attention: (2, 2, 10), scan: (3, 1, 21, 7), taps: 2, bias: true },
    Extents { k: 160, n: 64, group: 160, attention: (8, 2, 32), scan: (2, 2, 32, 20), taps: 3, bias: true },
];

/// How a case's tensors are stored.
#[derive(Debug, Clone, Copy)]
struct Dtypes {
    x: Dtype,
    weight: Dtype,
    /// What passes from step to step.
    inner: Dtype,
    y: Dtype,
}

const DTYPES: [Dtypes; 4] = [
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
            (_, "x") if op.name == "norm_rope" => (heads * head_dim, 2.0),
            (Family::Scan, "x") if op.name.starts_with("ssd") => (self.inner(), 1.0),
            (Family::Scan, "b" | "c") => (self.shared(), 1.0),
            (Family::Scan, "gate") => (self.inner(), 4.0),
            (_, "xbc") => (self.packed(), 1.0),
            (_, "dt") => (self.scan.0, 2.0),
            (_, "k" | "v") => (kv_heads * head_dim, 1.0),
            (_, "residual") => (self.n, 2.0),
            (_, "x" | "gate") | (Family::Norm, "a" | "b") => (self.k, 2.0),
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
            (_, "weight") if op.name.ends_with("rms_norm") => (vec![self.group], true),
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
            // A last tile that is cut, but for the widths that divide.
            "tile" => int(8),
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
        rows: usize,
        dtypes: Dtypes,
        random: &mut Random,
    ) -> Option<Given> {
        let name = operand.name;
        Some(match operand.kind {
            OperandKind::Value => {
                let (width, most) = self.value(op, name)?;
                let rows = random.tensor(&[rows, width], -most, most);
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

fn case(op: Op, extents: &Extents, dtypes: Dtypes, rows: usize) -> Case {
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

/// Prompts, single tokens and padding over three slots and six pages.
fn steps() -> Vec<Step> {
    let sequence = |tokens: usize, context: i32, (slot_in, slot_out): (i32, i32), pages: &[i32]| Sequence {
        tokens: vec![0; tokens],
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

fn check(op: Op) {
    for target in targets() {
        for (index, (extents, dtypes)) in EXTENTS.iter().zip(DTYPES).enumerate() {
            let mut machine = Machine::new(&target, case(op, extents, dtypes, 1));
            // An intermediate that falls to the other side in bf16 shows as much in a result of f32.
            let tolerance = if dtypes.y == F32 { F32 } else { BF16 };
            for (number, step) in steps().iter().enumerate() {
                let fresh = case(op, extents, dtypes, step.tokens.len());
                for (operand, given) in fresh.operands.into_iter().enumerate() {
                    if let Given::Tensor { tensor, rows: Some(_), .. } = given {
                        machine.set(operand, tensor);
                    }
                }
                let answers = machine.run(step, [1, 2, 5, 1][(index + number) % 4]);
                let what = format!("{} {index} step {number} on {target}", op.name);
                assert_close(&answers, tolerance, &what);
                for other in &answers.others {
                    assert_close(other, tolerance, &what);
                }
            }
        }
    }
}

fn check_family(family: Family) {
    for op in table().filter(|op| !op.recipe.is_empty() && op.family == family) {
        check(op);
    }
}

#[test]
fn of_norms() {
    check_family(Family::Norm);
}

#[test]
fn of_products() {
    check_family(Family::Linear);
}

#[test]
fn of_activations() {
    check_family(Family::Ffn);
}

#[test]
fn of_the_scan() {
    check_family(Family::Scan);
}

#[test]
fn of_attention() {
    check_family(Family::Attention);
}

#[test]
fn of_the_ends() {
    check_family(Family::Head);
}

#[test]
fn a_residual_may_be_written_over() {
    for (name, operand, result) in
        [("linear_add", 2, 0), ("gated_norm_linear_add", 4, 0), ("add_rms_norm", 0, 0)]
    {
        let op = op(name).expect("the table has it");
        for target in targets() {
            for (extents, x) in [(&EXTENTS[0], BF16), (&EXTENTS[2], F32)] {
                let dtypes = Dtypes { x, weight: BF16, inner: x, y: x };
                for (count, threads) in [(1, 1), (70, 5)] {
                    // The chain, which the harness compares with, writes to other buffers.
                    let mut machine = Machine::new(&target, case(op, extents, dtypes, count));
                    machine.write_over(operand, result);
                    machine.run(&rows(count), threads);
                }
            }
        }
    }
}

/// Rows that fill the second-level cache several times, with sequences that begin and end inside blocks.
#[test]
fn blocks_of_rows_larger_than_the_cache() {
    let extents = Extents { k: 2048, n: 9, group: 2048, ..EXTENTS[0] };
    let sequence = |tokens, context, slot, pages: &[i32]| Sequence {
        tokens: vec![0; tokens],
        context,
        slot_in: slot,
        slot_out: slot,
        pages: pages.to_vec(),
        ..Sequence::default()
    };
    let step = Step::of(&[
        sequence(62, 3, 0, &[4, 0]),
        sequence(70, 0, 1, &[1, 2]),
        sequence(1, 5, -1, &[-1]),
        sequence(60, 0, 2, &[3]),
    ]);
    for name in [
        "norm_linear_swiglu",
        "gated_norm_linear_add",
        "norm_linear_rope_qkv",
        "norm_linear_conv",
        "linear_conv",
    ] {
        let op = op(name).expect("the table has it");
        for target in targets() {
            let dtypes = Dtypes { x: F32, weight: BF16, inner: F32, y: F32 };
            let extents = if name.ends_with("conv") { Extents { n: 3, ..extents } } else { extents };
            let mut machine = Machine::new(&target, case(op, &extents, dtypes, step.tokens.len()));
            for threads in [3, 1] {
                let answers = machine.run(&step, threads);
                assert_close(&answers, F32, &format!("{name} on {target}"));
            }
        }
    }
}

#[test]
fn rows_that_are_not_there_are_zeros() {
    let mut step = steps().swap_remove(0);
    step.rows = vec![-1, 3, 72];
    let gathers = |op: &Op| Recipe::of(op).is_some_and(|recipe| recipe.step("gather_rows").is_some());
    for op in table().filter(gathers) {
        for target in targets() {
            let case = case(op, &EXTENTS[0], DTYPES[0], step.tokens.len());
            let results = Machine::new(&target, case).run_beside_chain(&step, 2);
            let row = results[0].0.len() / 3;
            // Of either sign, as the weights are.
            let zeros = results[0].0[..row].chunks(2).all(|bf16| [bf16[0], bf16[1] & 0x7F] == [0, 0]);
            assert!(zeros, "{} on {target}", op.name);
        }
    }
}
