//! Mamba-2: causal convolution, step sizes, and the state-space scan in both of its forms.

use super::args::{EvalArgs, EvalError, SequenceRows};
use super::ffn::silu;
use super::linear::dot;
use super::tensor::Tensor;

/// `causal_conv1d` of the op table.
pub fn causal_conv1d(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let (x, weight) = (args.matrix("x"), args.matrix("weight"));
    let bias = args.optional("bias").and_then(Tensor::as_real);
    let (channels, taps) = (x.width, weight.width);
    let mut states = SlotStates::new(args, "conv");
    let mut y = vec![0.0; x.data.len()];
    for sequence in args.slotted_sequences() {
        // The K-1 inputs before this step, then this step's: row t of the sequence sees rows t ..= t+K-1.
        let mut inputs = states.read(&sequence);
        inputs.extend(&x.data[sequence.rows.start * channels..sequence.rows.end * channels]);
        for (t, row) in sequence.rows.clone().enumerate() {
            for channel in 0..channels {
                let products =
                    (0..taps).map(|k| weight.row(channel)[k] * inputs[(t + k) * channels + channel]);
                let sum = products.sum::<f64>() + bias.map_or(0.0, |bias| bias[channel]);
                y[row * channels + channel] = silu(sum);
            }
        }
        let kept = inputs.len() - (taps - 1) * channels;
        states.write(&sequence, &inputs[kept..]);
    }
    Ok(vec![Tensor::real([x.rows, channels], y), states.finish()])
}

/// `dt_softplus` of the op table.
pub fn dt_softplus(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let dt = args.matrix("dt");
    let bias = args.real("bias");
    let (min, max) = (args.float("min"), args.float("max"));
    let y = dt.data.iter().enumerate().map(|(i, dt)| softplus(dt + bias[i % bias.len()]).clamp(min, max));
    Ok(vec![Tensor::real([dt.rows, dt.width], y.collect())])
}

/// `log(1 + exp(v))` without overflow, and without losing digits where `exp(v)` is small.
fn softplus(v: f64) -> f64 {
    v.max(0.0) + (-v.abs()).exp().ln_1p()
}

/// `ssd_recurrent` of the op table.
pub fn ssd_recurrent(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let scan = Scan::new(args);
    let mut states = SlotStates::new(args, "ssm");
    let mut y = vec![0.0; scan.x.len()];
    for sequence in args.slotted_sequences() {
        let mut state = states.read(&sequence);
        for row in sequence.rows.clone() {
            for head in 0..scan.heads {
                let (b, c) = (scan.group(scan.b, row, head), scan.group(scan.c, row, head));
                let dt = scan.dt(row, head);
                let decay = (scan.a[head] * dt).exp();
                for (p, x) in scan.x(row, head).iter().enumerate() {
                    let mut sum = 0.0;
                    for n in 0..scan.state {
                        let s = &mut state[scan.state_at(head, n, p)];
                        *s = decay * *s + dt * x * b[n];
                        sum += *s * c[n];
                    }
                    y[scan.at(row, head) + p] = sum + scan.d[head] * x;
                }
            }
        }
        states.write(&sequence, &state);
    }
    Ok(vec![Tensor::real(args.tensor("x").shape(), y), states.finish()])
}

/// `ssd_chunked` of the op table: section 6 of Dao & Gu, a chunk at a time.
pub fn ssd_chunked(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let scan = Scan::new(args);
    let chunk = args.int("chunk");
    let mut states = SlotStates::new(args, "ssm");
    let mut y = vec![0.0; scan.x.len()];
    for sequence in args.slotted_sequences() {
        let mut state = states.read(&sequence);
        let rows: Vec<_> = sequence.rows.clone().collect();
        for rows in rows.chunks(chunk) {
            for head in 0..scan.heads {
                chunk_of_head(&scan, rows, head, &mut state, &mut y);
            }
        }
        states.write(&sequence, &state);
    }
    Ok(vec![Tensor::real(args.tensor("x").shape(), y), states.finish()])
}

/// One chunk of one head: products inside the chunk, what the state before it adds, and the state after.
fn chunk_of_head(scan: &Scan<'_>, rows: &[usize], head: usize, state: &mut [f64], y: &mut [f64]) {
    // log_decay[i] is the log of the decay from before the chunk to after its row i.
    let mut sum = 0.0;
    let log_decay: Vec<f64> = rows
        .iter()
        .map(|row| {
            sum += scan.a[head] * scan.dt(*row, head);
            sum
        })
        .collect();
    // scores[i][j] = (c_i . b_j) times the decay from j to i, times dt_j; zero above the diagonal.
    let scores: Vec<Vec<f64>> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| {
            let c = scan.group(scan.c, *row, head);
            let earlier = rows[..=i].iter().enumerate();
            earlier
                .map(|(j, other)| {
                    let product = dot(c, scan.group(scan.b, *other, head));
                    product * (log_decay[i] - log_decay[j]).exp() * scan.dt(*other, head)
                })
                .collect()
        })
        .collect();
    for p in 0..scan.head_dim {
        for (i, row) in rows.iter().enumerate() {
            let inside: f64 =
                scores[i].iter().zip(rows).map(|(score, row)| score * scan.x(*row, head)[p]).sum();
            let c = scan.group(scan.c, *row, head);
            let before: f64 = (0..scan.state).map(|n| state[scan.state_at(head, n, p)] * c[n]).sum();
            let skip = scan.d[head] * scan.x(*row, head)[p];
            y[scan.at(*row, head) + p] = inside + log_decay[i].exp() * before + skip;
        }
    }
    for n in 0..scan.state {
        for p in 0..scan.head_dim {
            let added = rows.iter().zip(&log_decay).map(|(row, log)| {
                let input = scan.dt(*row, head) * scan.x(*row, head)[p] * scan.group(scan.b, *row, head)[n];
                (sum - log).exp() * input
            });
            let s = &mut state[scan.state_at(head, n, p)];
            *s = sum.exp() * *s + added.sum::<f64>();
        }
    }
}

/// The operands of a scan with their extents.
struct Scan<'a> {
    x: &'a [f64],
    dt: &'a [f64],
    b: &'a [f64],
    c: &'a [f64],
    /// `-exp(a_log)`.
    a: Vec<f64>,
    d: &'a [f64],
    heads: usize,
    head_dim: usize,
    groups: usize,
    state: usize,
}

impl<'a> Scan<'a> {
    fn new(args: &EvalArgs<'a>) -> Self {
        let (heads, groups) = (args.int("heads"), args.int("groups"));
        Self {
            x: args.real("x"),
            dt: args.real("dt"),
            b: args.real("b"),
            c: args.real("c"),
            a: args.real("a_log").iter().map(|a_log| -a_log.exp()).collect(),
            d: args.real("d"),
            heads,
            head_dim: args.matrix("x").width / heads,
            groups,
            state: args.matrix("b").width / groups,
        }
    }

    /// Offset of a head in x and y.
    fn at(&self, row: usize, head: usize) -> usize {
        (row * self.heads + head) * self.head_dim
    }

    fn x(&self, row: usize, head: usize) -> &'a [f64] {
        &self.x[self.at(row, head)..][..self.head_dim]
    }

    fn dt(&self, row: usize, head: usize) -> f64 {
        self.dt[row * self.heads + head]
    }

    /// The part of b or c that a head uses: consecutive heads share a group.
    fn group(&self, of: &'a [f64], row: usize, head: usize) -> &'a [f64] {
        let group = head / (self.heads / self.groups);
        &of[(row * self.groups + group) * self.state..][..self.state]
    }

    /// Offset in one slot's state `[heads, state, head_dim]`.
    fn state_at(&self, head: usize, n: usize, p: usize) -> usize {
        (head * self.state + n) * self.head_dim + p
    }
}

/// Slot state while an op runs: reads see the state before the op, writes go to its result.
struct SlotStates<'a> {
    before: &'a Tensor,
    old: &'a [f64],
    new: Vec<f64>,
    unit: usize,
}

impl<'a> SlotStates<'a> {
    fn new(args: &EvalArgs<'a>, name: &str) -> Self {
        let (before, old) = (args.tensor(name), args.real(name));
        let unit = before.shape()[1..].iter().product();
        Self { before, old, new: old.to_vec(), unit }
    }

    fn read(&self, sequence: &SequenceRows) -> Vec<f64> {
        match sequence.slot_in {
            Some(slot) => self.old[slot * self.unit..][..self.unit].to_vec(),
            None => vec![0.0; self.unit],
        }
    }

    fn write(&mut self, sequence: &SequenceRows, state: &[f64]) {
        if let Some(slot) = sequence.slot_out {
            self.new[slot * self.unit..][..self.unit].copy_from_slice(state);
        }
    }

    fn finish(self) -> Tensor {
        Tensor::real(self.before.shape(), self.new)
    }
}
