use ptx_sim::tensor::swizzle::Swizzle;
use ptx_sim::tensor::tma::{CopyError, Piece, Source};
use ptx_sim::tensor::tma_map::{DataType, OobFill, TensorMap, TensorSpec};

use crate::Random;

/// Where the programming guide puts a 16-byte chunk: lines of 128 bytes as a matrix of chunks whose column is
/// combined with the line, or with a half or a quarter of it.
fn guide(swizzle: Swizzle, address: usize) -> usize {
    let (line, column, within) = (address / 128, address / 16 % 8, address % 16);
    let moved = match swizzle {
        Swizzle::None => column,
        Swizzle::B128 => column ^ (line % 8),
        Swizzle::B64 => column ^ (line % 4),
        Swizzle::B32 => column ^ (line % 2),
    };
    line * 128 + moved * 16 + within
}

#[test]
fn swizzles_are_those_of_the_programming_guide() {
    for swizzle in Swizzle::ALL {
        for address in 0..8192 {
            assert_eq!(swizzle.apply(address) as usize, guide(swizzle, address as usize), "{swizzle:?}");
        }
        let repeat = swizzle.repeat();
        for address in 0..2048 {
            assert_eq!(swizzle.apply(address + repeat), swizzle.apply(address) + repeat, "{swizzle:?}");
            // A pattern that starts three lines late is the pattern, moved by three lines.
            assert_eq!(swizzle.apply_from(address + 384, 3), swizzle.apply(address) + 384, "{swizzle:?}");
        }
    }
}

const SHARED: usize = 384;

/// Shared memory after a load, element by element: coordinates, bounds and place by the rules of the ISA.
fn naive_load(spec: &TensorSpec, global: &[u8], coordinates: &[i32], shared: &mut [u8]) {
    let size = spec.dtype.bytes() as usize;
    let extents: Vec<u32> = (0..spec.rank)
        .map(|i| if i == 0 { spec.box_dims[0] } else { spec.box_dims[i].div_ceil(spec.element_strides[i]) })
        .collect();
    let total: u32 = extents.iter().product();
    for index in 0..total {
        let (mut rest, mut offset, mut inside) = (index, 0i64, true);
        for i in 0..spec.rank {
            let step = if i == 0 { 1 } else { spec.element_strides[i] };
            let place = i64::from(coordinates[i]) + i64::from(rest % extents[i] * step);
            rest /= extents[i];
            inside &= (0..spec.dims[i] as i64).contains(&place);
            offset += place * if i == 0 { size as i64 } else { spec.strides[i - 1] as i64 };
        }
        let target = guide(spec.swizzle, SHARED + index as usize * size);
        if inside {
            let source = (spec.address as i64 + offset) as usize;
            shared[target..target + size].copy_from_slice(&global[source..source + size]);
        } else if spec.fill == OobFill::Nan {
            shared[target..target + size].copy_from_slice(&spec.dtype.nan()[..size]);
        } else {
            shared[target..target + size].fill(0);
        }
    }
}

fn load(map: &TensorMap, global: &[u8], coordinates: &[i32], shared: &mut [u8]) {
    let size = map.spec().dtype.bytes() as usize;
    let mut bytes = 0;
    map.load(coordinates, SHARED as u32, |piece| {
        let target = &mut shared[piece.shared as usize..][..piece.bytes as usize];
        bytes += piece.bytes;
        match piece.source {
            Source::Global(address) => target.copy_from_slice(&global[address as usize..][..target.len()]),
            Source::Fill(fill) => {
                target.chunks_exact_mut(size).for_each(|part| part.copy_from_slice(&fill[..size]));
            }
        }
        Ok::<_, CopyError>(())
    })
    .expect("a legal copy");
    assert_eq!(bytes, map.box_bytes());
}

/// A map over `rank` small dimensions whose boxes reach over every edge.
fn random_spec(random: &mut Random, rank: usize) -> TensorSpec {
    let dtypes = [DataType::U8, DataType::Bf16, DataType::F32, DataType::I64];
    let dtype = dtypes[random.below(4) as usize];
    let swizzle = Swizzle::ALL[random.below(4) as usize];
    let row = if swizzle == Swizzle::None { 16 * (1 + random.below(5) as u32) } else { swizzle.span() };
    let mut spec = TensorSpec {
        dtype,
        rank,
        address: 64,
        dims: [1; 5],
        strides: [0; 4],
        box_dims: [row / dtype.bytes(), 1, 1, 1, 1],
        element_strides: [1; 5],
        swizzle,
        fill: if matches!(dtype, DataType::Bf16 | DataType::F32) { OobFill::Nan } else { OobFill::Zero },
    };
    spec.dims[0] = 1 + random.below(40);
    let mut stride = (spec.dims[0] * u64::from(dtype.bytes())).next_multiple_of(16) + 16 * random.below(2);
    for i in 1..rank {
        spec.dims[i] = 1 + random.below(6);
        spec.box_dims[i] = 1 + random.below(5) as u32;
        spec.element_strides[i] = 1 + random.below(3) as u32;
        spec.strides[i - 1] = stride;
        stride *= spec.dims[i];
    }
    spec
}

#[test]
fn loads_agree_with_copying_element_by_element() {
    let mut random = Random(40);
    for round in 0..600 {
        let spec = random_spec(&mut random, 1 + round % 5);
        let map = TensorMap::new(spec).expect("a legal map");
        let global: Vec<u8> =
            (0..1 << 20).map(|index: u32| (index.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
        let coordinates: Vec<i32> = (0..spec.rank)
            .map(|i| random.below(2 * spec.dims[i] + 8) as i32 - spec.dims[i] as i32 / 2 - 4)
            .collect();
        let (mut found, mut expected) = (vec![0xee; 1 << 19], vec![0xee; 1 << 19]);
        load(&map, &global, &coordinates, &mut found);
        naive_load(&spec, &global, &coordinates, &mut expected);
        assert!(found == expected, "{spec:?} at {coordinates:?}");
    }
}

#[test]
fn a_store_puts_back_what_a_load_took() {
    let mut random = Random(41);
    for round in 0..200 {
        let spec = random_spec(&mut random, 1 + round % 5);
        let map = TensorMap::new(spec).expect("a legal map");
        let mut global: Vec<u8> = (0..1 << 20).map(|_| random.next() as u8).collect();
        let coordinates: Vec<i32> = (0..spec.rank).map(|_| random.below(8) as i32 - 4).collect();
        let mut shared = vec![0; 1 << 19];
        load(&map, &global, &coordinates, &mut shared);
        let before = global.clone();
        let mut touched = 0;
        map.store(&coordinates, SHARED as u32, |from, to, bytes| {
            let target = &mut global[to as usize..][..bytes as usize];
            target.fill(0);
            target.copy_from_slice(&shared[from as usize..][..bytes as usize]);
            touched += bytes;
            Ok::<_, CopyError>(())
        })
        .expect("a legal copy");
        assert!(global == before, "{spec:?} at {coordinates:?}");
        assert!(touched <= map.box_bytes());
    }
}

#[test]
fn rows_without_swizzle_are_one_piece() {
    let spec = TensorSpec {
        dtype: DataType::F32,
        rank: 2,
        address: 0x100,
        dims: [10, 3, 1, 1, 1],
        strides: [48, 0, 0, 0],
        box_dims: [8, 2, 1, 1, 1],
        element_strides: [1; 5],
        swizzle: Swizzle::None,
        fill: OobFill::Nan,
    };
    let map = TensorMap::new(spec).expect("a legal map");
    let mut pieces = Vec::new();
    let mut collect = |piece| {
        pieces.push(piece);
        Ok::<_, CopyError>(())
    };
    map.load(&[6, 2], 0, &mut collect).expect("a legal copy");
    let nan = Source::Fill([0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
    assert_eq!(
        pieces,
        [
            Piece { shared: 0, source: Source::Global(0x100 + 96 + 24), bytes: 16 },
            Piece { shared: 16, source: nan, bytes: 16 },
            Piece { shared: 32, source: nan, bytes: 32 },
        ]
    );
}

#[test]
fn misuse_is_an_error() {
    let map = TensorMap::new(random_spec(&mut Random(42), 2)).expect("a legal map");
    let ignore = |_| Ok(());
    assert_eq!(map.load(&[0, 0], 64, ignore), Err(CopyError::SharedAlignment(64)));
    assert_eq!(map.load(&[0], 0, ignore), Err(CopyError::Rank { found: 1, expected: 2 }));
    let mut visits = 0;
    let stopped = map.load(&[0, 0], 0, |_| {
        visits += 1;
        Err(CopyError::SharedAlignment(9))
    });
    assert_eq!((stopped, visits), (Err(CopyError::SharedAlignment(9)), 1));
}
