use std::convert::Infallible;

use half::bf16;
use ptx_sim::tensor::Lanes;
use ptx_sim::tensor::float::Half;
use ptx_sim::tensor::ldmatrix::{Count, Order, ldmatrix, phases, stmatrix};
use ptx_sim::tensor::mma::{MmaKind, mma};

use crate::{Random, product, random_matrix};

fn at(memory: &[u8], address: u32) -> Result<[u8; 16], Infallible> {
    let start = address as usize;
    Ok(memory[start..start + 16].try_into().expect("16 bytes"))
}

/// Row addresses that jump about.
fn scattered() -> [u32; 32] {
    std::array::from_fn(|row| ((row * 13 + 5) % 32) as u32 * 16)
}

#[test]
fn a_lane_gets_the_elements_that_the_isa_names() {
    // Element (matrix, row, column) holds 64 matrix + 8 row + column.
    let rows = scattered();
    let mut memory = vec![0u8; 512];
    for (index, &address) in rows.iter().enumerate() {
        for column in 0..8 {
            let place = address as usize + 2 * column;
            memory[place..place + 2].copy_from_slice(&((8 * index + column) as u16).to_le_bytes());
        }
    }
    for count in [Count::X1, Count::X2, Count::X4] {
        for order in [Order::Plain, Order::Transposed] {
            let Ok(found) = ldmatrix(count, order, &rows, |address| at(&memory, address));
            for (matrix, lanes) in found.iter().enumerate() {
                for (lane, &bits) in lanes.iter().enumerate() {
                    let (major, minor) = (lane as u32 / 4, 2 * (lane as u32 % 4));
                    let base = 64 * matrix as u32;
                    let expected = match order {
                        _ if matrix >= count.matrices() => 0,
                        Order::Plain => (base + 8 * major + minor + 1) << 16 | (base + 8 * major + minor),
                        Order::Transposed => {
                            (base + 8 * (minor + 1) + major) << 16 | (base + 8 * minor + major)
                        }
                    };
                    assert_eq!(bits, expected, "{count:?} {order:?} matrix {matrix} lane {lane}");
                }
            }
        }
    }
}

#[test]
fn storing_is_the_reverse_of_loading() {
    let mut random = Random(20);
    let rows = scattered();
    for order in [Order::Plain, Order::Transposed] {
        let fragments: [Lanes; 4] = std::array::from_fn(|_| std::array::from_fn(|_| random.next() as u32));
        let mut memory = vec![0u8; 512];
        let Ok(()) = stmatrix(Count::X4, order, &rows, &fragments, |address, bytes| {
            memory[address as usize..][..16].copy_from_slice(&bytes);
            Ok::<_, Infallible>(())
        });
        let Ok(found) = ldmatrix(Count::X4, order, &rows, |address| at(&memory, address));
        assert_eq!(found, fragments);
    }
}

#[test]
fn only_the_lanes_of_the_count_are_addresses() {
    let rows = scattered();
    let phases: Vec<_> = phases(Count::X2, &rows).collect();
    assert_eq!(phases, [&rows[..8], &rows[8..16]]);
    let failed =
        ldmatrix(
            Count::X1,
            Order::Plain,
            &rows,
            |address| {
                if address == rows[3] { Err(address) } else { Ok([0; 16]) }
            },
        );
    assert_eq!(failed, Err(rows[3]));
}

/// A 16x16 by 16x8 product whose operands come through `ldmatrix`, as kernels write it.
#[test]
fn loaded_fragments_multiply_as_matrices() {
    let mut random = Random(21);
    let (a, b) = (random_matrix(&mut random, 16, 16), random_matrix(&mut random, 16, 8));
    let bits = |value: f32| bf16::from_f32(value).to_bits().to_le_bytes();
    let a_memory: Vec<u8> = a.iter().flatten().flat_map(|&value| bits(value)).collect();
    let b_rows: Vec<u8> = b.iter().flatten().flat_map(|&value| bits(value)).collect();
    let b_columns: Vec<u8> = (0..8).flat_map(|j| b.iter().flat_map(move |row| bits(row[j]))).collect();

    let a_addresses = std::array::from_fn(|lane| (lane as u32 % 16) * 32 + (lane as u32 / 16) * 16);
    let Ok(a_lanes) = ldmatrix(Count::X4, Order::Plain, &a_addresses, |address| at(&a_memory, address));
    // Rows of k, transposed on the way.
    let by_row = std::array::from_fn(|lane| lane as u32 % 16 * 16);
    let Ok(from_rows) = ldmatrix(Count::X2, Order::Transposed, &by_row, |address| at(&b_rows, address));
    // Columns, as they are.
    let by_column = std::array::from_fn(|lane| (lane as u32 % 8) * 32 + (lane as u32 / 8 % 2) * 16);
    let Ok(from_columns) = ldmatrix(Count::X2, Order::Plain, &by_column, |address| at(&b_columns, address));
    assert_eq!(from_rows, from_columns);

    let sums = mma(MmaKind::HalfK16(Half::Bf16), &a_lanes, &from_rows, &[[0; 32]; 4]);
    let expected = product(&a, &b);
    for (lane, row, column) in (0..32).flat_map(|lane| [(lane, lane / 4, 2 * (lane % 4))]) {
        let found = [0, 1, 2, 3].map(|register: usize| f32::from_bits(sums[register][lane]));
        let (upper, lower) = (&expected[row], &expected[row + 8]);
        assert_eq!(found, [upper[column], upper[column + 1], lower[column], lower[column + 1]]);
    }
}
