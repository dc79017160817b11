//! Element types, symbolic dimensions and tensor types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The type of one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE binary32.
    F32,
    /// The upper half of a binary32, rounded to nearest even.
    Bf16,
    /// IEEE binary16.
    F16,
    /// 32-bit signed integer: token ids, positions, table entries.
    I32,
    /// Byte.
    U8,
}

impl Dtype {
    /// Every dtype, in the order in which messages list them.
    pub const ALL: [Self; 5] = [Self::F32, Self::Bf16, Self::F16, Self::I32, Self::U8];

    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 => 1,
        }
    }

    /// The spelling used in text forms and manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::I32 => "i32",
            Self::U8 => "u8",
        }
    }

    /// Whether values of this type are real numbers (as opposed to indices or bytes).
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16 | Self::F16)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no dtype, symbol or type.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{found}` is not a {wanted}")]
pub struct UnknownWord {
    /// The word as written.
    pub found: String,
    /// What was expected in its place, with the legal spellings.
    pub wanted: &'static str,
}

impl FromStr for Dtype {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|dtype| dtype.name() == word)
            .ok_or_else(|| UnknownWord { found: word.to_owned(), wanted: "dtype (f32, bf16, f16, i32, u8)" })
    }
}

/// A quantity known only when a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Symbol {
    /// Tokens in this step.
    T,
    /// Sequences in this step.
    R,
    /// Rows of this step that want logits.
    L,
    /// KV pages per sequence in the block table.
    P,
    /// Sequence slots that the engine holds (SSM and conv state).
    S,
    /// KV pages that the engine holds.
    N,
}

impl Symbol {
    /// Every symbol, in declaration order.
    pub const ALL: [Self; 6] = [Self::T, Self::R, Self::L, Self::P, Self::S, Self::N];

    /// The one-letter spelling.
    pub const fn name(self) -> &'static str {
        match self {
            Self::T => "T",
            Self::R => "R",
            Self::L => "L",
            Self::P => "P",
            Self::S => "S",
            Self::N => "N",
        }
    }
}

impl FromStr for Symbol {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.into_iter().find(|symbol| symbol.name() == word).ok_or_else(|| UnknownWord {
            found: word.to_owned(),
            wanted: "dimension symbol (T, R, L, P, S, N)",
        })
    }
}

/// One dimension: a number, or a multiple of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dim {
    /// A compile-time constant.
    Const(u64),
    /// `factor * symbol`.
    Symbolic {
        /// Multiplier, at least 1.
        factor: u64,
        /// The run-time quantity.
        symbol: Symbol,
    },
}

impl Dim {
    /// The plain symbol, with factor 1.
    pub const fn symbol(symbol: Symbol) -> Self {
        Self::Symbolic { factor: 1, symbol }
    }

    /// The number, where it is known at compile time.
    pub const fn constant(self) -> Option<u64> {
        match self {
            Self::Const(n) => Some(n),
            Self::Symbolic { .. } => None,
        }
    }

    /// The extent when each symbol has the value that `value` gives; the largest number where it would
    /// be larger, as in the sizes below, so that a hostile text cannot wrap them.
    pub fn resolve(self, value: impl Fn(Symbol) -> u64) -> u64 {
        match self {
            Self::Const(n) => n,
            Self::Symbolic { factor, symbol } => factor.saturating_mul(value(symbol)),
        }
    }
}

impl From<u64> for Dim {
    fn from(n: u64) -> Self {
        Self::Const(n)
    }
}

impl From<Symbol> for Dim {
    fn from(symbol: Symbol) -> Self {
        Self::symbol(symbol)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Const(n) => write!(f, "{n}"),
            Self::Symbolic { factor: 1, symbol } => f.write_str(symbol.name()),
            Self::Symbolic { factor, symbol } => write!(f, "{factor}{}", symbol.name()),
        }
    }
}

/// A tensor type, row-major: `dtype[dim,…]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Type {
    /// Element type.
    pub dtype: Dtype,
    /// Extents, outermost first.
    pub shape: Vec<Dim>,
}

impl Type {
    /// A tensor type from its parts.
    pub fn new(dtype: Dtype, shape: impl IntoIterator<Item = Dim>) -> Self {
        Self { dtype, shape: shape.into_iter().collect() }
    }

    /// The last (contiguous) extent, where it is a constant.
    pub fn width(&self) -> Option<u64> {
        self.shape.last().and_then(|dim| dim.constant())
    }

    /// Elements when each symbol has the value that `value` gives.
    pub fn elements(&self, value: impl Fn(Symbol) -> u64) -> u64 {
        self.shape.iter().fold(1, |product, dim| product.saturating_mul(dim.resolve(&value)))
    }

    /// Bytes when each symbol has the value that `value` gives.
    pub fn bytes(&self, value: impl Fn(Symbol) -> u64) -> u64 {
        self.elements(value).saturating_mul(self.dtype.bytes())
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (i, dim) in self.shape.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}
