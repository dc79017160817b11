use nemo_ir::types::{Dtype, Symbol};
use nemo_tests::kernel::{Case, Given};
use nemo_tests::random::Random;

use super::{check, rows};

#[test]
fn rms_norm_of_rows_and_of_groups() {
    for (rows_count, width, group, weight) in
        [(1, 100, 100, 100), (3, 64, 64, 64), (5, 96, 24, 96), (2, 128, 32, 32), (4, 7, 7, 7)]
    {
        for dtype in [Dtype::Bf16, Dtype::F32] {
            let case = || {
                let mut random = Random::new(7);
                Case {
                    op: "rms_norm",
                    attrs: vec![1e-5.into(), group.into(), dtype.into()],
                    operands: vec![
                        Given::rows(random.tensor(&[rows_count, width], -3.0, 3.0), dtype, Symbol::T),
                        Given::weight(random.tensor(&[weight], 0.5, 1.5), Dtype::F32),
                    ],
                }
            };
            check(case, &rows(rows_count), dtype, &format!("rms_norm {rows_count}x{width}/{group}"));
        }
    }
}

#[test]
fn rms_norm_of_tiny_and_huge_values() {
    for scale in [1e-6, 1e6] {
        let case = || Case {
            op: "rms_norm",
            attrs: vec![1e-5.into(), 48.into(), Dtype::F32.into()],
            operands: vec![
                Given::rows(Random::new(8).tensor(&[2, 48], -scale, scale), Dtype::F32, Symbol::T),
                Given::weight(Random::new(9).tensor(&[48], 0.5, 1.5), Dtype::F32),
            ],
        };
        check(case, &rows(2), Dtype::F32, &format!("rms_norm at {scale}"));
    }
}

#[test]
fn gated_rms_norm_over_groups() {
    for (width, group) in [(480, 240), (60, 20), (32, 32)] {
        for (x, y) in [(Dtype::F32, Dtype::Bf16), (Dtype::F32, Dtype::F32)] {
            let case = || {
                let mut random = Random::new(10);
                Case {
                    op: "gated_rms_norm",
                    attrs: vec![1e-5.into(), group.into(), y.into()],
                    operands: vec![
                        Given::rows(random.tensor(&[3, width], -2.0, 2.0), x, Symbol::T),
                        Given::view(random.tensor(&[3, width], -30.0, 30.0), y, Symbol::T, width + 5),
                        Given::weight(random.tensor(&[width], 0.5, 1.5), Dtype::F32),
                    ],
                }
            };
            check(case, &rows(3), y, &format!("gated_rms_norm {width}/{group}"));
        }
    }
}
