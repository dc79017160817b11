use nemo_ir::interp::{Sequence, Step, Tensor};
use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given, Machine};
use nemo_tests::random::Random;

use super::{backends, check, rows};

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
        for target in backends() {
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
