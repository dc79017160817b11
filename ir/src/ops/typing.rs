//! Helpers for the result rules of the op table.

use thiserror::Error;

use super::{Attr, Op, OperandKind};
use crate::types::{Dim, Dtype, Type};

/// Why operands or attributes do not fit an op.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TypeError {
    /// An operand's type is not what the op takes.
    #[error("`{op}` takes {wanted} as `{operand}`, found {found}")]
    Operand {
        /// Op name.
        op: &'static str,
        /// Operand name.
        operand: &'static str,
        /// Expected type.
        wanted: String,
        /// Found type.
        found: String,
    },
    /// The number of operands is wrong.
    #[error("`{op}` takes {wanted} operands, found {found}")]
    Arity {
        /// Op name.
        op: &'static str,
        /// Expected number, with the optional ones as a range.
        wanted: String,
        /// Found number.
        found: usize,
    },
    /// Attributes are missing, superfluous or of another kind.
    #[error("`{op}` takes the attributes {wanted}, found {found}")]
    Attrs {
        /// Op name.
        op: &'static str,
        /// Expected attributes.
        wanted: String,
        /// Found attributes.
        found: String,
    },
    /// An attribute's value is impossible.
    #[error("`{op}` needs `{attr}` to {wanted}, found {found}")]
    Attr {
        /// Op name.
        op: &'static str,
        /// Attribute name.
        attr: &'static str,
        /// What would be legal.
        wanted: String,
        /// The value.
        found: String,
    },
}

/// The operands (by type) and attributes of one op, as its result rule sees them.
#[derive(Debug, Clone)]
pub struct OpArgs<'a> {
    op: Op,
    /// One entry per operand of the table; `None` where an optional weight is absent.
    operands: Vec<Option<&'a Type>>,
    attrs: &'a [Attr],
}

impl<'a> OpArgs<'a> {
    /// Checks number and kind of attributes and the number of operands.
    ///
    /// # Errors
    /// [`TypeError::Arity`] and [`TypeError::Attrs`].
    pub fn new(op: Op, operands: &[&'a Type], attrs: &'a [Attr]) -> Result<Self, TypeError> {
        let operands = place_operands(op, operands)?;
        let kinds_match = op.attrs.len() == attrs.len()
            && op.attrs.iter().zip(attrs).all(|(spec, attr)| spec.kind == attr.kind());
        if !kinds_match {
            let names = op.attrs.iter().map(|spec| format!("{}: {:?}", spec.name, spec.kind));
            return Err(TypeError::Attrs {
                op: op.name,
                wanted: format!("{{{}}}", names.collect::<Vec<_>>().join(", ")),
                found: format!("{attrs:?}"),
            });
        }
        Ok(Self { op, operands, attrs })
    }

    /// The op.
    pub(super) fn op(&self) -> Op {
        self.op
    }

    /// Its attributes, in the table's order.
    pub(super) fn attrs(&self) -> &'a [Attr] {
        self.attrs
    }

    /// The type of an operand by its index in the table; `None` where it is optional and absent.
    pub(super) fn by_index(&self, index: usize) -> Option<&'a Type> {
        self.operands[index]
    }

    /// The type of operand `name`.
    ///
    /// # Panics
    /// When the op's entry declares no such operand, or it is optional and absent: a mistake in the table.
    pub fn ty(&self, name: &str) -> &'a Type {
        self.optional(name).expect("the table declares the operand as required")
    }

    /// The type of operand `name`, where it is present.
    ///
    /// # Panics
    /// When the op's entry declares no such operand.
    pub fn optional(&self, name: &str) -> Option<&'a Type> {
        let index = self.op.operands.iter().position(|operand| operand.name == name);
        self.operands[index.expect("the table declares the operand")]
    }

    fn attr(&self, name: &str) -> Attr {
        let index = self.op.attrs.iter().position(|spec| spec.name == name);
        self.attrs[index.expect("the table declares the attribute")]
    }

    /// An integer attribute.
    ///
    /// # Panics
    /// When the op's entry declares no such attribute.
    pub fn int(&self, name: &str) -> u64 {
        match self.attr(name) {
            Attr::Int(n) => n,
            other => unreachable!("kinds were checked: {other}"),
        }
    }

    /// A real attribute.
    ///
    /// # Panics
    /// When the op's entry declares no such attribute.
    pub fn float(&self, name: &str) -> f64 {
        match self.attr(name) {
            Attr::Float(x) => x,
            other => unreachable!("kinds were checked: {other}"),
        }
    }

    /// The attribute `dtype`.
    ///
    /// # Panics
    /// When the op's entry declares no such attribute.
    pub fn dtype(&self) -> Dtype {
        match self.attr("dtype") {
            Attr::Dtype(dtype) => dtype,
            other => unreachable!("kinds were checked: {other}"),
        }
    }

    /// Checks that operand `name` is an activation matrix `float[rows, width]` and gives both extents.
    ///
    /// # Errors
    /// [`TypeError::Operand`].
    pub fn matrix(&self, name: &'static str) -> Result<(Dim, u64), TypeError> {
        let ty = self.ty(name);
        match ty.shape[..] {
            [rows, Dim::Const(width)] if ty.dtype.is_float() && width > 0 => Ok((rows, width)),
            _ => Err(self.mismatch(name, "a float matrix [rows, width]")),
        }
    }

    /// Checks that operand `name` has exactly the type `wanted`.
    ///
    /// # Errors
    /// [`TypeError::Operand`].
    pub fn expect(&self, name: &'static str, wanted: &Type) -> Result<(), TypeError> {
        if self.ty(name) == wanted { Ok(()) } else { Err(self.mismatch(name, &wanted.to_string())) }
    }

    /// Checks that operand `name` is a float tensor of exactly this shape.
    ///
    /// # Errors
    /// [`TypeError::Operand`].
    pub fn expect_float(&self, name: &'static str, shape: &[Dim]) -> Result<(), TypeError> {
        let ty = self.ty(name);
        if ty.dtype.is_float() && ty.shape == shape {
            return Ok(());
        }
        let wanted = Type::new(Dtype::F32, shape.iter().copied()).to_string();
        Err(self.mismatch(name, &wanted.replacen("f32", "float", 1)))
    }

    /// The error that operand `name` should have been `wanted`.
    pub fn mismatch(&self, name: &'static str, wanted: &str) -> TypeError {
        TypeError::Operand {
            op: self.op.name,
            operand: name,
            wanted: wanted.to_owned(),
            found: self.optional(name).map_or_else(|| "nothing".to_owned(), ToString::to_string),
        }
    }

    /// Checks a condition on integer attribute `name`.
    ///
    /// # Errors
    /// [`TypeError::Attr`] with `wanted` when `holds` is false.
    pub fn require(
        &self,
        holds: bool,
        name: &'static str,
        wanted: impl Into<String>,
    ) -> Result<(), TypeError> {
        if holds {
            return Ok(());
        }
        Err(TypeError::Attr {
            op: self.op.name,
            attr: name,
            wanted: wanted.into(),
            found: self.attr(name).to_string(),
        })
    }
}

/// Aligns operands with the table's, leaving out optional weights when there are fewer.
fn place_operands<'a>(op: Op, operands: &[&'a Type]) -> Result<Vec<Option<&'a Type>>, TypeError> {
    let total = op.operands.len();
    let Some(places) = op.places(operands.len()) else {
        let optional = op.operands.iter().filter(|o| o.kind == OperandKind::OptionalWeight).count();
        let wanted =
            if optional == 0 { total.to_string() } else { format!("{} or {total}", total - optional) };
        return Err(TypeError::Arity { op: op.name, wanted, found: operands.len() });
    };
    let mut placed = vec![None; total];
    for (place, ty) in places.into_iter().zip(operands) {
        placed[place] = Some(*ty);
    }
    Ok(placed)
}
