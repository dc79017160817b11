//! Greedy answers, token by token, beside those of `transformers` and of plain torch.

use nemo_tests::trained::{TRAINED, folder, references};
use serde_json::{Value, json};

use super::{lines, room};

#[test]
fn greedy_answers_are_those_of_the_references() {
    for name in TRAINED {
        let wanted = lines(&std::fs::read(references(name)).expect("references"));
        assert_eq!(wanted.len(), 400, "{name}: 200 problems, thinking on and off");
        let room = room(name, "f32");
        // Each problem stands twice, on and off.
        let problems = wanted
            .iter()
            .step_by(2)
            .map(|line| format!("{}\n", json!({"messages": line["messages"], "answer": line["answer"]})));
        room.write("problems.jsonl", problems.collect::<String>());
        room.succeeds(&format!(
            "nemort eval model.nemo --weights '{}' --problems problems.jsonl --budgets none,off --save found.jsonl",
            folder(name).display()
        ));
        let mut found = lines(&room.read("found.jsonl"));
        // They stand as they ended.
        found.sort_by_key(|line| (line["thinking"] == "off", line["line"].as_u64()));
        let (on, off) = found.split_at(200);
        for (n, wanted) in wanted.iter().enumerate() {
            let found = if n % 2 == 0 { &on[n / 2] } else { &off[n / 2] };
            let ids = |line: &Value| (line["prompt"].clone(), line["tokens"].clone());
            assert_eq!(ids(found), ids(wanted), "{name}, {wanted}");
        }
    }
}
