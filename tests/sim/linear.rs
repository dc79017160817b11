//! Products on GPUs: decode steps of every size, shapes that are read once, sums that CTAs share.

use nemo_ir::interp::Tensor;
use nemo_ir::ops::{Op, Recipe, op, table};
use nemo_ir::plan::Phase;
use nemo_kernels::target::Sm;
use nemo_tests::drawn::{BF16, DTYPES, Dtypes, EXTENTS, Extents, F32, case};
use nemo_tests::kernel::{Answers, Backend, Given, Machine};
use nemo_tests::wide::singles;

use crate::kernels::assert_close;

/// Widths that tensor cores take: with heads of whole strips and of parts of them, with groups of a norm.
const WIDE: [Extents; 2] = [
    Extents { k: 296, n: 56, group: 296, attention: (3, 2, 64), taps: 4, bias: true, ..EXTENTS[0] },
    Extents { k: 64, n: 32, group: 16, attention: (4, 1, 40), taps: 3, bias: false, ..EXTENTS[0] },
];

fn products() -> impl Iterator<Item = Op> {
    let multiplies = |op: &Op| Recipe::of(op).is_some_and(|recipe| recipe.step("linear").is_some());
    table().filter(move |op| op.name == "linear" || multiplies(op))
}

fn run(sm: Sm, op: Op, extents: &Extents, dtypes: Dtypes, rows: usize) -> (Machine, Answers) {
    let mut machine = Machine::new(&Backend::Sim(sm, Phase::Decode), case(op, extents, dtypes, rows));
    let answers = machine.run(&singles(rows), 1);
    let tolerance = if dtypes.y == F32 { F32 } else { BF16 };
    let what = format!("{} of {rows} rows, {extents:?} {dtypes:?} on {}", op.name, sm.name());
    assert_close(&answers, tolerance, &what);
    for other in &answers.others {
        assert_close(other, tolerance, &what);
    }
    (machine, answers)
}

#[test]
fn decode_steps_of_every_size() {
    for (number, op) in products().enumerate() {
        for (index, rows) in [1, 2, 3, 8, 16, 17, 33, 64].into_iter().enumerate() {
            let place = number + index;
            let sm = Sm::ALL[place / 2 % 2];
            run(sm, op, &WIDE[place % 2], DTYPES[0], rows);
            run(sm, op, &EXTENTS[place % 4], DTYPES[(place / 4) % 4], rows);
        }
    }
}

#[test]
fn long_rows_are_shared_by_ctas_and_too_many_are_normed_on_their_way() {
    for name in ["linear_add", "norm_linear_swiglu", "gated_norm_linear_add", "linear_rope"] {
        let op = op(name).expect("the table has it");
        for (k, rows) in [(2056, 3), (4096, 1), (8192, 12)] {
            let group = if name.starts_with("gated") { k / 8 } else { k };
            let extents = Extents { k, n: 24, group, attention: (2, 1, 32), ..EXTENTS[0] };
            for sm in Sm::ALL {
                run(sm, op, &extents, DTYPES[0], rows);
            }
        }
    }
}

#[test]
fn a_rows_bits_do_not_depend_on_the_number_of_rows() {
    for name in ["norm_linear_relu2", "linear_swiglu"] {
        let op = op(name).expect("the table has it");
        for (extents, dtypes) in [(&WIDE[0], DTYPES[0]), (&EXTENTS[1], DTYPES[1])] {
            for sm in Sm::ALL {
                let (mut machine, all) = run(sm, op, extents, dtypes, 8);
                let Given::Tensor { tensor, .. } = &case(op, extents, dtypes, 8).operands[0] else {
                    unreachable!("the case starts with x")
                };
                let rows = tensor.as_real().expect("x is real")[..3 * extents.k].to_vec();
                machine.set(0, Tensor::real([3, extents.k], rows));
                let few = machine.run(&singles(3), 1);
                assert_eq!(few.kernel, all.kernel[..few.kernel.len()], "{name} on {}", sm.name());
            }
        }
    }
}

/// Every byte of weights is asked for once, in whole sectors; x and norms add little; banks are not met twice.
#[test]
fn weights_are_read_once() {
    let extents = Extents { k: 4480, n: 2560, group: 4480, attention: (16, 2, 128), ..EXTENTS[0] };
    for name in ["linear_add", "norm_linear_relu2", "norm_linear_rope_qkv", "norm_linear_swiglu"] {
        let op = op(name).expect("the table has it");
        for sm in Sm::ALL {
            let columns = match name {
                "norm_linear_rope_qkv" => 20 * 128,
                "norm_linear_swiglu" => 2 * extents.n,
                _ => extents.n,
            };
            let weights = (columns * extents.k * 2) as f64;
            for (rows, requested) in [(1, 1.25), (8, 1.4)] {
                let (machine, _) = run(sm, op, &extents, DTYPES[0], rows);
                let counts = machine.counts().expect("it ran in the simulator");
                let what = format!("{name} of {rows} rows on {}", sm.name());
                let loads = &counts.global_loads;
                assert!(loads.full_fraction() >= 0.99, "{what}: {} of sectors", loads.full_fraction());
                let asked = loads.sectors as f64 * 32.0 / weights;
                assert!(asked <= requested, "{what}: {asked} of the weights' bytes");
                let unique = counts.unique_load_sectors as f64 * 32.0 / weights;
                assert!(unique <= 1.03, "{what}: {unique} of the weights' bytes are touched");
                let shared = [&counts.shared_loads, &counts.shared_stores];
                let replays: u64 = shared.iter().map(|counts| counts.replays).sum();
                let requests: u64 = shared.iter().map(|counts| counts.requests).sum();
                assert!(replays * 100 <= requests, "{what}: {replays} replays of {requests} accesses");
            }
        }
    }
}
