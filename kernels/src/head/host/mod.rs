//! Embedding, row selection and sampling on the CPU.

mod philox;
mod rows;
mod sample;

use crate::host::Generator;

pub(crate) fn generator(op: &str) -> Option<Generator> {
    match op {
        "embed" => Some(rows::embed),
        "gather_rows" => Some(rows::gather_rows),
        "sample" => Some(sample::sample),
        _ => None,
    }
}
