//! Tensor copies: boxes of one to five dimensions, swizzles, and what lies outside.

use super::data::{Random, case, output, words};
use super::{Case, Comparison, Param, Target};
use crate::tensor::swizzle::Swizzle;
use crate::tensor::tma_map::{DataType, OobFill, TensorSpec};

const COPY: (&str, &str, Target) = ("tensor_copy.ptx", include_str!("ptx/tensor_copy.ptx"), Target::Sm90);
const TILE: usize = 8192;

const LOADS: [&str; 5] =
    ["tensor_load_1d", "tensor_load_2d", "tensor_load_3d", "tensor_load_4d", "tensor_load_5d"];

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (index, swizzle) in Swizzle::ALL.into_iter().enumerate() {
        let spec = matrix(swizzle);
        let name = ["none", "32b", "64b", "128b"][index];
        all.push(load(&format!("tensor_load_2d_{name}"), spec, &[8, 3]));
        all.push(load(&format!("tensor_load_2d_{name}_first_corner"), spec, &[-5, -3]));
        all.push(load(&format!("tensor_load_2d_{name}_last_corner"), spec, &[50, 30]));
        all.push(store(&format!("tensor_store_2d_{name}"), spec, &[8, 3]));
        all.push(store(&format!("tensor_store_2d_{name}_first_corner"), spec, &[-5, -3]));
        all.push(store(&format!("tensor_store_2d_{name}_last_corner"), spec, &[50, 30]));
    }
    all.push(load("tensor_load_1d", line(), &[100]));
    all.push(load("tensor_load_1d_outside", line(), &[-200]));
    all.push(load("tensor_load_3d_strided", cube(), &[0, -1, 2]));
    all.push(load("tensor_load_4d", deep(4), &[4, 1, -1, 2]));
    all.push(load("tensor_load_5d", deep(5), &[-4, 1, 1, 0, -1]));
    all
}

/// 72 x 40 bf16 with rows of 160 bytes, in boxes of 16 rows as wide as the swizzle.
fn matrix(swizzle: Swizzle) -> TensorSpec {
    let columns = if swizzle == Swizzle::None { 40 } else { swizzle.span() / 2 };
    TensorSpec {
        dtype: DataType::Bf16,
        rank: 2,
        address: 256,
        dims: [72, 40, 1, 1, 1],
        strides: [160, 0, 0, 0],
        box_dims: [columns, 16, 1, 1, 1],
        element_strides: [1; 5],
        swizzle,
        fill: OobFill::Zero,
    }
}

fn line() -> TensorSpec {
    TensorSpec {
        dtype: DataType::U8,
        rank: 1,
        dims: [300, 1, 1, 1, 1],
        box_dims: [256, 1, 1, 1, 1],
        ..matrix(Swizzle::None)
    }
}

/// Every second row and every third plane.
fn cube() -> TensorSpec {
    TensorSpec {
        dtype: DataType::F32,
        rank: 3,
        dims: [20, 9, 10, 1, 1],
        strides: [80, 720, 0, 0],
        box_dims: [16, 7, 5, 1, 1],
        element_strides: [1, 2, 3, 1, 1],
        swizzle: Swizzle::B64,
        ..matrix(Swizzle::None)
    }
}

fn deep(rank: usize) -> TensorSpec {
    TensorSpec {
        dtype: DataType::U32,
        rank,
        dims: [12, 3, 4, 5, 2],
        strides: [48, 144, 576, 2880],
        box_dims: [8, 2, 3, 4, 2],
        swizzle: Swizzle::B32,
        ..matrix(Swizzle::None)
    }
}

/// Visits the elements of a box: offset in the tensor's memory, or none outside, and offset in the tile.
fn elements(spec: &TensorSpec, corner: &[i32], mut visit: impl FnMut(Option<usize>, usize)) -> usize {
    let size = spec.dtype.bytes() as usize;
    let extent = |i: usize| spec.box_dims[i].div_ceil(spec.element_strides[i]);
    let count = (0..spec.rank).map(extent).product::<u32>();
    for index in 0..count {
        let (mut rest, mut offset, mut inside) = (index, spec.address as i64, true);
        for (i, &first) in corner.iter().enumerate() {
            let at = i64::from(first) + i64::from(rest % extent(i) * spec.element_strides[i]);
            rest /= extent(i);
            inside &= at >= 0 && at < spec.dims[i] as i64;
            offset += at * if i == 0 { size as i64 } else { spec.strides[i - 1] as i64 };
        }
        visit(inside.then_some(offset as usize), swizzled(spec.swizzle, index as usize * size));
    }
    count as usize * size
}

/// Lines of 128 bytes are rows of eight chunks; the row, or as many of its lowest bits as the swizzle has
/// chunks, is added to the column without carry.
fn swizzled(swizzle: Swizzle, offset: usize) -> usize {
    let (row, column, within) = (offset / 128, offset / 16 % 8, offset % 16);
    let moved = column ^ (row % (swizzle.span() as usize / 16));
    128 * row + 16 * moved + within
}

/// Memory that holds the tensor, random.
fn memory(spec: &TensorSpec, seed: u64) -> Vec<u8> {
    let row = spec.dims[0] * u64::from(spec.dtype.bytes());
    let last: u64 = (1..spec.rank).map(|i| (spec.dims[i] - 1) * spec.strides[i - 1]).sum();
    Random(seed).bytes((spec.address + row + last).next_multiple_of(16) as usize)
}

fn load(name: &str, spec: TensorSpec, corner: &[i32]) -> Case {
    let memory = memory(&spec, 800);
    let size = spec.dtype.bytes() as usize;
    let mut tile = vec![0xee; TILE];
    let bytes = elements(&spec, corner, |from, to| match from {
        Some(from) => tile[to..to + size].copy_from_slice(&memory[from..from + size]),
        None => tile[to..to + size].fill(0),
    });
    let params = vec![
        Param::Tensor { buffer: 4, spec },
        Param::Input(words(corner.iter().map(|&at| at as u32))),
        output(tile),
        Param::Value((bytes as u32).to_le_bytes().to_vec()),
        Param::Input(memory),
    ];
    case(name, COPY, LOADS[spec.rank - 1], 128, params)
}

fn store(name: &str, spec: TensorSpec, corner: &[i32]) -> Case {
    let initial = memory(&spec, 801);
    let tile = Random(802).bytes(TILE);
    let size = spec.dtype.bytes() as usize;
    let mut expected = initial.clone();
    elements(&spec, corner, |to, from| {
        if let Some(to) = to {
            expected[to..to + size].copy_from_slice(&tile[from..from + size]);
        }
    });
    let params = vec![
        Param::Tensor { buffer: 3, spec },
        Param::Input(words(corner.iter().map(|&at| at as u32))),
        Param::Input(tile),
        Param::Output { initial, expected, comparison: Comparison::Exact },
    ];
    case(name, COPY, "tensor_store_2d", 128, params)
}
