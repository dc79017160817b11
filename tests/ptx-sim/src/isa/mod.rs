//! Small PTX kernels with the bytes that they must produce.
//!
//! A case says how a kernel is launched and what it leaves in memory by the rules of the PTX ISA. A [`Machine`]
//! runs it: the simulator of this crate, or a card through its driver. Expected bytes are computed here from the
//! layout formulas of the ISA by plain loops, not by running anything; only roundings of single numbers are
//! taken from [`crate::tensor::float`].

mod copies;
mod data;
pub mod dump;
mod matrix;
mod scalar;
mod tensor;
mod warp;
mod warpgroup;

use crate::tensor::tma_map::TensorSpec;

/// The least target that assembles and runs a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// Compute capability 8.0 and up.
    Sm80,
    /// Compute capability 9.0 and up.
    Sm90,
    /// Compute capability 9.0 alone.
    Sm90a,
}

/// How an output is compared.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Comparison {
    /// Byte by byte.
    Exact,
    /// As f32, each within this distance: sums whose order the ISA leaves open.
    Within(f32),
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// The address of memory with these bytes.
    Input(Vec<u8>),
    /// The address of memory that the kernel writes.
    Output {
        /// Its bytes before the launch.
        initial: Vec<u8>,
        /// Its bytes after the launch.
        expected: Vec<u8>,
        /// How they are compared.
        comparison: Comparison,
    },
    /// A tensor map by value. The address in `spec` counts from the start of parameter `buffer`.
    Tensor {
        /// Index of a parameter that is an input or an output.
        buffer: usize,
        /// What the map describes.
        spec: TensorSpec,
    },
    /// A number by value: 4 or 8 bytes, little-endian.
    Value(Vec<u8>),
}

/// A kernel, its launch and its results.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Unique name.
    pub name: String,
    /// File name of the module.
    pub file: &'static str,
    /// Text of the module.
    pub ptx: &'static str,
    /// Entry in it.
    pub kernel: &'static str,
    /// Least target.
    pub target: Target,
    /// CTAs along x.
    pub grid: u32,
    /// Threads of a CTA along x.
    pub block: u32,
    /// Parameters in order.
    pub params: Vec<Param>,
}

/// Something that runs kernels.
pub trait Machine {
    /// Why a run failed.
    type Error;

    /// Runs a case: memory of each parameter is allocated and filled, the kernel launched once, and the bytes
    /// of each output returned, in the order of parameters.
    fn run(&mut self, case: &Case) -> Result<Vec<Vec<u8>>, Self::Error>;
}

/// What differs between the outputs of a machine and those of a case.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// Too few or too many outputs.
    #[error("{case}: {expected} outputs expected, found {found}")]
    Outputs {
        /// Name of the case.
        case: String,
        /// Outputs of the case.
        expected: usize,
        /// Outputs of the machine.
        found: usize,
    },
    /// An output of another length.
    #[error("{case}: output {output} has {expected} bytes, found {found}")]
    Length {
        /// Name of the case.
        case: String,
        /// Which output.
        output: usize,
        /// Bytes of the case.
        expected: usize,
        /// Bytes of the machine.
        found: usize,
    },
    /// A word that differs.
    #[error(
        "{case}: output {output} differs in {count} words, first at byte {at}: {expected:#010x} expected, found {found:#010x}"
    )]
    Word {
        /// Name of the case.
        case: String,
        /// Which output.
        output: usize,
        /// How many words differ.
        count: usize,
        /// Offset of the first.
        at: usize,
        /// The word of the case.
        expected: u32,
        /// The word of the machine.
        found: u32,
    },
}

impl Case {
    /// The outputs: expected bytes and how they are compared.
    pub fn outputs(&self) -> impl Iterator<Item = (&[u8], Comparison)> {
        self.params.iter().filter_map(|param| match param {
            Param::Output { expected, comparison, .. } => Some((expected.as_slice(), *comparison)),
            _ => None,
        })
    }

    /// Compares the outputs of a machine.
    pub fn compare(&self, found: &[Vec<u8>]) -> Result<(), Mismatch> {
        let expected = self.outputs().count();
        if found.len() != expected {
            return Err(Mismatch::Outputs { case: self.name.clone(), expected, found: found.len() });
        }
        for (output, ((bytes, comparison), found)) in self.outputs().zip(found).enumerate() {
            if bytes.len() != found.len() {
                let (expected, found) = (bytes.len(), found.len());
                return Err(Mismatch::Length { case: self.name.clone(), output, expected, found });
            }
            let words = bytes.as_chunks().0.iter().zip(found.as_chunks().0);
            let differing: Vec<_> = words
                .map(|(expected, found)| (u32::from_le_bytes(*expected), u32::from_le_bytes(*found)))
                .enumerate()
                .filter(|(_, (expected, found))| !comparison.accepts(*expected, *found))
                .collect();
            if let Some((index, (expected, found))) = differing.first() {
                return Err(Mismatch::Word {
                    case: self.name.clone(),
                    output,
                    count: differing.len(),
                    at: 4 * index,
                    expected: *expected,
                    found: *found,
                });
            }
        }
        Ok(())
    }
}

impl Comparison {
    fn accepts(self, expected: u32, found: u32) -> bool {
        match self {
            Self::Exact => expected == found,
            Self::Within(distance) => (f32::from_bits(expected) - f32::from_bits(found)).abs() <= distance,
        }
    }
}

/// All cases. Outputs are whole words.
pub fn cases() -> Vec<Case> {
    let mut all = scalar::cases();
    all.extend(matrix::cases());
    all.extend(warp::cases());
    all.extend(copies::cases());
    all.extend(tensor::cases());
    all.extend(warpgroup::cases());
    all
}
