//! Everything that is read from bits a program made: what was written is read back, other bits are an error or
//! stay what they are, and nothing panics.

use proptest::array::{uniform4, uniform5, uniform32};
use proptest::prelude::*;
use ptx_sim::tensor::swizzle::Swizzle;
use ptx_sim::tensor::tma::{CopyError, Source};
use ptx_sim::tensor::tma_map::{DataType, OobFill, TensorMap, TensorSpec};
use ptx_sim::tensor::wgmma::{Columns, Descriptor};

fn specs() -> impl Strategy<Value = TensorSpec> {
    let dtypes =
        prop::sample::select(vec![DataType::U8, DataType::F16, DataType::Bf16, DataType::F32, DataType::F64]);
    let swizzles = prop::sample::select(Swizzle::ALL.to_vec());
    let shape = (1usize..=5, 0u64..1 << 30, uniform5(1u64..300), uniform4(0u64..1 << 20), uniform5(1u32..6));
    (dtypes, swizzles, shape, uniform5(1u32..=8), 1u32..=8).prop_map(
        |(dtype, swizzle, (rank, address, dims, strides, boxes), element_strides, chunks)| {
            let row = if swizzle == Swizzle::None { 16 * chunks } else { swizzle.span() };
            let mut box_dims = boxes;
            box_dims[0] = row / dtype.bytes();
            TensorSpec {
                dtype,
                rank,
                address: 16 * address,
                dims,
                strides: strides.map(|stride| 16 * stride),
                box_dims,
                element_strides,
                swizzle,
                fill: OobFill::Zero,
            }
        },
    )
}

proptest! {
    #[test]
    fn tensor_maps_survive_their_bytes(spec in specs()) {
        let map = TensorMap::new(spec).expect("a legal map");
        prop_assert_eq!(TensorMap::decode(&map.encode()), Ok(map));
    }

    #[test]
    fn other_bytes_are_no_tensor_map(bytes in uniform4(uniform32(any::<u8>()))) {
        let bytes: [u8; 128] = bytes.as_flattened().try_into().expect("128 bytes");
        prop_assert!(TensorMap::decode(&bytes).is_err());
    }

    #[test]
    fn a_load_writes_each_byte_of_its_box_once(spec in specs(), corner in uniform5(-20i32..320)) {
        let map = TensorMap::new(spec).expect("a legal map");
        let mut hits = vec![0u8; map.box_bytes() as usize];
        let start = 2048;
        map.load(&corner[..spec.rank], start, |piece| {
            let from = (piece.shared - start) as usize;
            hits[from..from + piece.bytes as usize].iter_mut().for_each(|hit| *hit += 1);
            if let Source::Global(address) = piece.source {
                assert!(address >= spec.address, "a read in front of the tensor");
            }
            Ok::<_, CopyError>(())
        })
        .expect("a legal copy");
        prop_assert!(hits.iter().all(|&hit| hit == 1));
    }

    #[test]
    fn descriptors_survive_their_bits(bits in any::<u64>()) {
        if let Ok(descriptor) = Descriptor::decode(bits) {
            prop_assert_eq!(descriptor.encode(), bits);
        }
        let fields = bits & 0xc00e_3fff_3fff_3fff;
        let plain = if fields >> 62 == 0 { fields & !(7 << 49) } else { fields };
        prop_assert_eq!(Descriptor::decode(plain).map(Descriptor::encode), Ok(plain));
    }

    #[test]
    fn only_multiples_of_eight_are_columns(n in 0u32..600) {
        let legal = n.is_multiple_of(8) && (8..=256).contains(&n);
        prop_assert_eq!(Columns::new(n).map(|columns| columns.get() as u32), legal.then_some(n));
    }
}
