//! Tensors of the interpreter: row-major, real or integer, with every extent known.

use half::{bf16, f16};

use crate::types::Dtype;

/// A tensor with resolved extents.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Real numbers, whatever float dtype the type declares.
    Real(Vec<f64>),
    /// Ids, positions, table entries; unsigned words by their bits.
    Int(Vec<i32>),
}

impl Tensor {
    /// A real tensor.
    ///
    /// # Panics
    /// When `data` has not the length that `shape` says: a mistake of the caller, never of a file.
    pub fn real(shape: impl Into<Vec<usize>>, data: Vec<f64>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of a tensor {shape:?}");
        Self { shape, data: Data::Real(data) }
    }

    /// An integer tensor.
    ///
    /// # Panics
    /// As [`Tensor::real`].
    pub fn int(shape: impl Into<Vec<usize>>, data: Vec<i32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of a tensor {shape:?}");
        Self { shape, data: Data::Int(data) }
    }

    /// A real tensor of zeros.
    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let data = Data::Real(vec![0.0; shape.iter().product()]);
        Self { shape, data }
    }

    /// A real tensor from f32 values.
    ///
    /// # Panics
    /// As [`Tensor::real`].
    pub fn from_f32(shape: impl Into<Vec<usize>>, data: &[f32]) -> Self {
        Self::real(shape, data.iter().copied().map(f64::from).collect())
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements of a real tensor.
    pub fn as_real(&self) -> Option<&[f64]> {
        match &self.data {
            Data::Real(data) => Some(data),
            Data::Int(_) => None,
        }
    }

    /// The elements of a real tensor, to change.
    pub fn as_real_mut(&mut self) -> Option<&mut [f64]> {
        match &mut self.data {
            Data::Real(data) => Some(data),
            Data::Int(_) => None,
        }
    }

    /// The elements of an integer tensor.
    pub fn as_int(&self) -> Option<&[i32]> {
        match &self.data {
            Data::Real(_) => None,
            Data::Int(data) => Some(data),
        }
    }

    /// The elements as f32; integers are converted.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::Real(data) => data.iter().map(|x| *x as f32).collect(),
            Data::Int(data) => data.iter().map(|n| *n as f32).collect(),
        }
    }

    /// The tensor with every real element rounded to a float dtype.
    ///
    /// The 16-bit types are reached through f32, as every kernel reaches them from its accumulator.
    #[must_use]
    pub fn rounded(mut self, dtype: Dtype) -> Self {
        let round: fn(f64) -> f64 = match dtype {
            Dtype::F32 => |x| f64::from(x as f32),
            Dtype::Bf16 => |x| f64::from(bf16::from_f32(x as f32)),
            Dtype::F16 => |x| f64::from(f16::from_f32(x as f32)),
            Dtype::I32 | Dtype::U8 => return self,
        };
        if let Data::Real(data) = &mut self.data {
            data.iter_mut().for_each(|x| *x = round(*x));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        // bf16 has 8 significant bits: 1 + 1/256 is half-way between 1 and 1 + 1/128.
        let x = Tensor::real([3], vec![1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, 1.0 / 3.0]);
        assert_eq!(
            x.clone().rounded(Dtype::Bf16).as_real().unwrap(),
            [1.0, 1.0 + 4.0 / 256.0, 0.333_984_375]
        );
        assert_eq!(x.rounded(Dtype::F32).as_real().unwrap()[2], f64::from(1.0f32 / 3.0));
    }

    #[test]
    #[should_panic(expected = "elements of a tensor [2]")]
    fn refuses_a_wrong_length() {
        let _ = Tensor::real([2], vec![0.0]);
    }
}
