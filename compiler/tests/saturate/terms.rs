//! Blocks become terms and blocks again.

use nemo_ir::plan::Phase;
use nemo_ir::verify::verify_block;
use nemoc::saturate::term::Terms;
use proptest::prelude::*;

use crate::{common, lowered, shipped};

#[test]
fn every_shipped_block_comes_back() {
    for phase in Phase::ALL {
        for block in shipped(phase) {
            let back = Terms::of(&block).to_block().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(back.to_string(), block.to_string());
            assert!(back == block, "{block}");
            verify_block(&back).unwrap_or_else(|errors| panic!("{errors:?}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn drawn_blocks_come_back(model in common::any_model()) {
        for phase in Phase::ALL {
            for block in lowered(&model, phase).blocks {
                let back = Terms::of(&block).to_block().unwrap();
                prop_assert!(back == block, "{back}\n{block}");
            }
        }
    }
}
