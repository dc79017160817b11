use nemo_ir::interp::{Sequence, Step};
use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given};
use nemo_tests::random::Random;

use super::{check, rows};

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
