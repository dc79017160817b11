//! What attention costs at the extents of real models.

use nemo_ir::interp::{Sequence, Step, Tensor};
use nemo_ir::plan::Phase;
use nemo_ir::rope::RopeTable;
use nemo_ir::types::{Dtype, Symbol};
use nemo_kernels::target::Sm;
use nemo_tests::kernel::{Backend, Case, Given, Machine};
use nemo_tests::random::Random;
use ptx_sim::Counts;

const BF16: Dtype = Dtype::Bf16;
const HEAD_DIM: usize = 128;

fn sequence(tokens: usize, context: i32, pages: &[i32]) -> Sequence {
    Sequence { tokens: vec![0; tokens], context, pages: pages.to_vec(), ..Sequence::default() }
}

/// In the kernel's first form.
fn counts(backend: &Backend, case: Case, step: &Step) -> Counts {
    let machine = Machine::new(backend, case);
    let form = machine.forms(step)[0];
    let mut machine = machine.built_by(form);
    machine.run(step, 1);
    machine.counts().expect("the simulator counts").clone()
}

fn attention(heads: usize, kv_heads: usize, pages: usize, rows: usize) -> Case {
    let mut random = Random::new(44);
    let operands = vec![
        Given::rows(random.tensor(&[rows, heads * HEAD_DIM], -4.0, 4.0), BF16, Symbol::T),
        Given::State {
            tensor: random.tensor(&[pages, 2, kv_heads, 64, HEAD_DIM], -1.0, 1.0),
            dtype: BF16,
            units: Symbol::N,
        },
    ];
    let scale = 1.0 / (HEAD_DIM as f64).sqrt();
    Case { op: "paged_attention", attrs: vec![scale.into(), 0.into(), BF16.into()], operands }
}

fn assert_no_waste(counts: &Counts, what: &str) {
    assert_eq!((counts.shared_loads.replays, counts.shared_stores.replays), (0, 0), "{what}: bank conflicts");
    assert_eq!((counts.local_loads, counts.local_stores), (0, 0), "{what}: local memory");
}

#[test]
fn decode_reads_the_cache_once() {
    // Two KV heads stand for eight: their CTAs share nothing.
    let pages: Vec<i32> = (0..40).rev().collect();
    let step = Step::of(&[sequence(1, 40 * 64 - 1, &pages)]);
    for sm in Sm::ALL {
        for group in [4, 5] {
            let what = format!("{group} heads a KV head on {}", sm.name());
            let counts = counts(&Backend::Sim(sm, Phase::Decode), attention(2 * group, 2, 40, 1), &step);
            let cache = 40 * 64 * 2 * 2 * HEAD_DIM as u64 * 2;
            let read = counts.per_allocation.values().map(|allocation| allocation.load_sectors * 32).max();
            assert_eq!(read, Some(cache), "{what}");
            assert!(counts.global_loads.bytes * 4 <= cache * 5, "{what}: {:?}", counts.global_loads);
            assert!(counts.global_loads.full_fraction() >= 0.98, "{what}: {:?}", counts.global_loads);
            assert_no_waste(&counts, &what);
        }
    }
}

#[test]
fn prefill_reads_a_tile_of_the_cache_for_each_tile_of_rows() {
    let step = Step::of(&[sequence(128, 64, &[2, 0, 1])]);
    for sm in Sm::ALL {
        let counts = counts(&Backend::Sim(sm, Phase::Prefill), attention(4, 2, 3, 128), &step);
        // The first 64 rows of each head see two pages, the others three.
        let tile = 64 * HEAD_DIM as u64 * 2;
        let (cache, queries) = (4 * (2 + 3) * 2 * tile, 4 * 2 * tile);
        // Warpgroups have all of it copied in boxes, queries too.
        let copied = if sm == Sm::Sm90 { (0, cache + queries) } else { (cache, 0) };
        assert_eq!((counts.copy_bytes, counts.bulk_bytes), copied);
        assert_eq!(counts.global_copies.full_fraction(), 1.0);
        assert_eq!(counts.global_stores.full_fraction(), 1.0);
        assert_no_waste(&counts, sm.name());
    }
}

/// Which heads are a matter of warpgroups, and that they have whole pages copied where there are pages, and nothing else.
#[test]
fn boxes_are_of_pages_that_exist() {
    let step = Step::of(&[sequence(3, 62, &[2, 0]), sequence(2, 0, &[-1])]);
    for (sm, head_dim, boxes) in
        [(Sm::Sm90, 64, true), (Sm::Sm90, 128, true), (Sm::Sm90, 80, false), (Sm::Sm86, 128, false)]
    {
        let mut random = Random::new(46);
        let operands = vec![
            Given::rows(random.tensor(&[5, 2 * head_dim], -4.0, 4.0), BF16, Symbol::T),
            Given::State {
                tensor: random.tensor(&[3, 2, 1, 64, head_dim], -1.0, 1.0),
                dtype: BF16,
                units: Symbol::N,
            },
        ];
        let case = Case { op: "paged_attention", attrs: vec![1.0.into(), 0.into(), BF16.into()], operands };
        let counts = counts(&Backend::Sim(sm, Phase::Prefill), case, &step);
        // Keys and values of two pages for each of two heads, and queries: five rows from the first on, two from the fourth.
        let (page, row) = (64 * head_dim as u64 * 2, head_dim as u64 * 2);
        let copied = if boxes { 2 * 2 * 2 * page + 2 * (5 + 2) * row } else { 0 };
        assert_eq!(counts.bulk_bytes, copied, "heads of {head_dim} on {}", sm.name());
        assert_eq!(counts.copy_bytes == 0, boxes, "heads of {head_dim} on {}", sm.name());
        assert_no_waste(&counts, sm.name());
    }
}

#[test]
fn keys_are_rotated_and_stored_in_whole_sectors() {
    let table = RopeTable { theta: 500_000.0, head_dim: HEAD_DIM as u64, positions: 80, scaling: None };
    let step = Step::of(&[sequence(1, 70, &[0, 1])]);
    let mut random = Random::new(45);
    let mut rows = || Given::rows(random.tensor(&[1, 8 * HEAD_DIM], -1.0, 1.0), BF16, Symbol::T);
    let cache =
        Given::State { tensor: Tensor::zeros([2, 2, 8, 64, HEAD_DIM]), dtype: BF16, units: Symbol::N };
    let append = vec![rows(), rows(), Given::Table(table), cache];
    let rope = vec![rows(), Given::Table(table)];
    for (op, operands, stored) in [("rope_kv_append", append, 4096), ("rope", rope, 2048)] {
        for sm in Sm::ALL {
            let case = Case { op, attrs: vec![BF16.into()], operands: operands.clone() };
            let counts = counts(&Backend::Sim(sm, Phase::Decode), case, &step);
            assert_eq!(counts.global_stores.bytes, stored, "{op}");
            assert_eq!(counts.global_stores.full_fraction(), 1.0, "{op}");
            assert_eq!(counts.global_loads.sectors, counts.global_loads.ideal_sectors, "{op}");
        }
    }
}
