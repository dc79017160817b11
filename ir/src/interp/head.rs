//! Where a step begins and ends: embedding, row selection, sampling.

use super::args::{EvalArgs, EvalError};
use super::sample::{Sampling, draw, uniform};
use super::tensor::Tensor;
use crate::step::NOT_A_NUMBER;

/// `embed` of the op table. A negative token id, which padded rows carry, gives a row of zeros.
///
/// # Errors
/// [`EvalError::Token`].
pub fn embed(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let table = args.matrix("table");
    let tokens = args.ints("tokens");
    let mut y = Vec::with_capacity(tokens.len() * table.width);
    for (row, token) in tokens.iter().enumerate() {
        match usize::try_from(*token) {
            Ok(id) if id < table.rows => y.extend(table.row(id)),
            Ok(_) => return Err(EvalError::Token { token: *token, row, vocab: table.rows }),
            Err(_) => y.extend(std::iter::repeat_n(0.0, table.width)),
        }
    }
    Ok(vec![Tensor::real([tokens.len(), table.width], y)])
}

/// `gather_rows` of the op table.
pub fn gather_rows(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let x = args.matrix("x");
    let rows = args.ints("rows");
    let y = rows.iter().flat_map(|row| x.row(*row as usize)).copied().collect();
    Ok(vec![Tensor::real([rows.len(), x.width], y)])
}

/// `sample` of the op table.
pub fn sample(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let token = |_: usize, row: &[f64], sampling: Sampling, u: f64| {
        if row.iter().any(|logit| logit.is_nan()) { NOT_A_NUMBER } else { draw(row, sampling, u) as i32 }
    };
    sampled(args, token)
}

/// `sample_tiled` of the op table: what the maxima say is believed.
pub fn sample_tiled(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let (maxima, tile) = (args.matrix("maxima"), args.int("tile"));
    let token = |l: usize, row: &[f64], sampling: Sampling, u: f64| {
        let maxima = maxima.row(l);
        if maxima.iter().any(|largest| largest.is_nan()) {
            return NOT_A_NUMBER;
        }
        if sampling.temperature > 0.0 {
            return draw(row, sampling, u) as i32;
        }
        let largest = maxima.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let first = maxima.iter().position(|maximum| *maximum == largest).unwrap_or(0) * tile;
        let columns = &row[first..row.len().min(first + tile)];
        (first + draw(columns, sampling, u)) as i32
    };
    sampled(args, token)
}

/// A token a sequence: the forced one, or what `token` makes of its last row of logits.
fn sampled(
    args: &EvalArgs<'_>,
    token: impl Fn(usize, &[f64], Sampling, f64) -> i32,
) -> Result<Vec<Tensor>, EvalError> {
    let logits = args.matrix("logits");
    let rows = args.ints("rows");
    let sequences = args.sequence_rows();
    let mut next = Vec::with_capacity(sequences.len());
    for (r, sequence) in sequences.iter().enumerate() {
        let forced = args.ints("forced")[r];
        let last = rows.iter().rposition(|row| sequence.contains(&(*row as usize)));
        next.push(match last {
            _ if forced >= 0 => forced,
            None => -1,
            Some(l) => {
                let sampling = Sampling {
                    temperature: args.real("temperature")[r],
                    top_k: usize::try_from(args.ints("top_k")[r]).unwrap_or(0),
                    top_p: args.real("top_p")[r],
                    min_p: args.real("min_p")[r],
                };
                let seed = &args.ints("seed")[2 * r..];
                let position = args.ints("positions")[rows[l] as usize] as u32;
                let u = uniform([seed[0] as u32, seed[1] as u32], position);
                token(l, logits.row(l), sampling, u)
            }
        });
    }
    Ok(vec![Tensor::int([sequences.len()], next)])
}

/// `tile_max` of the op table.
pub fn tile_max(args: &EvalArgs<'_>) -> Result<Vec<Tensor>, EvalError> {
    let (x, tile) = (args.matrix("x"), args.int("tile"));
    let larger = |a: f64, b: &f64| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(*b) };
    let maxima: Vec<f64> = (0..x.rows)
        .flat_map(|row| x.row(row).chunks(tile))
        .map(|columns| columns.iter().fold(f64::NEG_INFINITY, larger))
        .collect();
    Ok(vec![Tensor::real([x.rows, x.width.div_ceil(tile)], maxima)])
}
