//! The tiny models that the project has trained: that thinking helps them, and what budgets do to it.

mod budgets;
mod references;
mod scores;

use nemo_tests::commands::Room;
use nemo_tests::trained::folder;
use serde_json::Value;

/// A room with a trained model's artifact, `model.nemo`.
fn room(name: &str, activations: &str) -> Room {
    let room = Room::new();
    let model = folder(name).display().to_string();
    room.succeeds(&format!(
        "nemoc compile '{model}' --target host --activations {activations} --max-context 512 -o model.nemo --quiet"
    ));
    room
}

/// Every line of a file of JSON.
fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}
