//! Every op of the family, at real and at odd shapes, becomes PTX for every target; and which form is taken where.

use nemo_ir::ops::{self, Attr, AttrKind, Family, OperandKind, Recipe};
use nemo_ir::plan::{Extent, Phase};
use nemo_ir::types::{Dtype, Symbol, Type};

use crate::nvptx::{candidate, compile};
use crate::spec::{KernelSpec, Layout, Steps};
use crate::target::Sm;

const BF16: Dtype = Dtype::Bf16;
const F32: Dtype = Dtype::F32;
const DECODE: Steps = Steps { phase: Phase::Decode, min_tokens: 1, max_tokens: 64, max_seqs: 64 };
const PREFILL: Steps = Steps { phase: Phase::Prefill, min_tokens: 1, max_tokens: 8192, max_seqs: 64 };

/// Extents of a mixer, and the dtype of its activations.
#[derive(Debug, Clone, Copy)]
struct Extents {
    heads: u64,
    groups: u64,
    head_dim: u64,
    state: u64,
    taps: u64,
    dtype: Dtype,
}

const NANO: Extents = Extents { heads: 128, groups: 8, head_dim: 80, state: 128, taps: 4, dtype: BF16 };
const LARGE: Extents = Extents { heads: 256, groups: 8, head_dim: 64, state: 256, ..NANO };
const ODD: Extents = Extents { heads: 3, groups: 1, head_dim: 21, state: 7, taps: 2, dtype: BF16 };
const REAL: Extents = Extents { heads: 6, groups: 2, head_dim: 16, state: 24, taps: 3, dtype: F32 };

impl Extents {
    fn spec(self, name: &str, steps: Steps) -> KernelSpec {
        let op = ops::op(name).expect("the table has it");
        let (inner, shared) = (self.heads * self.head_dim, self.groups * self.state);
        let packed = inner + 2 * shared;
        let rows = |width: u64| Type::new(self.dtype, [Symbol::T.into(), width.into()]);
        let f32 = |shape: &[u64]| Type::new(F32, shape.iter().map(|n| (*n).into()).collect::<Vec<_>>());
        let operand = |operand: &ops::Operand| {
            let ty = match (operand.kind, operand.name) {
                (OperandKind::Step(input), _) => input.ty(),
                (_, "x") if name == "causal_conv1d" => rows(packed),
                (_, "x" | "gate") => rows(inner),
                (_, "xbc") => rows(packed),
                (_, "b" | "c") => rows(shared),
                (_, "dt") if Recipe::of(op).is_none() && name != "dt_softplus" => {
                    Type::new(F32, [Symbol::T.into(), self.heads.into()])
                }
                (_, "dt") => rows(self.heads),
                (_, "weight" | "conv_weight") => f32(&[packed, self.taps]),
                (_, "bias") if name == "causal_conv1d" => f32(&[packed]),
                (_, "conv_bias") => f32(&[packed]),
                (_, "norm") => f32(&[inner]),
                (_, "bias" | "a_log" | "d") => f32(&[self.heads]),
                (_, "conv") => {
                    Type::new(self.dtype, [Symbol::S.into(), (self.taps - 1).into(), packed.into()])
                }
                (_, "ssm") => Type::new(
                    F32,
                    [Symbol::S.into(), self.heads.into(), self.state.into(), self.head_dim.into()],
                ),
                (kind, name) => panic!("{kind:?} {name}"),
            };
            let layout = Layout::dense(ty).aligned(16);
            match operand.name {
                "x" | "b" | "c" if name != "causal_conv1d" => Layout { row_stride: packed, ..layout },
                _ => layout,
            }
        };
        let attr = |attr: &ops::AttrSpec| match (attr.name, attr.kind) {
            ("heads", _) => self.heads.into(),
            ("groups", _) => self.groups.into(),
            ("inner", _) => inner.into(),
            ("shared", _) => shared.into(),
            ("group", _) => (inner / self.groups).into(),
            ("chunk", _) => 64.into(),
            ("min", _) => 0.0.into(),
            ("max", _) => f64::INFINITY.into(),
            ("eps", _) => 1e-5.into(),
            ("dtype", _) if name.starts_with("ssd") => F32.into(),
            (_, AttrKind::Dtype) => Attr::Dtype(self.dtype),
            (name, _) => panic!("{name}"),
        };
        let y = match name {
            "dt_softplus" => Type::new(F32, [Symbol::T.into(), self.heads.into()]),
            "causal_conv1d" => rows(packed),
            _ if name.starts_with("ssd") => Type::new(F32, [Symbol::T.into(), inner.into()]),
            _ => rows(inner),
        };
        KernelSpec {
            op,
            attrs: op.attrs.iter().map(attr).collect(),
            operands: op.operands.iter().map(operand).collect(),
            results: vec![Layout::dense(y).aligned(16)],
            steps: Some(steps),
            form: None,
        }
    }
}

fn family() -> impl Iterator<Item = &'static str> {
    let products = |op: &ops::Op| Recipe::of(op).is_some_and(|recipe| recipe.step("linear").is_some());
    ops::table().filter(|op| op.family == Family::Scan).filter(move |op| !products(op)).map(|op| op.name)
}

#[test]
fn every_op_becomes_ptx() {
    for sm in [Sm::Sm86, Sm::Sm90] {
        for (at, extents) in [NANO, LARGE, ODD, REAL].into_iter().enumerate() {
            for steps in [DECODE, PREFILL] {
                for name in family() {
                    let spec = extents.spec(name, steps);
                    let made = compile(sm, &[(format!("{name}_{at}"), spec)], false);
                    made.unwrap_or_else(|error| panic!("{error}"));
                }
            }
        }
    }
}

#[test]
fn tensor_cores_take_what_divides_in_prefill() {
    let threads = |sm, extents: Extents, steps| {
        candidate(sm, &extents.spec("ssd_chunked_dt", steps)).expect("it has a kernel").geometry.threads
    };
    for sm in [Sm::Sm86, Sm::Sm90] {
        // A warp for each 16 columns of head_dim, two where the state is large.
        assert_eq!(threads(sm, NANO, PREFILL), 160);
        assert_eq!(threads(sm, LARGE, PREFILL), 256);
        // 20 accesses across head_dim, for each 16th row of the state.
        assert_eq!(threads(sm, NANO, DECODE), 320);
        assert_eq!(threads(sm, ODD, PREFILL), 32);
        assert_eq!(threads(sm, Extents { dtype: F32, ..NANO }, PREFILL), 320);
    }
}

#[test]
fn two_ctas_of_the_chunked_scan_share_an_ampere_multiprocessor() {
    let kernel = candidate(Sm::Sm86, &NANO.spec("ssd_chunked", PREFILL)).expect("it has a kernel");
    let geometry = kernel.geometry;
    assert!(2 * (geometry.shared + 1024) <= 100 << 10, "{} bytes", geometry.shared);
    assert_eq!(geometry.grid, [Extent::Const(128), Extent::each(Symbol::R), Extent::Const(1)]);
}

#[test]
fn a_scan_that_fits_no_registers_is_refused() {
    let spec = Extents { state: 100_000, ..ODD }.spec("ssd_recurrent", DECODE);
    let error = candidate(Sm::Sm86, &spec).unwrap_err().to_string();
    assert!(error.ends_with("a state of 100000 x 21 does not fit a CTA's registers"), "{error}");
}
