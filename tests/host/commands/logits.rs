//! `nemort logits`, against independent implementations.

use nemo_tests::commands::Room;
use nemo_tests::golden::{FIXTURES, folder, model, references};
use safetensors::{Dtype, SafeTensors};

use super::TARGETS;

#[test]
fn logits_are_those_of_the_references() {
    for name in FIXTURES {
        let room = Room::new();
        room.artifact(name, TARGETS);
        let vocab = model(name).vocab as usize;
        let [a, b] = references(name);
        for (reference, more) in [
            (&a, ""),
            (&b, "--decode"),
            (&b, "--target x86-64-v3 --threads 1"),
            (&b, "--target x86-64-v3 --decode"),
        ] {
            let tokens = reference.prompt.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let weights = folder(name).display().to_string();
            let printed = room.succeeds(&format!(
                "nemort logits {name}.nemo --weights '{weights}' --tokens {tokens} {more} -o out.safetensors"
            ));
            assert_eq!(printed, "");
            let bytes = room.read("out.safetensors");
            let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
            assert_eq!(file.names(), ["logits"]);
            let logits = file.tensor("logits").expect("logits");
            assert_eq!((logits.dtype(), logits.shape()), (Dtype::F32, &[reference.prompt.len(), vocab][..]));
            let found = logits.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let largest = reference.f32.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let error = found.zip(&reference.f32).fold(0.0_f32, |error, (x, y)| error.max((x - y).abs()));
            assert!(error <= 2e-5 * largest, "{name} {more}: {:e} of the largest logit", error / largest);
        }
    }
}
