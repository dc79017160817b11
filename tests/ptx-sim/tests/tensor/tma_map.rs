use ptx_sim::tensor::swizzle::Swizzle;
use ptx_sim::tensor::tma_map::{DataType, MapError, OobFill, TensorMap, TensorSpec};

/// A legal map: 100 x 64 bf16, boxes of 64 x 8.
fn legal() -> TensorSpec {
    TensorSpec {
        dtype: DataType::Bf16,
        rank: 2,
        address: 0x1000,
        dims: [100, 64, 0, 0, 0],
        strides: [208, 0, 0, 0],
        box_dims: [64, 8, 0, 0, 0],
        element_strides: [1, 1, 0, 0, 0],
        swizzle: Swizzle::B128,
        fill: OobFill::Nan,
    }
}

#[test]
fn a_map_survives_its_bytes() {
    let map = TensorMap::new(legal()).expect("a legal map");
    assert_eq!(TensorMap::decode(&map.encode()), Ok(map));
    let wide = TensorSpec {
        dtype: DataType::U8,
        rank: 5,
        address: 1 << 46,
        dims: [1 << 32, 7, 8, 9, 10],
        strides: [1 << 32, 48, (1 << 40) - 16, 0],
        box_dims: [256, 256, 1, 2, 3],
        element_strides: [1, 8, 2, 3, 4],
        swizzle: Swizzle::None,
        fill: OobFill::Zero,
    };
    let map = TensorMap::new(wide).expect("a legal map");
    assert_eq!(map.spec(), &wide);
    assert_eq!(TensorMap::decode(&map.encode()), Ok(map));
}

#[test]
fn other_bytes_are_no_map() {
    let bytes = TensorMap::new(legal()).expect("a legal map").encode();
    assert_eq!(TensorMap::decode(&[0; 128]), Err(MapError::Garbage("the magic number")));
    for index in 0..128 {
        let mut broken = bytes;
        broken[index] ^= 0x10;
        assert!(matches!(TensorMap::decode(&broken), Err(MapError::Garbage(_))), "byte {index}");
    }
}

#[test]
fn the_checks_of_the_driver_are_made() {
    let reject = |change: fn(&mut TensorSpec)| {
        let mut spec = legal();
        change(&mut spec);
        TensorMap::new(spec).expect_err("an illegal map")
    };
    assert_eq!(reject(|spec| spec.rank = 0), MapError::Rank(0));
    assert_eq!(reject(|spec| spec.rank = 6), MapError::Rank(6));
    assert_eq!(reject(|spec| spec.address = 0x1008), MapError::Address(0x1008));
    assert_eq!(reject(|spec| spec.dims[1] = 0), MapError::Dim { index: 1, found: 0 });
    assert_eq!(reject(|spec| spec.dims[0] = (1 << 32) + 1), MapError::Dim { index: 0, found: (1 << 32) + 1 });
    assert_eq!(reject(|spec| spec.strides[0] = 200), MapError::Stride { index: 1, found: 200 });
    assert_eq!(reject(|spec| spec.strides[0] = 1 << 40), MapError::Stride { index: 1, found: 1 << 40 });
    assert_eq!(reject(|spec| spec.box_dims[1] = 257), MapError::Box { index: 1, found: 257 });
    assert_eq!(reject(|spec| spec.box_dims[0] = 0), MapError::Box { index: 0, found: 0 });
    assert_eq!(reject(|spec| spec.element_strides[1] = 9), MapError::ElementStride { index: 1, found: 9 });
    assert_eq!(reject(|spec| spec.element_strides[1] = 0), MapError::ElementStride { index: 1, found: 0 });
    assert_eq!(reject(|spec| spec.box_dims[0] = 60), MapError::InnerBytes(120));
    assert_eq!(reject(|spec| spec.box_dims[0] = 72), MapError::InnerBeyondSwizzle { span: 128, found: 144 });
    assert_eq!(reject(|spec| spec.box_dims[0] = 32), MapError::InnerBelowSwizzle { span: 128, found: 64 });
    assert_eq!(reject(|spec| spec.dtype = DataType::U16), MapError::NanFill);
}
