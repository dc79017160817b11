use nemo_ir::interp::{Sequence, Step, Tensor};
use nemo_ir::step::StepInput;
use nemo_ir::types::{Dtype, Symbol, Type};
use nemo_kernels::spec::{KernelSpec, Layout};
use nemo_tests::kernel::{Case, Given, Machine};
use nemo_tests::random::Random;

use super::{check, rows, targets};

#[test]
fn activations_and_addition() {
    for (op, operands) in [("add", 2), ("swiglu", 2), ("relu2", 1)] {
        for dtype in [Dtype::Bf16, Dtype::F32] {
            for (count, width) in [(1, 33), (4, 160), (3, 5)] {
                let case = || {
                    let mut random = Random::new(20);
                    let mut tensor = || random.tensor(&[count, width], -20.0, 20.0);
                    let operands = (0..operands).map(|_| Given::rows(tensor(), dtype, Symbol::T)).collect();
                    Case { op, attrs: vec![dtype.into()], operands }
                };
                check(case, &rows(count), dtype, &format!("{op} {count}x{width}"));
            }
        }
    }
}

#[test]
fn rows_by_index() {
    let step = Step::of(&[
        Sequence { tokens: vec![5, 0, 6], logits: nemo_ir::interp::Logits::All, ..Sequence::default() },
        Sequence { tokens: vec![-1], logits: nemo_ir::interp::Logits::None, ..Sequence::default() },
    ]);
    let embed = || Case {
        op: "embed",
        attrs: vec![Dtype::Bf16.into()],
        operands: vec![Given::weight(Random::new(21).tensor(&[7, 37], -1.0, 1.0), Dtype::Bf16)],
    };
    check(embed, &step, Dtype::Bf16, "embed");
    let gather = || Case {
        op: "gather_rows",
        attrs: vec![],
        operands: vec![Given::rows(Random::new(22).tensor(&[4, 19], -1.0, 1.0), Dtype::F32, Symbol::T)],
    };
    check(gather, &step, Dtype::F32, "gather_rows");
}

#[test]
fn nan_stays_nan() {
    for (op, operands, attrs) in [
        ("relu2", 1, vec![Dtype::F32.into()]),
        ("swiglu", 2, vec![Dtype::F32.into()]),
        ("add", 2, vec![Dtype::F32.into()]),
        ("dt_softplus", 1, vec![0.001.into(), 0.1.into()]),
    ] {
        for target in targets() {
            let nan = || Tensor::real([1, 19], vec![f64::NAN; 19]);
            let mut operands: Vec<_> =
                (0..operands).map(|_| Given::rows(nan(), Dtype::F32, Symbol::T)).collect();
            if op == "dt_softplus" {
                operands.push(Given::weight(Tensor::zeros([19]), Dtype::F32));
            }
            let case = Case { op, attrs: attrs.clone(), operands };
            let answers = Machine::new(&target, case).run(&rows(1), 1);
            assert!(answers.kernel.iter().all(|x| x.is_nan()), "{op} on {target}: {:?}", answers.kernel);
            assert!(answers.reference.iter().all(|x| x.is_nan()), "{op} in the interpreter");
        }
    }
}

#[test]
fn work_space_beyond_the_stack_is_refused() {
    use nemo_kernels::host::{Listings, compile};
    // A state as large as the scan allows, of the shape that takes the most room beside it.
    let (heads, head_dim, state) = (2u64, 4u64, 16384u64);
    let matrix = |width: u64| Layout::dense(Type::new(Dtype::F32, [Symbol::T.into(), width.into()]));
    let vector = || Layout::dense(Type::new(Dtype::F32, [heads.into()]));
    let ints = |input: StepInput| Layout::dense(input.ty());
    let ssm = Type::new(Dtype::F32, [Symbol::S.into(), heads.into(), state.into(), head_dim.into()]);
    let spec = KernelSpec {
        op: nemo_ir::ops::op("ssd_chunked").expect("the table has it"),
        attrs: vec![heads.into(), 1.into(), 64.into(), Dtype::F32.into()],
        operands: vec![
            matrix(heads * head_dim),
            matrix(heads),
            matrix(state),
            matrix(state),
            vector(),
            vector(),
            Layout::dense(ssm),
            ints(StepInput::SeqStart),
            ints(StepInput::SlotIn),
            ints(StepInput::SlotOut),
        ],
        results: vec![matrix(heads * head_dim)],
        steps: None,
    };
    for target in targets() {
        let error = compile(&target, &[("k".to_owned(), spec.clone())], Listings::default()).unwrap_err();
        assert!(error.to_string().contains("bytes of stack"), "{error}");
    }
}
