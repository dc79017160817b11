//! Laws of the ops with state, on drawn shapes and values.

use nemo_ir::interp::{Sequence, Step, Tensor};
use proptest::prelude::*;

use crate::support::{Tensors, block, close, noise, reals, run, tensors};

/// Extents of a drawn scan: heads are `groups * per_group`.
#[derive(Debug, Clone)]
struct ScanShape {
    groups: usize,
    per_group: usize,
    head_dim: usize,
    state: usize,
}

impl ScanShape {
    fn heads(&self) -> usize {
        self.groups * self.per_group
    }

    fn text(&self, form: &str, chunk: &str) -> String {
        let Self { groups, head_dim, state, .. } = self;
        let heads = self.heads();
        let (inner, bc, unit) = (heads * head_dim, groups * state, format!("{heads},{state},{head_dim}"));
        format!(
            "block scan(%x: f32[T,{inner}], %dt: f32[T,{heads}], %b: f32[T,{bc}], %c: f32[T,{bc}]) {{
                state &ssm: f32[S,{unit}]
                weight @a_log: f32[{heads}]
                weight @d: f32[{heads}]
                %0, &ssm.1 = {form}(%x, %dt, %b, %c, @a_log, @d, &ssm)
                    {{heads: {heads}, groups: {groups}{chunk}, dtype: f32}} : f32[T,{inner}], f32[S,{unit}]
                return y = %0
            }}"
        )
    }

    fn operands(&self, seed: u32, rows: usize) -> Tensors {
        let (heads, bc) = (self.heads(), self.groups * self.state);
        let dt = noise(seed + 1, &[rows, heads]);
        tensors([
            ("x", noise(seed, &[rows, heads * self.head_dim])),
            // Step sizes are positive.
            ("dt", Tensor::real([rows, heads], reals(&dt).iter().map(|x| x.exp()).collect())),
            ("b", noise(seed + 2, &[rows, bc])),
            ("c", noise(seed + 3, &[rows, bc])),
            ("a_log", noise(seed + 4, &[heads])),
            ("d", noise(seed + 5, &[heads])),
        ])
    }

    fn states(&self, seed: u32, slots: usize) -> Tensors {
        tensors([("ssm", noise(seed + 6, &[slots, self.heads(), self.state, self.head_dim]))])
    }
}

fn scan_shape() -> impl Strategy<Value = ScanShape> {
    (1..3usize, 1..4usize, 1..4usize, 1..5usize).prop_map(|(groups, per_group, head_dim, state)| ScanShape {
        groups,
        per_group,
        head_dim,
        state,
    })
}

/// A step of sequences of these lengths, each in its own slot; every other one starts from zeros.
fn ragged(lengths: &[usize]) -> Step {
    let sequences: Vec<_> = (0..)
        .zip(lengths)
        .map(|(slot, len)| Sequence {
            tokens: vec![0; *len],
            slot_in: if slot % 2 == 0 { slot } else { -1 },
            slot_out: slot,
            ..Sequence::default()
        })
        .collect();
    Step::of(&sequences)
}

/// One sequence in slot 0.
fn alone(tokens: usize) -> Step {
    ragged(&[tokens])
}

/// Rows `from .. to` of each tensor that has one row a token.
fn cut(given: &Tensors, per_token: &[&str], from: usize, to: usize) -> Tensors {
    let mut given = given.clone();
    for name in per_token {
        let tensor = &given[*name];
        let width = tensor.shape()[1];
        let rows = reals(tensor)[from * width..to * width].to_vec();
        given.insert((*name).to_owned(), Tensor::real([to - from, width], rows));
    }
    given
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_chunked_scan_is_the_recurrent_one(
        shape in scan_shape(),
        lengths in prop::collection::vec(0..12usize, 1..4),
        chunk in 1..6usize,
        seed in 0..1u32 << 30,
    ) {
        let given = shape.operands(seed, lengths.iter().sum());
        let step = ragged(&lengths);
        let mut states = [shape.states(seed, lengths.len()), shape.states(seed, lengths.len())];
        let [recurrent, chunked] = [("ssd_recurrent", String::new()), ("ssd_chunked", format!(", chunk: {chunk}"))]
            .map(|(form, chunk)| block(&shape.text(form, &chunk)));
        let a = run(&recurrent, &given, &mut states[0], &step);
        let b = run(&chunked, &given, &mut states[1], &step);
        close(&reals(&b["y"]), &reals(&a["y"]), 1e-9);
        close(&reals(&states[1]["ssm"]), &reals(&states[0]["ssm"]), 1e-9);
    }

    #[test]
    fn a_scan_in_two_steps_is_one(
        shape in scan_shape(),
        (rows, at) in (1..12usize).prop_flat_map(|rows| (Just(rows), 0..=rows)),
        chunk in prop::option::of(1..6usize),
        seed in 0..1u32 << 30,
    ) {
        let text = match chunk {
            Some(chunk) => shape.text("ssd_chunked", &format!(", chunk: {chunk}")),
            None => shape.text("ssd_recurrent", ""),
        };
        let given = shape.operands(seed, rows);
        in_two_steps(&text, &given, &["x", "dt", "b", "c"], &shape.states(seed, 1), rows, at);
    }

    #[test]
    fn a_convolution_in_two_steps_is_one(
        channels in 1..4usize,
        taps in 2..6usize,
        (rows, at) in (1..8usize).prop_flat_map(|rows| (Just(rows), 0..=rows)),
        seed in 0..1u32 << 30,
    ) {
        let kept = taps - 1;
        let text = format!(
            "block conv(%x: f32[T,{channels}]) {{
                state &conv: f32[S,{kept},{channels}]
                weight @w: f32[{channels},{taps}]
                weight @bias: f32[{channels}]
                %0, &conv.1 = causal_conv1d(%x, @w, @bias, &conv) {{dtype: f32}}
                    : f32[T,{channels}], f32[S,{kept},{channels}]
                return y = %0
            }}"
        );
        let given = tensors([
            ("x", noise(seed, &[rows, channels])),
            ("w", noise(seed + 1, &[channels, taps])),
            ("bias", noise(seed + 2, &[channels])),
        ]);
        let states = tensors([("conv", noise(seed + 3, &[1, kept, channels]))]);
        in_two_steps(&text, &given, &["x"], &states, rows, at);
    }

    #[test]
    fn paged_attention_is_attention(
        kv_heads in 1..3usize,
        per_kv in 1..3usize,
        head_dim in 1..4usize,
        (rows, at) in (60..140usize).prop_flat_map(|rows| (Just(rows), 50..=rows)),
        window in prop_oneof![Just(0usize), 1..100usize],
        pages in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        seed in 0..1u32 << 30,
    ) {
        let (q_width, kv_width) = (kv_heads * per_kv * head_dim, kv_heads * head_dim);
        let kv = format!("f32[N,2,{kv_heads},64,{head_dim}]");
        let text = format!(
            "block attend(%q: f32[T,{q_width}], %k: f32[T,{kv_width}], %v: f32[T,{kv_width}]) {{
                state &kv: {kv}
                &kv.1 = kv_append(%k, %v, &kv) : {kv}
                %0 = paged_attention(%q, &kv.1) {{scale: 0.7, window: {window}, dtype: f32}} : f32[T,{q_width}]
                return y = %0
            }}"
        );
        let block = block(&text);
        let given = tensors([
            ("q", noise(seed, &[rows, q_width])),
            ("k", noise(seed + 1, &[rows, kv_width])),
            ("v", noise(seed + 2, &[rows, kv_width])),
        ]);
        // What the pages held before must not matter: they start full of noise.
        let mut states = tensors([("kv", noise(seed + 3, &[4, 2, kv_heads, 64, head_dim]))]);
        let mut y = Vec::new();
        for (from, to) in [(0, at), (at, rows)] {
            let sequence = Sequence {
                tokens: vec![0; to - from],
                context: from as i32,
                pages: pages[..3].to_vec(),
                ..Sequence::default()
            };
            let given = cut(&given, &["q", "k", "v"], from, to);
            y.extend(reals(&run(&block, &given, &mut states, &Step::of(&[sequence]))["y"]));
        }
        close(&y, &naive_attention(&given, kv_heads, head_dim, window), 1e-12);
    }
}

/// Runs a block on all rows at once, and on the rows before and from `at` with the state carried over.
fn in_two_steps(text: &str, given: &Tensors, per_token: &[&str], states: &Tensors, rows: usize, at: usize) {
    let block = block(text);
    let mut whole_states = states.clone();
    let whole = run(&block, given, &mut whole_states, &alone(rows));
    let mut cut_states = states.clone();
    let mut y = Vec::new();
    for (from, to) in [(0, at), (at, rows)] {
        let given = cut(given, per_token, from, to);
        y.extend(reals(&run(&block, &given, &mut cut_states, &alone(to - from))["y"]));
    }
    close(&y, &reals(&whole["y"]), 1e-9);
    for (name, tensor) in &whole_states {
        close(&reals(&cut_states[name]), &reals(tensor), 1e-9);
    }
}

/// Attention of a whole sequence without a cache: exponentials, a sum, a quotient.
fn naive_attention(given: &Tensors, kv_heads: usize, head_dim: usize, window: usize) -> Vec<f64> {
    let [q, k, v] = ["q", "k", "v"].map(|name| reals(&given[name]));
    let [rows, q_width] = given["q"].shape() else { panic!("q is a matrix") };
    let heads = q_width / head_dim;
    let mut y = Vec::new();
    for row in 0..*rows {
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let at = |row: usize, d: usize| (row * kv_heads + kv_head) * head_dim + d;
            let seen = (0..=row).filter(|other| window == 0 || row - other < window);
            let weights: Vec<(usize, f64)> = seen
                .map(|other| {
                    let q = &q[row * q_width + head * head_dim..];
                    let score: f64 = (0..head_dim).map(|d| q[d] * k[at(other, d)]).sum();
                    (other, (0.7 * score).exp())
                })
                .collect();
            let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
            for d in 0..head_dim {
                y.push(weights.iter().map(|(other, weight)| weight * v[at(*other, d)]).sum::<f64>() / sum);
            }
        }
    }
    y
}
