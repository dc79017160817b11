//! The same block gives the same form, however often and on however many threads.

use nemoc::saturate::{BlockReport, Options, fuse};

use crate::{devices, shipped, situations};

fn all() -> Vec<(String, BlockReport)> {
    let device = &devices()[0];
    let mut forms = Vec::new();
    for at in &situations(device) {
        for block in shipped(at.phase) {
            let fused = fuse(&block, at, Options::default()).unwrap_or_else(|error| panic!("{error}"));
            forms.push((fused.block.to_string(), fused.report));
        }
    }
    forms
}

#[test]
fn the_same_block_gives_the_same_form() {
    let first = all();
    let others = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(all)).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    for other in others {
        assert!(other.is_ok_and(|other| other == first));
    }
}
