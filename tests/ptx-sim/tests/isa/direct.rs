//! The functions of `ptx_sim::tensor` called as the kernels call the instructions, without PTX in between: a
//! case that fails in the simulator alone is wrong there and not in them.

use std::convert::Infallible;

use ptx_sim::isa::{self, Case, Machine, Param};
use ptx_sim::tensor::Lanes;
use ptx_sim::tensor::float::Half;
use ptx_sim::tensor::ldmatrix::{Count, Order, ldmatrix, stmatrix};
use ptx_sim::tensor::mma::{Int8, MmaKind, mma};
use ptx_sim::tensor::tma::{CopyError, Source};
use ptx_sim::tensor::tma_map::TensorMap;
use ptx_sim::tensor::wgmma::{Columns, Descriptor, Left, Major, Operand, Sign, Wgmma, wgmma};

/// Where shared memory of a kernel begins: as far as alignment goes, anywhere.
const BASE: u32 = 4096;

struct Direct;

/// The kernel uses none of these instructions.
#[derive(Debug, PartialEq)]
struct NotHere;

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn lanes(bytes: &[u8]) -> Vec<Lanes> {
    words(bytes).as_chunks().0.to_vec()
}

fn bytes(registers: &[Lanes]) -> Vec<u8> {
    registers.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn input(case: &Case, index: usize) -> &[u8] {
    match &case.params[index] {
        Param::Input(bytes) | Param::Value(bytes) | Param::Output { initial: bytes, .. } => bytes,
        Param::Tensor { .. } => panic!("{}: parameter {index} is a tensor map", case.name),
    }
}

impl Machine for Direct {
    type Error = NotHere;

    fn run(&mut self, case: &Case) -> Result<Vec<Vec<u8>>, NotHere> {
        let output = match case.kernel.split('_').next() {
            Some("mma") => run_mma(case),
            Some("ldmatrix" | "stmatrix") => run_matrix(case),
            Some("tensor") => run_tensor(case),
            Some("wgmma") => run_wgmma(case),
            _ => return Err(NotHere),
        };
        Ok(vec![output])
    }
}

fn run_mma(case: &Case) -> Vec<u8> {
    let int = Int8 { a_signed: true, b_signed: true, saturate: false };
    let kind = match case.kernel {
        "mma_bf16_k8" => MmaKind::HalfK8(Half::Bf16),
        "mma_bf16_k16" => MmaKind::HalfK16(Half::Bf16),
        "mma_f16_k8" => MmaKind::HalfK8(Half::F16),
        "mma_f16_k16" => MmaKind::HalfK16(Half::F16),
        "mma_f16_acc_k16" => MmaKind::F16AccK16,
        "mma_tf32_k4" => MmaKind::Tf32K4,
        "mma_tf32_k8" => MmaKind::Tf32K8,
        "mma_s8_k16" => MmaKind::Int8K16(int),
        "mma_s8_k32" => MmaKind::Int8K32(int),
        "mma_u8_s8_k32" => MmaKind::Int8K32(Int8 { a_signed: false, ..int }),
        "mma_s8_satfinite_k32" => MmaKind::Int8K32(Int8 { saturate: true, ..int }),
        other => panic!("no product {other}"),
    };
    let [a, b, c] = [0, 1, 2].map(|index| lanes(input(case, index)));
    assert_eq!((a.len(), b.len(), c.len()), (kind.a_registers(), kind.b_registers(), kind.c_registers()));
    bytes(&mma(kind, &a, &b, &c)[..kind.c_registers()])
}

fn run_matrix(case: &Case) -> Vec<u8> {
    let count = match case.kernel {
        name if name.contains("x1") => Count::X1,
        name if name.contains("x2") => Count::X2,
        _ => Count::X4,
    };
    let order = if case.kernel.ends_with("trans") { Order::Transposed } else { Order::Plain };
    let rows: Lanes = lanes(input(case, 1))[0];
    if case.kernel.starts_with("ldmatrix") {
        let Ok(fragments) = ldmatrix(count, order, &rows, |address| at(input(case, 0), address));
        return bytes(&fragments[..count.matrices()]);
    }
    let mut memory = vec![0xff; 512];
    let Ok(()) = stmatrix(count, order, &rows, &lanes(input(case, 0)), |address, chunk| {
        memory[address as usize..][..16].copy_from_slice(&chunk);
        Ok::<_, Infallible>(())
    });
    memory
}

fn at(memory: &[u8], address: u32) -> Result<[u8; 16], Infallible> {
    Ok(memory[address as usize..][..16].try_into().expect("16 bytes"))
}

fn run_tensor(case: &Case) -> Vec<u8> {
    let Param::Tensor { buffer, spec } = &case.params[0] else { panic!("{}: no tensor map", case.name) };
    let map = TensorMap::new(*spec).expect("a legal map");
    let corner: Vec<i32> = words(input(case, 1)).into_iter().map(|word| word as i32).collect();
    let mut memory = input(case, *buffer).to_vec();
    if case.kernel.starts_with("tensor_store") {
        let tile = input(case, 2);
        map.store(&corner, BASE, |from, to, count| {
            let from = (from - BASE) as usize;
            memory[to as usize..][..count as usize].copy_from_slice(&tile[from..from + count as usize]);
            Ok::<_, CopyError>(())
        })
        .expect("a legal copy");
        return memory;
    }
    assert_eq!(words(input(case, 3)), [map.box_bytes()]);
    let mut tile = vec![0xee; 8192];
    map.load(&corner, BASE, |piece| {
        let target = &mut tile[(piece.shared - BASE) as usize..][..piece.bytes as usize];
        match piece.source {
            Source::Global(from) => target.copy_from_slice(&memory[from as usize..][..target.len()]),
            Source::Fill(fill) => {
                assert_eq!(fill, [0; 8]);
                target.fill(0);
            }
        }
        Ok::<_, CopyError>(())
    })
    .expect("a legal copy");
    tile
}

/// Registers of 128 threads as registers of warps, warp by warp.
fn by_warp(bytes: &[u8]) -> Vec<Lanes> {
    let registers = lanes(bytes);
    (0..4).flat_map(|warp| registers.iter().skip(warp).step_by(4).copied()).collect()
}

fn run_wgmma(case: &Case) -> Vec<u8> {
    let mut parts = case.kernel.split('_').skip(1);
    let n = parts.next().and_then(|n| n[1..].parse().ok()).expect("the columns");
    let (a_major, b_major, in_registers) = match parts.next() {
        Some("kn") => (Major::K, Major::Mn, false),
        Some("mk") => (Major::Mn, Major::K, false),
        Some("mn") => (Major::Mn, Major::Mn, false),
        Some("registers") => (Major::K, Major::Mn, true),
        _ => (Major::K, Major::K, false),
    };
    let operand = |index: usize, major| {
        let bits = u64::from_le_bytes(input(case, index).try_into().expect("8 bytes"));
        let relative = Descriptor::decode(bits).expect("a descriptor");
        Operand { descriptor: Descriptor { start: relative.start + BASE, ..relative }, major }
    };
    let registers = by_warp(input(case, 1));
    let op = Wgmma {
        half: if case.kernel.ends_with("f16") { Half::F16 } else { Half::Bf16 },
        columns: Columns::new(n).expect("a legal shape"),
        a: Left::Shared(operand(4, a_major)),
        b: operand(5, b_major),
        accumulate: words(input(case, 6)) == [1],
        a_sign: if case.kernel.ends_with("negated") { Sign::Minus } else { Sign::Plus },
        b_sign: Sign::Plus,
    };
    let mut d = by_warp(input(case, 2));
    let image = input(case, 0);
    let count = op.columns.registers();
    for (warp, accumulators) in d.chunks_exact_mut(count).enumerate() {
        let mut op = op;
        if in_registers {
            op.a = Left::Registers(&registers.as_chunks().0[warp]);
        }
        let Ok(()) = wgmma(&op, warp, accumulators, |address| at(image, address - BASE));
    }
    let by_register = (0..count).flat_map(|register| d.iter().skip(register).step_by(count).copied());
    bytes(&by_register.collect::<Vec<_>>())
}

#[test]
fn functions_give_the_bytes_of_the_cases() {
    let cases = isa::cases();
    let mut checked = 0;
    for case in &cases {
        if let Ok(outputs) = Direct.run(case) {
            case.compare(&outputs).unwrap_or_else(|mismatch| panic!("{mismatch}"));
            checked += 1;
        }
    }
    let other = ["narrow", "half_fma", "widen", "shuffles", "cp_async", "mbarrier_phases", "bulk_copy"];
    let votes = cases.iter().filter(|case| case.kernel == "votes").count();
    assert_eq!(checked, cases.len() - other.len() - votes);
}
