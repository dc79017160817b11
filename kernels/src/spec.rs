//! What a generator is asked for: an op with the layouts of its operands and results.

use std::fmt;

use nemo_ir::ops::{Attr, Attrs, Op, OperandKind};
use nemo_ir::plan::Phase;
use nemo_ir::types::{Dtype, Type};

use crate::nvptx::Form;

/// How a tensor lies in memory: its type, the distance between its rows, and how well it is aligned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Element type and shape.
    pub ty: Type,
    /// Elements from one row to the next; the width, except in views of a wider tensor.
    pub row_stride: u64,
    /// Bytes that the first element's address is a multiple of: a power of two up to [`Layout::ALIGNED`]. CPU kernels
    /// rely on an element's own alignment only.
    pub align: u64,
}

impl Layout {
    /// The largest alignment that a kernel can make use of: the widest access of a GPU's thread.
    pub const ALIGNED: u64 = 16;

    /// The layout without gaps, aligned as an element is.
    pub fn dense(ty: Type) -> Self {
        let row_stride = ty.width().unwrap_or(1);
        let align = ty.dtype.bytes();
        Self { ty, row_stride, align }
    }

    /// With its first element at a multiple of so many bytes.
    pub fn aligned(self, bytes: u64) -> Self {
        Self { align: bytes.min(Self::ALIGNED), ..self }
    }

    /// Elements that one access can take from the start of any row, and from any multiple of as many: a power of two.
    pub fn vector(&self) -> u32 {
        let bytes = self.dtype().bytes();
        let rows = 1_u64 << (self.row_stride * bytes).trailing_zeros().min(4);
        let single = self.ty.shape.len() < 2;
        let fits = if single { self.align } else { self.align.min(rows) };
        (fits / bytes).max(1) as u32
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.ty.dtype
    }
}

/// One kernel: an op whose shapes are fixed but for `T`, `R`, `L` and `P`.
///
/// The kernel's arguments are pointers to the operands in order, an optional weight left out where it
/// is absent, then to those results that are not states: a state is updated in place, through its
/// operand. Two calls with equal specs can share a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelSpec {
    /// The op.
    pub op: Op,
    /// Its attributes.
    pub attrs: Attrs,
    /// Layouts of the operands that are present, in order.
    pub operands: Vec<Layout>,
    /// Layouts of the results that are not states, in order.
    pub results: Vec<Layout>,
    /// The steps that it is for, where its form depends on them: on a GPU. A CPU's kernels take every step.
    pub steps: Option<Steps>,
    /// The form of its kernel, where there are several and one was chosen: on a GPU.
    pub form: Option<Form>,
}

/// A range of steps, as one program of a plan serves them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Steps {
    /// Which program; in decode, T = R and row i belongs to sequence i.
    pub phase: Phase,
    /// Smallest T.
    pub min_tokens: u64,
    /// Largest T.
    pub max_tokens: u64,
    /// Largest R.
    pub max_seqs: u64,
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, min_tokens, max_tokens, max_seqs } = self;
        write!(f, "{} {min_tokens}..={max_tokens} of {max_seqs}", phase.name())
    }
}

impl KernelSpec {
    /// The operand's index among those present and its layout, by its name in the op table.
    ///
    /// # Panics
    /// When the op declares no such operand, or it is optional and absent: a mistake in a generator.
    pub fn operand(&self, name: &str) -> (usize, &Layout) {
        self.optional(name).expect("the op table declares the operand as required")
    }

    /// As [`KernelSpec::operand`], `None` where an optional weight is absent.
    ///
    /// # Panics
    /// When the op declares no such operand.
    pub fn optional(&self, name: &str) -> Option<(usize, &Layout)> {
        let all_present = self.operands.len() == self.op.operands.len();
        let mut index = 0;
        for operand in self.op.operands {
            let present = all_present || operand.kind != OperandKind::OptionalWeight;
            if operand.name == name {
                return present.then(|| (index, &self.operands[index]));
            }
            index += usize::from(present);
        }
        unreachable!("`{}` has no operand `{name}`", self.op.name)
    }

    /// The place among the operands present of the one at `index` in the op table; `None` where it is an
    /// optional weight and absent.
    pub fn present(&self, index: usize) -> Option<usize> {
        self.op.places(self.operands.len())?.iter().position(|place| *place == index)
    }

    fn attr(&self, name: &str) -> Attr {
        let index = self.op.attrs.iter().position(|spec| spec.name == name);
        self.attrs[index.expect("the op table declares the attribute")]
    }

    /// An integer attribute.
    ///
    /// # Panics
    /// When the op declares no such attribute of that kind.
    pub fn int(&self, name: &str) -> u64 {
        match self.attr(name) {
            Attr::Int(n) => n,
            other => unreachable!("`{}` of `{}` is {other}", name, self.op.name),
        }
    }

    /// A real attribute.
    ///
    /// # Panics
    /// When the op declares no such attribute of that kind.
    pub fn float(&self, name: &str) -> f64 {
        match self.attr(name) {
            Attr::Float(x) => x,
            other => unreachable!("`{}` of `{}` is {other}", name, self.op.name),
        }
    }
}

impl fmt::Display for KernelSpec {
    /// `linear bf16[T,4480] bf16[22656,4480] -> bf16[T,22656] {dtype: bf16}`; equal texts mean equal specs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.name)?;
        let layout = |layout: &Layout| {
            let dense = layout.ty.width().is_none_or(|width| width == layout.row_stride);
            let stride = if dense { String::new() } else { format!(" by {}", layout.row_stride) };
            let loose = self.steps.is_some() && layout.align < Layout::ALIGNED;
            let align = if loose { format!(" at {}", layout.align) } else { String::new() };
            format!("{}{stride}{align}", layout.ty)
        };
        for operand in &self.operands {
            write!(f, " {}", layout(operand))?;
        }
        f.write_str(" ->")?;
        for result in &self.results {
            write!(f, " {}", layout(result))?;
        }
        if !self.attrs.is_empty() {
            let attrs =
                self.op.attrs.iter().zip(&self.attrs).map(|(spec, attr)| format!("{}: {attr}", spec.name));
            write!(f, " {{{}}}", attrs.collect::<Vec<_>>().join(", "))?;
        }
        if let Some(steps) = &self.steps {
            write!(f, " for {steps}")?;
        }
        if let Some(form) = self.form.filter(|form| *form != Form::Sole) {
            write!(f, " by {form}")?;
        }
        Ok(())
    }
}
